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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import Ints
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.memory import MemorySource, Table
from thalweg.record.importing.signature import signature_of
from thalweg.record.joining import tidy
from thalweg.record.jsontext import to_plain
from thalweg.record.roles import guess_role
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
    tables = [_table(part, specs, warnings) for part in split]
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
        "imported": {"format": imported.format, "path": str(imported.path), "notes": imported.notes},
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


def short_names(names: NameMap) -> dict[str, str]:
    """The user's words as further names of signals."""
    return {word: name for word, name in names.wanted.items() if word not in _PLACES}


def _spec(column: Column, roles: Mapping[str, Role]) -> SignalSpec:
    return SignalSpec(
        name=column.name,
        role=roles.get(column.name) or column.role or guess_role(column.name),
        clock=column.clock,
        unit=column.unit,
        dtype="float64" if column.role in ("tokens", "samples") else "float32",
        window=column.window,
        estimator=column.estimator,
    )


def _split_at_rewinds(part: Part, warnings: list[str]) -> list[Part]:
    """The part as it is, or one piece for each time that the longest column's steps go back and stay back."""
    ordered = [c for c in part.columns if c.order is not None and c.clock == "updates"]
    guide = max(ordered, key=lambda c: len(c.steps), default=None)
    if guide is None or guide.order is None:
        return [part]
    places = rewinds(guide.steps)
    if not len(places):
        return [part]
    first = int(guide.steps[places[0]])
    warnings.append(
        f"steps go back {len(places)} time{'s' if len(places) > 1 else ''}, first to {first:,}: taken as a resumption, "
        "which replaces what was logged before from that step on"
    )
    cuts = [0, *(int(guide.order[place]) for place in places), 1 << 62]
    pieces = []
    for low, high in itertools.pairwise(cuts):
        columns = [_between(column, low, high) for column in part.columns if column.order is not None]
        columns += [c for c in part.columns if c.order is None and low == 0]
        pieces.append(_without_empty(Part(columns=columns, started=part.started, ended=part.ended)))
    return [piece for piece in pieces if piece.columns]


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


def _table(part: Part, specs: Mapping[str, SignalSpec], warnings: list[str]) -> Table:
    table: Table = {}
    unsorted = repeated = 0
    for column in part.columns:
        steps = np.asarray(column.steps, np.int64)
        times = _microseconds(column, part)
        rows, values = tidy(steps, np.arange(len(steps)))
        unsorted += int((np.diff(steps) < 0).sum())
        repeated += len(steps) - len(rows)
        with np.errstate(over="ignore"):
            table[column.name] = (
                rows,
                np.asarray(column.values, np.float64)[values].astype(specs[column.name].dtype),
                times[values],
            )
    if unsorted:
        warnings.append(f"{unsorted:,} rows were out of order, and were sorted by their step")
    if repeated:
        warnings.append(
            f"{repeated:,} values repeat a step of their signal: the last one at each step is kept"
        )
    return table


def _microseconds(column: Column, part: Part) -> NDArray[np.int64]:
    times = np.full(len(column.steps), part.started) if column.times is None else column.times
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(times) & (np.abs(times) < 1e12)
    return (np.where(usable, times, 0.0) * 1e6).astype(np.int64)


def _segment(index: int, part: Part, table: Table, imported: Imported) -> Segment:
    firsts = [int(steps[0]) for steps, _, _ in table.values()]
    seen = [int(times.min()) for _, _, times in table.values()] + [int(t.max()) for _, _, t in table.values()]
    known = [t / 1e6 for t in seen if t > 0]
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
