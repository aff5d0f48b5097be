"""From runs to what the page's script draws: lines and heat maps, thinned, with their places in the store of arrays."""

import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.diagnosis import Diagnosis
from thalweg.record import Run, Series
from thalweg.record.plotting import DASHES, LIGHT, downsample, thin_columns, wants_log
from thalweg.record.run import LayerMatrix
from thalweg.record.signals import SignalSpec
from thalweg.reports.arrays import ArrayStore, Reference
from thalweg.reports.panels import OTHER, PANELS, Panel, layered, quantity

Floats = NDArray[np.float64]

# The page stays within 6 MB whatever is put in: these are shared by all lines, and by all heat maps.
LINE_POINTS, MOST_PER_LINE, LEAST_PER_LINE = 120_000, 2_000, 200
HEAT_CELLS, MOST_COLUMNS, LEAST_COLUMNS = 200_000, 400, 20
STRETCHES = 200  # of the means drawn over a signal that jumps, at most
WORTH_MEANS = 200  # values; fewer are seen one by one
LINES_PER_PANEL = 12  # of one run; more can't be told apart
OTHER_PANELS = 24
MOST_INDICES = (
    256  # of a vector's or matrix's values, a row each; more rows than lines on a screen tell nothing
)
EVENTS_DRAWN = 200  # of one run, the most severe first
SEVERITIES = ("critical", "warning", "note")


@dataclass(frozen=True)
class Source:
    """One run of the page: its place (which gives its color), its label, and the axes it has."""

    index: int
    label: str
    run: Run
    start: float  # unix seconds
    axes: tuple[str, ...]

    def positions(self, series: Series) -> dict[str, Floats]:
        """Return where the points of a signal lie on each axis: steps, seconds since the start, tokens."""
        return {axis: np.asarray(self.run.axis(series, axis)) for axis in self.axes}


@dataclass
class Drawn:
    """A panel with what there is to draw in it."""

    panel: Panel
    traces: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[tuple[str, ...]] = field(default_factory=list)  # a row a line: run, signal, then NUMBERS
    without: list[str] = field(default_factory=list)  # labels of runs that have nothing here
    left_out: list[str] = field(default_factory=list)  # "run: signal" beyond what a figure can show
    unit: str = ""
    logarithmic: bool = False


NUMBERS = ("first", "last", "smallest", "largest", "points", "not finite")


def as_sources(runs: Sequence[Run]) -> list[Source]:
    """Give each run its place and a label of its own; runs with one name are told apart by their id."""
    names = [run.name or run.id for run in runs]
    sources = []
    for index, run in enumerate(runs):
        label = names[index] if names.count(names[index]) == 1 else f"{names[index]} ({run.id[-6:]})"
        tokens = any(len(series) for series in run.all_by_role("tokens"))
        axes = ("step", "time", "tokens") if tokens else ("step", "time")
        sources.append(Source(index, label, run, run.started, axes))
    return sources


def draw(sources: Sequence[Source], store: ArrayStore) -> list[Drawn]:
    """Fill every panel that has something to show, or something to say about what is missing."""
    plan = list(_plan(sources))
    lines = sum(len(specs) for panel, picks in plan if panel.kind == "lines" for specs in picks)
    cells = sum(1 for panel, picks in plan if panel.kind == "layers" for specs in picks if specs)
    points = _share(LINE_POINTS, lines, LEAST_PER_LINE, MOST_PER_LINE)
    drawn = []
    for panel, picks in plan:
        if panel.kind == "lines":
            figure = _lines(panel, sources, picks, store, points)
        else:
            figure = _heat_maps(panel, sources, picks, store, HEAT_CELLS // max(1, cells))
        drawn.append(figure)
    return drawn


def _share(total: int, among: int, least: int, most: int) -> int:
    return min(most, max(least, total // max(1, among)))


def _plan(sources: Sequence[Source]) -> Iterator[tuple[Panel, list[list[SignalSpec]]]]:
    """Yield each panel with the signals of each run in it; a signal is shown once, in the first panel it fits."""
    rest = [_recorded(source.run) for source in sources]
    for panel in PANELS:
        picks = [panel.picks(specs) for specs in rest]
        rest = [[s for s in specs if s not in taken] for specs, taken in zip(rest, picks, strict=True)]
        if panel.missing or any(picks):
            yield panel, picks
    axes = ("tokens", "samples", "epoch", "wall time")
    others = sorted({(quantity(s), layered(s)) for specs in rest for s in specs if s.role not in axes})
    for name, of_layers in others[:OTHER_PANELS]:
        panel = replace(
            OTHER,
            title=name,
            names=(glob.escape(name.rpartition(":")[2]),),
            kind="layers" if of_layers else "lines",
        )
        yield panel, [[s for s in panel.picks(specs) if quantity(s) == name] for specs in rest]
    yield from _plan_of_arrays(sources)
    if len(others) > OTHER_PANELS:
        left = ", ".join(name for name, _ in others[OTHER_PANELS:])
        yield (
            replace(OTHER, title=f"{len(others) - OTHER_PANELS} more signals", about=f"Not drawn: {left}."),
            [],
        )


def _plan_of_arrays(sources: Sequence[Source]) -> Iterator[tuple[Panel, list[list[SignalSpec]]]]:
    """Yield a panel for each signal whose values are vectors or matrices, or the words that it is not drawn."""
    for name in sorted({s.name for source in sources for s in source.run.signals if s.shape})[:OTHER_PANELS]:
        picks = [[s for s in source.run.signals if s.name == name and s.shape] for source in sources]
        shapes = {spec.shape for specs in picks for spec in specs}
        words = " and ".join(" by ".join(map(str, shape)) for shape in sorted(shapes))
        if max(map(math.prod, shapes)) <= MOST_INDICES:
            about = f"Values of {words}: a row for each index, the first on top."
            yield replace(OTHER, title=name, about=about, kind="layers"), picks
        else:
            about = (
                f"Recorded and not drawn: values of {words} are too many rows. run[{name!r}].values has them."
            )
            yield replace(OTHER, title=name, about=about), []


def _recorded(run: Run) -> list[SignalSpec]:
    """Return the scalar signals of a run that hold a value."""
    return [spec for spec in run.signals if not spec.shape]


# ------------------------------------------------------------------------------------------- lines
def _lines(
    panel: Panel,
    sources: Sequence[Source],
    picks: Sequence[Sequence[SignalSpec]],
    store: ArrayStore,
    points: int,
) -> Drawn:
    drawn = Drawn(panel)
    everything, units = [], set()
    for source, specs in zip(sources, picks, strict=False):
        series = [source.run[spec.name] for spec in specs]
        if not series:
            drawn.without.append(source.label)
        drawn.left_out += [f"{source.label}: {s.name}" for s in series[LINES_PER_PANEL:]]
        for place, one in enumerate(series[:LINES_PER_PANEL]):
            color, dash = (place, 0) if len(sources) == 1 else (source.index, place)
            style = {"color": color % len(LIGHT), "dash": (dash + color // len(LIGHT)) % len(DASHES)}
            trace, y = _line(source, one, store, points, panel.smooth)
            drawn.traces.append(trace | style)
            drawn.numbers.append((source.label, one.name, *_numbers(one.values)))
            units.add(one.spec.unit)
            everything.append(y)
    drawn.unit = units.pop() if len(units) == 1 else ""
    drawn.logarithmic = bool(everything) and wants_log(np.concatenate(everything))
    return drawn


def _line(
    source: Source, series: Series, store: ArrayStore, points: int, smooth: bool
) -> tuple[dict[str, Any], Floats]:
    """Thin one signal; return what the script draws of it, and the values kept."""
    values = np.asarray(series.values, dtype=float)
    positions = source.positions(series)
    kept, y = downsample(np.arange(values.size), values, points)
    trace: dict[str, Any] = {
        "run": source.index,
        "name": series.name,
        "x": {axis: store.add(x[kept]) for axis, x in positions.items()},
        "y": store.add(y),
        "marked": series.spec.role.startswith("evaluation") or values.size <= 60,
    }
    if smooth and values.size >= WORTH_MEANS:
        stretches = min(STRETCHES, values.size // 8)
        starts = np.linspace(0, values.size, stretches, endpoint=False).astype(np.intp)
        trace["mean"] = {
            "x": {axis: store.add(_means(x, starts)) for axis, x in positions.items()},
            "y": store.add(_means(values, starts)),
        }
    return trace, y


def _means(values: Floats, starts: NDArray[np.intp]) -> Floats:
    """Return the mean of the finite values of each stretch, NaN where it has none."""
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    counts = np.add.reduceat(finite.astype(float), starts)
    means: Floats = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return means


def _numbers(values: NDArray[Any]) -> tuple[str, ...]:
    finite = values[np.isfinite(values)]
    spread = (finite.min(), finite.max()) if finite.size else (math.nan, math.nan)
    numbers = [f"{float(v):.5g}" for v in (values[0], values[-1], *spread)]
    return (*numbers, f"{values.size:,}", f"{values.size - finite.size:,}")


# ------------------------------------------------------------------------------------------- heat maps
def _heat_maps(
    panel: Panel,
    sources: Sequence[Source],
    picks: Sequence[Sequence[SignalSpec]],
    store: ArrayStore,
    cells: int,
) -> Drawn:
    drawn = Drawn(panel)
    everything = []
    for source, specs in zip(sources, picks, strict=True):
        if not specs:
            drawn.without.append(source.label)
        for name in dict.fromkeys(_row_title(spec) for spec in specs):
            of_this = [spec for spec in specs if _row_title(spec) == name]
            trace, values = _heat_map(source, name, of_this, store, cells)
            drawn.traces.append(trace)
            everything.append(values.ravel())
    chosen = panel.logarithmic
    drawn.logarithmic = (
        bool(everything) and wants_log(np.concatenate(everything)) if chosen is None else chosen
    )
    return drawn


def _heat_map(
    source: Source, name: str, specs: Sequence[SignalSpec], store: ArrayStore, cells: int
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Thin a quantity of all layers to a number of columns that keeps the page small; each keeps its largest value."""
    matrix = _matrix_of(source.run[name]) if specs[0].shape else source.run.matrix(name)
    columns = _share(cells, len(matrix.layers), LEAST_COLUMNS, MOST_COLUMNS)
    indices, values = thin_columns(np.arange(len(matrix.steps)), np.asarray(matrix.values), columns)
    steps = matrix.steps[indices]
    trace = {
        "run": source.index,
        "name": name,
        "layers": list(matrix.layers),
        "x": _positions_of_steps(source, source.run[specs[0].name], steps, store),
        "z": store.add(values.T),
    }
    return trace, values


def _row_title(spec: SignalSpec) -> str:
    return spec.name if spec.shape else quantity(spec)


def _matrix_of(series: Series) -> LayerMatrix:
    """Return a signal of vectors or matrices as one matrix, its indices in place of layers."""
    labels = [", ".join(map(str, index)) for index in np.ndindex(*series.spec.shape)]
    return LayerMatrix(labels, series.steps, series.values.reshape(len(series), -1))


def _positions_of_steps(
    source: Source, guide: Series, steps: NDArray[Any], store: ArrayStore
) -> dict[str, Reference]:
    """Return where steps lie on each axis, read off a signal that was recorded along them."""
    where: Mapping[str, Floats] = source.positions(guide)
    return {
        axis: store.add(steps if axis == "step" else np.interp(steps, guide.steps, x))
        for axis, x in where.items()
    }


# ------------------------------------------------------------------------------------------- events
def draw_events(source: Source, store: ArrayStore, diagnosis: Diagnosis) -> dict[str, Any]:
    """Return what is marked on the lines of a run, findings and events: where, how severe, and what it says."""
    guide = _longest(source.run)
    marks = [] if guide is None else list(_marks(source.run, diagnosis, guide))
    marks = sorted(marks, key=lambda mark: _rank(mark[1]))[:EVENTS_DRAWN]
    if guide is None or not marks:
        return {"x": {}, "severity": [], "text": []}
    return {
        "x": _positions_of_steps(source, guide, np.array([step for step, _, _ in marks]), store),
        "severity": [severity for _, severity, _ in marks],
        "text": [text for _, _, text in marks],
    }


def _marks(run: Run, diagnosis: Diagnosis, guide: Series) -> Iterator[tuple[float, str, str]]:
    """Step, severity and words of every finding, then of every event."""
    for finding in diagnosis.flat():
        yield float(finding.first_step), finding.severity, f"{finding.kind}: {finding.title}"
    for event in run.events():
        yield (
            _step_of(event.step, event.time, guide),
            event.severity,
            f"{event.kind}{_details(event.details)}",
        )


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _longest(run: Run) -> Series | None:
    """Return the training loss if there is one, else any scalar signal, to read times off."""
    for role in ("train loss", "rate", "gradient norm"):
        for series in run.all_by_role(role):
            if len(series) and not series.spec.shape:
                return series
    return next((run[spec.name] for spec in _recorded(run)), None)


def _step_of(step: int | None, time: float, guide: Series) -> float:
    return float(step) if step is not None else float(np.interp(time, guide.times, guide.steps))


def _details(details: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key} {value}" for key, value in details.items())
    return f": {text[:200]}" if text else ""
