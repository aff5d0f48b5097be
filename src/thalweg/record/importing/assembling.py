"""From what an importer read to a `Run`: roles, segments where steps rewind, repeats joined, holes and damage said.

Everything here treats all formats alike:

- A user's map goes first: its word gives the role, and the signal keeps its name in the log.
- Else the role is guessed from the name (`thalweg.record.roles`); a name with "val", "eval", "test" is never training.
- Where the steps of the longest column go back and stay back, a process resumed: a new segment begins there, in all
  columns, and replaces the earlier ones from its first step on. Single rows out of order are sorted.
- Of several values at one step the last stays. How many were sorted, repeated or empty is said in `Run.warnings`.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import Ints
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.memory import MemorySource, Table
from thalweg.record.importing.signature import signature_of
from thalweg.record.importing.tabular import THINNED
from thalweg.record.joining import tidy
from thalweg.record.jsontext import to_plain
from thalweg.record.roles import guess_part, guess_role
from thalweg.record.signals import Role, SignalSpec
from thalweg.record.sources import Segment

WORDS: Mapping[str, Role] = {
    "loss": "train loss",
    "train_loss": "train loss",
    "eval_loss": "evaluation loss",
    "val_loss": "evaluation loss",
    "metric": "train metric",
    "eval_metric": "evaluation metric",
    "lr": "rate",
    "rate": "rate",
    "grad_norm": "gradient norm",
    "update_norm": "update norm",
    "update_ratio": "update ratio",
    "weight_norm": "weight norm",
    "tokens": "tokens",
    "samples": "samples",
    "epoch": "epoch",
    "step_time": "step time",
    "memory": "memory",
    "loss_scale": "loss scale",
    "batch_size": "batch size",
}
_FIRST_DATE = 1e14  # microseconds, in 1973: times below count from a start that the log doesn't tell
_LONG_GAP, _FEWEST_GAPS = 20, 10  # times the usual spacing is a hole, in a log with at least so many rows
_MOST_RESUMPTIONS = 0.02  # of the rows; a log that goes back more often is unsorted, not resumed


def assemble(imported: Imported, names: NameMap) -> MemorySource:
    """Make the source of a run of what an importer read.

    Raises:
        RunFileError: there is no number in it, or the map names a column that isn't there.
    """
    parts = [_without_empty(part) for part in imported.parts]
    columns = [column for part in parts for column in part.columns]
    if not columns:
        raise RunFileError(f"{imported.path}: it was read as {imported.format}, and holds no number")
    roles = _mapped_roles(names, columns, imported.path)
    warnings = list(imported.warnings)
    split = [piece for part in parts for piece in _split_at_rewinds(part, warnings)]
    specs = {column.name: _spec(column, roles) for column in columns}
    notes = [*imported.notes, *_take_parts(specs)]
    tables = [_table(part, specs) for part in split]
    _say_disorder(split, warnings)
    _say_holes(tables, specs, warnings)
    run_id = hashlib.sha256(f"{imported.path.absolute()}\0{imported.name}".encode()).hexdigest()[:32]
    segments = [
        (_segment(index, part, table, imported), table)
        for index, (part, table) in enumerate(zip(split, tables, strict=True))
    ]
    meta: dict[str, Any] = {
        "name": imported.name,
        "config": to_plain(dict(imported.config)),
        "environment": to_plain(dict(imported.environment)),
        "tags": imported.tags,
        "summary": to_plain(dict(imported.summary)),
        "imported": {"format": imported.format, "path": str(imported.path), "notes": notes},
    }
    before = signature_of(imported.path)
    return MemorySource(
        imported.path,
        run_id,
        meta,
        specs,
        segments,
        events=[],
        warnings=warnings,
        changed=lambda: signature_of(imported.path) != before,
    )


def _without_empty(part: Part) -> Part:
    return Part(columns=[c for c in part.columns if len(c.steps)], started=part.started, ended=part.ended)


def _mapped_roles(names: NameMap, columns: list[Column], path: Path) -> dict[str, Role]:
    """Name in the log -> role, for what the user mapped."""
    there = {column.name for column in columns}
    out: dict[str, Role] = {}
    for word, name in names.wanted.items():
        if word in _PLACES:
            continue
        if name not in there:
            listed = ", ".join(sorted(there)[:12])
            raise RunFileError(f"{path} has no column {name!r} to take as {word}; it has {listed}")
        if word in WORDS:
            out[name] = WORDS[word]
    return out


_PLACES = frozenset(
    {"step", "epoch", "time"}
)  # words that say where values lie: importers use them while reading
_EXACT = ("tokens", "samples", "wall time")  # counters outgrow the 7 digits of float32


def short_names(names: NameMap) -> dict[str, str]:
    """The user's words as further names of signals."""
    return {word: name for word, name in names.wanted.items() if word not in _PLACES}


def _spec(column: Column, roles: Mapping[str, Role]) -> SignalSpec:
    role = roles.get(column.name) or column.role or guess_role(column.name)
    spec = SignalSpec(
        name=column.name,
        role=role,
        clock=column.clock,
        unit=column.unit,
        dtype="float64" if role in _EXACT else "float32",
        window=column.window,
        estimator=column.estimator,
    )
    return _with_window(spec)


def _with_window(spec: SignalSpec) -> SignalSpec:
    """A value an epoch of what is trained on is no single step's."""
    if spec.clock != "epochs" or spec.role not in ("train loss", "train metric") or spec.window != 1:
        return spec
    return replace(
        spec, window=0, estimator=spec.estimator or "one value an epoch: probably the mean over it"
    )


def _take_parts(specs: dict[str, SignalSpec]) -> list[str]:
    """Where nothing is the loss as a whole, give the role to its parts; in words, so that the user can choose."""
    notes = []
    for role in ("train loss", "evaluation loss"):
        if any(spec.role == role for spec in specs.values()):
            continue
        parts = [name for name, spec in specs.items() if not spec.role and guess_part(name) == role]
        for name in parts:
            specs[name] = _with_window(replace(specs[name], role=role))
        if len(parts) > 1:
            notes.append(
                f"no {role} as a whole: {', '.join(parts[:8])} are parts or data sets, each taken as one"
            )
    return notes


def _split_at_rewinds(part: Part, warnings: list[str]) -> list[Part]:
    """The part as it is, or one piece for each time that the longest column's steps go back and stay back."""
    ordered = [c for c in part.columns if c.order is not None and c.clock != "rows"]
    guide = max(ordered, key=lambda c: len(c.steps), default=None)
    if guide is None or guide.order is None:
        return [part]
    places = rewinds(guide.steps)
    if not len(places):
        return [part]
    warnings.append(_how_it_goes_back(guide.steps, places))
    cuts = [0, *(int(guide.order[place]) for place in places), 1 << 62]
    pieces = []
    for low, high in itertools.pairwise(cuts):
        columns = [_between(column, low, high) for column in part.columns if column.order is not None]
        columns += [c for c in part.columns if c.order is None and low == 0]
        pieces.append(_without_empty(Part(columns=columns, started=part.started, ended=part.ended)))
    return [piece for piece in pieces if piece.columns]


def _how_it_goes_back(steps: Ints, places: Ints) -> str:
    first, times = int(steps[places[0]]), f"{len(places)} time{'s' if len(places) > 1 else ''}"
    if first <= int(steps[0]):
        return (
            f"steps begin anew at {first:,} ({times}): what came before is segment 0, replaced by what follows; "
            "are these several runs in one log?"
        )
    return (
        f"steps go back {times}, first to {first:,}: taken as a resumption, which replaces what was logged before from "
        "that step on"
    )


def rewinds(steps: Ints) -> Ints:
    """Places [k] in a log where its steps go back and stay back; none if it does so too often to be resumptions."""
    if len(steps) < 2:
        return np.empty(0, np.int64)
    highest = np.maximum.accumulate(steps)
    behind = np.append(False, steps[1:] < highest[:-1])
    falls = np.append(False, steps[1:] < steps[:-1])
    stays = np.append(behind[1:], True)  # the next row is behind as well, or there is none
    places = np.flatnonzero(behind & falls & stays)
    return places if len(places) <= max(3, _MOST_RESUMPTIONS * len(steps)) else np.empty(0, np.int64)


def _between(column: Column, low: int, high: int) -> Column:
    assert column.order is not None
    kept = (column.order >= low) & (column.order < high)
    return Column(
        name=column.name,
        steps=column.steps[kept],
        values=column.values[kept],
        times=None if column.times is None else column.times[kept],
        order=column.order[kept],
        clock=column.clock,
        role=column.role,
        window=column.window,
        estimator=column.estimator,
        unit=column.unit,
    )


def _say_holes(tables: list[Table], specs: Mapping[str, SignalSpec], warnings: list[str]) -> None:
    """Say where the fullest signal of steps has no rows for much longer than usual."""
    for table in tables:
        names = [
            n for n in table if specs[n].clock == "updates" and not specs[n].estimator.startswith(THINNED)
        ]
        if not names:
            continue
        steps = table[max(names, key=lambda name: len(table[name][0]))][0]
        gaps = np.diff(steps)
        if len(gaps) < _FEWEST_GAPS:
            continue
        long = np.flatnonzero(gaps > _LONG_GAP * np.median(gaps))
        if len(long) and len(long) < len(gaps) / 10:
            at = long[np.argmax(gaps[long])]
            warnings.append(
                f"{len(long):,} holes: the longest without any row is from step {steps[at]:,} to {steps[at + 1]:,}"
            )


def _say_disorder(parts: list[Part], warnings: list[str]) -> None:
    """Say how many rows were sorted, and how many values were dropped for a later one at the same step."""
    columns = [column for part in parts for column in part.columns]
    unsorted = sum(int((np.diff(column.steps) < 0).sum()) for column in columns)
    repeated = sum(_contradictions(column.steps, column.values) for column in columns)
    if unsorted:
        warnings.append(f"{unsorted:,} values were out of order, and were sorted by their step")
    if repeated:
        warnings.append(
            f"{repeated:,} values repeat a step of their signal with another value: the last one at each step is kept"
        )


def _table(part: Part, specs: Mapping[str, SignalSpec]) -> Table:
    table: Table = {}
    for column in part.columns:
        steps = np.asarray(column.steps, np.int64)
        rows, values = tidy(steps, np.arange(len(steps)))
        with np.errstate(over="ignore"):
            table[column.name] = (
                rows,
                np.asarray(column.values, np.float64)[values].astype(specs[column.name].dtype),
                _microseconds(column, part)[values],
            )
    return table


def _contradictions(steps: Ints, values: NDArray[np.float64]) -> int:
    """How many values repeat a step with another value; the same said twice is no loss."""
    if len(steps) < 2 or bool((steps[1:] > steps[:-1]).all()):
        return 0
    order = np.argsort(steps, kind="stable")
    same = np.diff(steps[order]) == 0
    before, after = values[order][:-1], values[order][1:]
    return int((same & (before != after) & ~(np.isnan(before) & np.isnan(after))).sum())


def _microseconds(column: Column, part: Part) -> NDArray[np.int64]:
    times = np.full(len(column.steps), part.started) if column.times is None else column.times
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(times) & (np.abs(times) < 1e12)
    return (np.where(usable, times, 0.0) * 1e6).astype(np.int64)


def _segment(index: int, part: Part, table: Table, imported: Imported) -> Segment:
    on_updates = [table[c.name] for c in part.columns if c.clock == "updates" and c.name in table]
    firsts = [int(steps[0]) for steps, _, _ in on_updates or table.values()]
    seen = [int(times.min()) for _, _, times in table.values()] + [int(t.max()) for _, _, t in table.values()]
    known = [t / 1e6 for t in seen if t > _FIRST_DATE]
    return Segment(
        id=index,
        rank=0,
        world=1,
        first_step=min(firsts) if index else 0,
        started=part.started or min(known, default=0.0),
        ended=None if imported.live else part.ended or max(known, default=0.0),
        reason="" if imported.live else "imported",
        path=imported.path,
        live=imported.live,
    )
