"""``thalweg show``: one run in the terminal; with signals, their plots and values."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from thalweg.record.run import Run, Series

_ROWS = 6  # of a signal's values, from each end
_EVENTS = 20
_PLOTS = 12


def show_run(
    run: Annotated[str, Argument(help="A path, or the beginning of a name or id in runs/.")],
    signals: Annotated[
        list[str] | None, Argument(metavar="[SIGNAL]...", help="Names, or patterns like 'grad/*'.")
    ] = None,
    values: Annotated[
        bool, Option("--values", help="Print all values, not only the first and last.")
    ] = False,
    follow: Annotated[bool, Option("--follow", help="Repeat while the run grows; Ctrl-C ends it.")] = False,
    map: Annotated[
        list[str] | None,
        Option("--map", help="In another tool's log: what a name means, as in loss=train/my_loss."),
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Show a run: settings, segments, cost, events, signals. With SIGNAL: its plot, and its values as a table.

    For a quantity that each layer has (grad/norm), also a line a layer.
    """
    from thalweg.cli import output
    from thalweg.cli.foreign import open_any

    opened = open_any(run, map or ())
    patterns = signals or []

    def records() -> list[dict[str, Any]]:
        return [_series_record(s) for s in _select(opened, patterns)] if patterns else [_run_record(opened)]

    def page() -> str:
        return _signal_page(opened, patterns, values) if patterns else _overview(opened)

    def growing() -> bool:
        return follow and opened.refresh().live

    if json:
        output.follow_json(records, growing)
    elif follow:
        output.follow(page, growing)
    else:
        output.write(page())


# ------------------------------------------------------------------------------------------- as records
def _run_record(run: "Run") -> dict[str, Any]:
    names = (
        "id",
        "name",
        "path",
        "config",
        "tags",
        "environment",
        "summary",
        "meta",
        "segments",
        "live",
        "warnings",
        "signals",
    )
    return {name: getattr(run, name) for name in names} | {"events": run.events()}


def _series_record(series: "Series") -> dict[str, Any]:
    return {name: getattr(series, name) for name in ("name", "spec", "steps", "values", "times")}


def _select(run: "Run", patterns: Sequence[str]) -> "list[Series]":
    """Return the signals that the patterns name, each once; a pattern that fits none is an error.

    A name that only the layers of a quantity have stands for all of them.
    """
    from thalweg.core.errors import UsageError

    names: dict[str, None] = {}
    for pattern in patterns:
        found = [pattern] if pattern in run else run.names(pattern) or _layers_of(run, pattern)
        if not found:
            raise UsageError(f"{run.path} has no signal {pattern}; {_nearby(run, pattern)}")
        names |= dict.fromkeys(found)
    return [run[name] for name in names]


def _layers_of(run: "Run", quantity: str) -> list[str]:
    """Return the names of a quantity's layers that are scalars, in their order in the model."""
    return [s.name for s in run.signals if s.layer and s.name == f"{quantity}/{s.layer}" and not s.shape]


def _nearby(run: "Run", pattern: str) -> str:
    from difflib import get_close_matches

    names = run.names()
    close = (
        get_close_matches(pattern, names, n=5, cutoff=0.5)
        or [name for name in names if "/" not in name][:8]
        or names[:8]
    )
    return f"it has {', '.join(close)}" if close else "nothing was recorded in it"


# ------------------------------------------------------------------------------------------- one run
def _overview(run: "Run") -> str:
    from thalweg.cli.output import heading, table
    from thalweg.record.plotting import safe_text

    parts: list[str] = [heading(run.name), *_facts(run), ""]
    parts += [f"Warning: {safe_text(warning)}" for warning in run.warnings]
    if len(run.segments) > 1:
        columns = ("segment", "rank", "of", "first step", "started", "ended by")
        parts += [heading("Segments"), table(columns, _segment_rows(run)), ""]
    parts += [*_event_parts(run), heading("Signals")]
    columns = ("signal", "last", "at step", "points", "role", "unit")
    rows = _signal_rows(run)
    parts.append(table(columns, rows, right=("last", "at step", "points")) if rows else "(nothing recorded)")
    return "\n".join(parts)


def _facts(run: "Run") -> list[str]:
    from thalweg.cli.output import near
    from thalweg.record.plotting import safe_text
    from thalweg.reports.summary import last_update
    from thalweg.reports.words import cost_in_words, duration, flat, how_it_ended, moment

    reason = run.segments[-1].reason if run.segments else ""
    step, time = last_update(run)
    facts = [
        ("id", run.id),
        ("file", near(run.path)),
        ("tags", ", ".join(map(str, run.tags))),
        ("started", moment(run.started)),
        ("ended", how_it_ended(run.live, reason)),
        ("lasted", f"{duration(max(0.0, time - run.started))}, {step:,} steps" if time else ""),
        ("settings", _pairs(flat(run.config))),
        ("environment", _pairs(flat(run.environment))),
        ("summary", _pairs(flat(run.summary))),
        ("cost", cost_in_words(run.meta.get("cost"))),
    ]
    return [f"{name:<12}  {safe_text(value)}" for name, value in facts if value]


def _pairs(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value not in ("", [], {}, None))


def _segment_rows(run: "Run") -> list[tuple[object, ...]]:
    from thalweg.reports.words import how_it_ended, moment

    return [
        (s.id, s.rank, s.world, f"{s.first_step:,}", moment(s.started), how_it_ended(s.live, s.reason))
        for s in run.segments
    ]


def _event_parts(run: "Run") -> list[str]:
    from thalweg.cli.output import heading, table
    from thalweg.reports.words import flat

    events = run.events()
    if not events:
        return []
    rows = [
        ("" if e.step is None else f"{e.step:,}", e.severity, e.kind, e.source, _pairs(flat(e.details))[:200])
        for e in events[-_EVENTS:]
    ]
    shown = f"Events (the last {_EVENTS} of {len(events):,})" if len(events) > _EVENTS else "Events"
    return [heading(shown), table(("step", "severity", "kind", "source", "details"), rows), ""]


def _signal_rows(run: "Run") -> list[tuple[object, ...]]:
    """A row for each signal; those of the layers of one quantity share a row, which shows their spread."""
    groups: dict[str, list[Series]] = {}
    for spec in run.signals:
        layered = spec.layer and spec.name.endswith(f"/{spec.layer}")
        key = spec.name.removesuffix(spec.layer) + "*" if layered else spec.name
        groups.setdefault(key, []).append(run[spec.name])
    rows: list[tuple[object, ...]] = []
    for key, group in sorted(groups.items()):
        spec = group[0].spec
        name = f"{key} ({len(group)} layers)" if spec.layer and key.endswith("*") else key
        step = max(int(series.steps[-1]) for series in group)
        rows.append((name, _last_of(group), f"{step:,}", f"{sum(map(len, group)):,}", spec.role, spec.unit))
    return rows


def _last_of(group: "Sequence[Series]") -> str:
    """Return the last value of a signal, or the smallest and largest last value of several."""
    from thalweg.record.plotting import number

    shape = group[0].spec.shape
    if shape:
        return f"shape {shape}"
    lasts = [float(series.last) for series in group]
    if len(lasts) == 1:
        return number(lasts[0])
    finite = [value for value in lasts if math.isfinite(value)]
    spread = " to ".join(number(v) for v in dict.fromkeys((min(finite), max(finite)))) if finite else ""
    odd = len(lasts) - len(finite)
    return f"{spread}, {odd} not finite".removeprefix(", ") if odd else spread


# ------------------------------------------------------------------------------------------- signals
def _signal_page(run: "Run", patterns: Sequence[str], values: bool) -> str:
    """Return plots and values of what the patterns name; of a quantity that layers have, a line a layer."""
    quantities = [pattern for pattern in dict.fromkeys(patterns) if _layers_of(run, pattern)]
    layered = {name for quantity in quantities for name in _layers_of(run, quantity)}
    alone = [series for series in _select(run, patterns) if series.name not in layered]
    tables = [_layer_table(run, quantity) for quantity in quantities]
    return "\n".join([_plots(alone, values), *tables] if alone else tables)


def _layer_table(run: "Run", quantity: str) -> str:
    """Return first, last, smallest and largest value of each layer, and their course, all on one scale."""
    from thalweg.cli.output import heading, table
    from thalweg.record.plotting import number, terminal_heat

    matrix = run.matrix(quantity)
    rows = []
    for layer, course in zip(matrix.layers, terminal_heat(matrix.values), strict=True):
        values = run[f"{quantity}/{layer}"].values.astype(float).tolist()
        finite = [v for v in values if math.isfinite(v)] or [math.nan]
        ends = (values[0], values[-1], min(finite), max(finite))
        rows.append((layer, *map(number, ends), course))
    columns = ("layer", "first", "last", "smallest", "largest", "course")
    unit = run[f"{quantity}/{matrix.layers[0]}"].spec.unit
    title = f"{quantity}{f', {unit}' if unit else ''}: {len(rows)} layers"
    span = f"steps {int(matrix.steps[0]):,} to {int(matrix.steps[-1]):,}"
    return "\n".join([heading(f"{title}, {span}"), table(columns, rows, right=columns[1:5]), ""])


def _plots(several: "Sequence[Series]", values: bool) -> str:
    from thalweg.record.plotting import safe_text

    parts: list[str] = []
    for series in several[:_PLOTS] if not values else several:
        parts += [*_plot(series), *_value_table(series, values), ""]
    if len(several) > _PLOTS and not values:
        rest = ", ".join(series.name for series in several[_PLOTS:])
        parts.append(safe_text(f"{len(several) - _PLOTS} more signals: {rest}"))
    return "\n".join(parts)


def _plot(series: "Series") -> list[str]:
    from shutil import get_terminal_size

    from thalweg.cli.output import heading
    from thalweg.record.plotting import terminal_plot

    unit = f", {series.spec.unit}" if series.spec.unit else ""
    if series.spec.shape:
        return [heading(f"{series.name}{unit}: values of shape {series.spec.shape}, not drawn")]
    width, height = get_terminal_size((100, 30))
    plot = terminal_plot(
        series.steps,
        series.values,
        max(24, min(width, 120) - 1),
        max(8, min(height - 14, 18)),
        series.name + unit,
    )
    return [plot]


def _value_table(series: "Series", values: bool) -> list[str]:
    from thalweg.cli.output import table

    if not len(series):
        return []
    every = range(len(series))
    shown = list(every) if values or len(series) <= 2 * _ROWS else [*every[:_ROWS], *every[-_ROWS:]]
    start = float(series.times[0])
    rows = [
        (f"{int(series.steps[i]):,}", f"{series.times[i] - start:.2f}", _value(series.values[i]))
        for i in shown
    ]
    if len(shown) < len(series):
        rows.insert(_ROWS, ("…", "…", f"… {len(series) - len(shown):,} more"))
    return [table(("step", "seconds", "value"), rows, right=("step", "seconds", "value")), ""]


def _value(value: Any) -> str:
    return f"{float(value):.6g}" if not getattr(value, "shape", ()) else " ".join(str(value).split())
