"""`Run`: a record as its reader sees it, whatever files it is in and whoever is still writing them."""

import difflib
import fnmatch
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError, UsageError
from thalweg.record.codecs import Ints
from thalweg.record.joining import Parts, cut_of, join, tidy
from thalweg.record.naming import family
from thalweg.record.signals import SignalSpec
from thalweg.record.sources import Event, Segment, Source

_KEPT_SERIES = 32
TIME_PREFIX = "time/"

Opener = Callable[[Path], list[Source]]


@dataclass(frozen=True)
class LayerMatrix:
    """A quantity over layers and steps.

    Attributes:
        layers: names of the layers, in the order of their declaration.
        steps: [n] steps at which any of them was recorded.
        values: [n, layers] float32; NaN where a layer has no value at a step.
    """

    layers: list[str]
    steps: Ints
    values: NDArray[np.float32]


class Series:
    """The values of one signal, in the order of its steps.

    Attributes:
        name: the signal's name.
        spec: its declaration.
        steps: [n] int64, strictly increasing.
        values: [n, *shape] in the declared type.
    """

    def __init__(
        self, spec: SignalSpec, steps: Ints, values: NDArray[Any], times: Callable[[], Ints]
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.steps = steps
        self.values = values
        self._load_times = times
        self._times: NDArray[np.float64] | None = None

    @property
    def times(self) -> NDArray[np.float64]:
        """[n] when each value was recorded, in Unix seconds; read from the file when first asked for."""
        if self._times is None:
            self._times = self._load_times() / 1e6
        return self._times

    @property
    def last(self) -> Any:
        """The value at the highest step: a float, or an array for a signal with a shape.

        Raises:
            IndexError: nothing was recorded.
        """
        value = self.values[-1]
        return value if self.spec.shape else value.item()

    def plot(self) -> Any:
        """A Plotly figure of the values over the steps."""
        from thalweg.record.plotting import plot_series

        return plot_series([self])

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        span = f", steps {self.steps[0]} to {self.steps[-1]}" if len(self) else ""
        return f"<Series {self.name!r}: {len(self)} values{span}>"


class Run:
    """A recorded run. Values are read from the files when they are asked for.

    Made by `open_run`. While the run is being written, `refresh` takes in what is new.

    Attributes:
        path: the file that was asked for.
        id: the run's id, common to all its files.
        name: what its author called it.
        parent: id of the run it was branched from, or None.
        meta: everything noted about it; `config`, `tags`, `environment` and `summary` are parts of it.
        segments: what each process wrote.
        warnings: what could not be read, in words.
    """

    def __init__(
        self,
        path: Path,
        opener: Opener,
        *,
        segment: int | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self._opener = opener
        self._segment = segment
        self._names = dict(names or {})
        self._series: OrderedDict[str, Series] = OrderedDict()
        self._own_warnings: list[str] = []
        self._sources: list[Source] = []
        self._load()

    def _load(self) -> None:
        from thalweg.record.opening import merged_meta, parts_of

        if not self._sources:
            self._family = family(self.path)
            self._sources = self._opener(self.path)
        every = sorted(parts_of(self._sources), key=lambda p: (p[1].id, p[1].rank))
        self.segments: list[Segment] = [part for _, part in every]
        wanted = self._segment
        if wanted is not None and wanted not in {part.id for part in self.segments}:
            there = sorted({part.id for part in self.segments})
            raise RunFileError(f"{self.path} has no segment {wanted}: there are {there}")
        self._parts = [(s, p) for s, p in every if wanted is None or p.id == wanted]
        self.meta: dict[str, Any] = merged_meta(self._sources)
        self.id: str = self._sources[0].run_id
        self.name: str = str(self.meta.get("name") or self.path.stem)
        self.parent: str | None = self.meta.get("parent")
        self._specs: dict[str, SignalSpec] = {}
        for source in dict.fromkeys(s for s, _ in self._parts):
            for name, spec in source.specs().items():
                self._specs[name] = spec.finished()
        self._present = [name for name in self._specs if any(s.wrote(name, p) for s, p in self._parts)]

    # What it is.

    @property
    def config(self) -> dict[str, Any]:
        """The settings it was started with."""
        return _mapping(self.meta.get("config"))

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, command."""
        return _mapping(self.meta.get("environment"))

    @property
    def summary(self) -> dict[str, Any]:
        """What its author noted as the result."""
        return _mapping(self.meta.get("summary"))

    @property
    def tags(self) -> list[str]:
        """Words to find it by."""
        tags = self.meta.get("tags")
        return [str(tag) for tag in tags] if isinstance(tags, list) else []

    @property
    def live(self) -> bool:
        """Whether a process is still writing it (see `liveness.is_alive` for how that is told)."""
        return any(part.live for part in self.segments)

    @property
    def started(self) -> float:
        """When its first segment began, in Unix seconds."""
        return min((part.started for part in self.segments), default=0.0)

    @property
    def warnings(self) -> list[str]:
        """What could not be read, in words."""
        return [*self._own_warnings, *(text for source in self._sources for text in source.warnings)]

    @property
    def clocks(self) -> list[str]:
        """The counters that steps are of."""
        return list(dict.fromkeys(self._specs[name].clock for name in self._present))

    @property
    def signals(self) -> list[SignalSpec]:
        """Declarations of the signals that have values, in the order they were declared."""
        return [self._specs[name] for name in self._present]

    # Its signals.

    def names(self, pattern: str | None = None) -> list[str]:
        """Names of the signals that have values, sorted; with a pattern ("grad/*"), those it matches."""
        return sorted(n for n in self._present if pattern is None or fnmatch.fnmatchcase(n, pattern))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._names.get(name, name) in self._present

    def __getitem__(self, name: str) -> Series:
        found = self.get(name)
        if found is None:
            close = difflib.get_close_matches(name, self._present, n=5, cutoff=0.5)
            hint = (
                f": did you mean {', '.join(map(repr, close))}?"
                if close
                else f": it has {len(self._present)} signals"
            )
            raise KeyError(f"{self.name} has no signal {name!r}{hint}")
        return found

    def get(self, name: str, default: Series | None = None, *, segment: int | None = None) -> Series | None:
        """A signal's values, or `default` where there are none; with `segment`, that segment's alone and whole."""
        name = self._names.get(name, name)
        if name not in self._present:
            return default
        if segment is not None:
            return self._read(name, segment)
        if name not in self._series:
            self._series[name] = self._read(name, None)
            while len(self._series) > _KEPT_SERIES:
                self._series.popitem(last=False)
        return self._series[name]

    def all_by_role(self, role: str) -> list[Series]:
        """All signals with a role, shortest name first."""
        names = sorted((n for n in self._present if self._specs[n].role == role), key=lambda n: (len(n), n))
        return [self[name] for name in names]

    def by_role(self, role: str) -> Series:
        """The signal with a role; of several the one with the shortest name.

        Where no signal has the role "wall time", it is what the recorder's clock said at each update.

        Raises:
            KeyError: no signal has it; the message lists the roles there are.
        """
        names = sorted((n for n in self._present if self._specs[n].role == role), key=lambda n: (len(n), n))
        if names:
            return self[names[0]]
        if role == "wall time" and self.clocks:
            return self.wall_time("updates" if "updates" in self.clocks else self.clocks[0])
        roles = sorted({self._specs[n].role for n in self._present} - {""})
        raise KeyError(f"{self.name} has no signal with the role {role!r}; it has {roles}")

    def matrix(self, prefix: str) -> LayerMatrix:
        """All scalar signals ``prefix/<layer>`` as one matrix of layers over steps."""
        start = prefix.rstrip("/") + "/"
        names = [n for n in self._present if n.startswith(start) and not self._specs[n].shape]
        series = [self[name] for name in names]
        steps = np.unique(np.concatenate([np.empty(0, np.int64), *(s.steps for s in series)]))
        values = np.full((len(steps), len(series)), np.nan, np.float32)
        for column, one in enumerate(series):
            values[np.searchsorted(steps, one.steps), column] = one.values
        return LayerMatrix([name.removeprefix(start) for name in names], steps, values)

    def axis(self, series: Series, kind: str) -> NDArray[Any]:
        """Where to draw a signal's values: [n] steps, seconds since the run began, or tokens seen by then.

        Raises:
            KeyError: no signal has the role "tokens".
            UsageError: another kind.
        """
        if kind == "step":
            return series.steps
        if kind == "time":
            return series.times - self.started
        if kind != "tokens":
            raise UsageError(f"an axis is 'step', 'time' or 'tokens', not {kind!r}")
        tokens = self.by_role("tokens")
        totals = tokens.values.astype(np.float64)
        if bool((np.diff(totals) < 0).any()):
            totals = np.cumsum(totals)  # counts of single steps instead of a running total
        same = tokens.spec.clock == series.spec.clock
        at, known = (series.steps, tokens.steps) if same else (series.times, tokens.times)
        return np.interp(at, known, totals) if len(totals) else np.full(len(series), np.nan)

    def wall_time(self, clock: str = "updates") -> Series:
        """When each step of a clock was first recorded, in Unix seconds."""
        spec = SignalSpec(name=TIME_PREFIX + clock, role="wall time", clock=clock, unit="s", dtype="float64")
        steps, times = np.empty(0, np.int64), np.empty(0, np.int64)
        for number in sorted({part.id for _, part in self._parts}):
            mine = [(s, p) for s, p in self._parts if p.id == number]
            cut = cut_of(clock, mine)
            kept = slice(None) if cut is None else slice(int(np.searchsorted(steps, cut)))
            source, part = mine[0]
            more = source.wall(clock, part)
            steps = np.concatenate([steps[kept], more[0]])
            times = np.concatenate([times[kept], more[1]])
            order = np.lexsort((times, steps))
            steps, times = tidy(steps[order], times[order], keep="first")
        return Series(spec, steps, times / 1e6, lambda: times)

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, in the order of time; without what a later segment replaced."""
        out: list[Event] = []
        for number in sorted({part.id for _, part in self._parts}):
            mine = [(s, p) for s, p in self._parts if p.id == number]
            cut = min(part.first_step for _, part in mine)
            if number:
                out = [e for e in out if e.step is None or e.clock != "updates" or e.step < cut]
            out += sorted((e for source, part in mine for e in source.events(part)), key=lambda e: e.time)
        return [event for event in out if kind is None or event.kind == kind]

    # As it grows, and in other forms.

    def refresh(self) -> "Run":
        """Take in what was written since the run was opened, also if the file was closed and compacted meanwhile."""
        self._series.clear()
        same = [source.refresh() for source in self._sources]
        members = family(self.path)
        if not all(same) or members != self._family:
            try:
                fresh = self._opener(self.path)
            except RunFileError as error:
                _note(self._own_warnings, str(error))
            else:
                for source in self._sources:
                    source.close()
                self._sources, self._family = fresh, members
        self._load()
        return self

    def plot(self, *names: str) -> Any:
        """A Plotly figure: of these signals, of all layers of one quantity ("grad/norm"), or of the losses.

        Raises:
            KeyError: there is no such signal.
        """
        from thalweg.record.plotting import plot_matrix, plot_series

        if len(names) == 1 and names[0] not in self and self.names(f"{names[0]}/*"):
            return plot_matrix(self.matrix(names[0]))
        losses = [s.name for s in self.all_by_role("train loss") + self.all_by_role("evaluation loss")]
        return plot_series([self[name] for name in names or losses or self.names()])

    def frame(self, names: list[str] | None = None) -> Any:
        """A pandas data frame: a row for each step, a column for each scalar signal; NaN where there is no value.

        Raises:
            MissingExtra: pandas is not installed.
        """
        from thalweg.record.exporting import to_frame

        return to_frame(self, names)

    def _read(self, name: str, segment: int | None) -> Series:
        spec = self._specs[name]
        parts = [(s, p) for s, p in self._parts if segment is None or p.id == segment]
        warn = partial(_note, self._own_warnings)  # a series must not hold the run that keeps it
        steps, values = join(spec, parts, timed=False, warn=warn)
        steps, values = steps.copy(), values.copy()  # what sources keep for other signals stays theirs
        return Series(spec, steps, values, lambda: _times(spec, parts, steps, warn))

    def __repr__(self) -> str:
        return f"<Run {self.name!r}: {len(self._present)} signals{', live' if self.live else ''}>"


def _times(spec: SignalSpec, parts: Parts, steps: Ints, warn: Callable[[str], None]) -> Ints:
    """Wall times at these steps; the file may have grown since they were read."""
    at, times = join(spec, parts, timed=True, warn=warn)
    if len(at) == len(steps):
        return times
    places = np.minimum(np.searchsorted(at, steps), max(0, len(at) - 1))
    return times[places] if len(at) else np.zeros(len(steps), np.int64)


def _note(warnings: list[str], text: str) -> None:
    if text not in warnings and len(warnings) < 50:
        warnings.append(text)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
