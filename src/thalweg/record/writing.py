"""From waiting rows to frames in the file: what the recorder's writer thread does."""

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import rows_that_fit
from thalweg.record.frames import BLOCK, DECLARE, END, EVENT, LAYOUT, META, START, SUMMARY, make_frame
from thalweg.record.liveness import process_birth
from thalweg.record.logfile import LogFile, Piece
from thalweg.record.overview import Overview, loss_name
from thalweg.record.payloads import LayoutSpec, put_block, put_declarations, put_json, put_layout
from thalweg.record.pending import Group, Queue, Rows, to_microseconds, unpack_rows
from thalweg.record.signals import SignalSpec

SUMMARY_SECONDS = 10.0
SUMMARY_BYTES = 4 << 20
"""A listing reads at most about this much of the end of a log."""
REPEAT_BYTES = 16 << 20
"""Declarations are written again after so many bytes, so that damage to one costs a stretch and not the run."""
SYNC_SECONDS = 30.0
TOUCH_SECONDS = 5.0
_LARGEST_SUMMARY = 4096
_SPECS_A_FRAME = 5000


@dataclass
class Batch:
    """What one turn of the writer takes over from the callers."""

    specs: list[tuple[int, SignalSpec]] = field(default_factory=list)
    metas: list[tuple[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[Queue, list[bytes], list[Rows]]] = field(default_factory=list)
    dropped: int = 0


def start_record(
    *,
    run_id: str,
    parent: str | None,
    segment: int,
    first_step: int,
    rank: int,
    world: int,
    meta: Mapping[str, Any],
) -> dict[str, Any]:
    """What the first frame of a log says: whose it is, and which process writes it."""
    return {
        "run_id": run_id,
        "parent": parent,
        "segment": segment,
        "first_step": first_step,
        "rank": rank,
        "world": world,
        "started": time.time(),
        "host": platform.node(),
        "pid": os.getpid(),
        "born": process_birth(os.getpid()),
        "meta": dict(meta),
    }


class LogWriter:
    """Turns batches into frames. Used by one thread at a time."""

    def __init__(self, file: LogFile, start: Mapping[str, Any]) -> None:
        self.file = file
        self.settled = True
        self.overview = Overview()
        self._specs: dict[int, SignalSpec] = {}
        self._layouts: dict[tuple[Any, ...], LayoutSpec] = {}
        self._new_layouts: list[LayoutSpec] = []
        self._metas: dict[str, Any] = {}
        self._loss: str | None = None
        self._repeat = False
        now = time.monotonic()
        self._summed = self._synced = self._touched = now
        self._summed_size = self._repeated_size = 0
        self._start = make_frame(START, put_json(start))
        file.begin([self._start])

    def write(self, batch: Batch, *, now: bool = False) -> None:
        """Append a batch, and whatever is due besides: a summary, declarations again, a sync."""
        try:
            pieces = self._pieces(batch)
        except BaseException:
            self._repeat = True  # a part of this batch is lost, but not what later ones rest on
            raise
        if pieces or not self.settled:
            self.settled = self.file.write(pieces, now=now)
        self._keep_house(bool(pieces))

    def _pieces(self, batch: Batch) -> list[Piece]:
        pieces = [Piece(data) for data in self._notes(batch)]
        blocks = list(self._blocks(batch))
        pieces += [Piece(make_frame(LAYOUT, put_layout(layout))) for layout in self._new_layouts]
        self._new_layouts = []
        if self._repeat:
            pieces += [Piece(data) for data in self._repeats()]
        pieces += blocks
        pieces += [Piece(make_frame(EVENT, put_json(event)), 1) for event in batch.events]
        self.overview.dropped = batch.dropped + self.file.dropped
        if self._summary_is_due(sum(len(p.data) for p in pieces)):
            if self.file.size - self._repeated_size >= REPEAT_BYTES:
                pieces += [Piece(data) for data in self._repeats()]
            pieces.append(Piece(make_frame(SUMMARY, put_json(self._summary()))))
        return pieces

    def end(self, reason: str) -> None:
        """Append the end frame: the run's last summary, with why it ended."""
        record = {**self._summary(), "reason": reason, "ended": time.time()}
        self.settled = self.file.write([Piece(make_frame(END, put_json(record)))], now=True)

    def _notes(self, batch: Batch) -> list[bytes]:
        self._specs.update(batch.specs)
        self._metas.update(batch.metas)
        frames = [make_frame(META, put_json({"key": key, "value": value})) for key, value in batch.metas]
        if batch.specs:
            self._loss = loss_name({s.name: s for s in self._specs.values()})
            self.overview.signals = len(self._specs)
            frames += _declared(batch.specs)
        return frames

    def _blocks(self, batch: Batch) -> Iterator[Piece]:
        for queue, rows, blocks in batch.rows:
            groups = queue.groups or self._groups(queue)
            if rows:
                yield from self._block(queue, groups, unpack_rows(queue, rows))
            for block in blocks:
                yield from self._block(queue, groups, block)

    def _groups(self, queue: Queue) -> list[Group]:
        """Split a queue's columns by stored type, and give each part its layout."""
        if queue.shaped:
            kinds = {queue.specs[0].dtype: list(range(len(queue.specs)))}
        else:
            kinds = {}
            for i, spec in enumerate(queue.specs):
                kinds.setdefault(spec.dtype, []).append(i)
        for dtype, columns in kinds.items():
            ids = tuple(queue.ids[i] for i in columns)
            layout = self._layout(queue.clock, dtype, queue.specs[0].shape, ids)
            everything = len(columns) == len(queue.specs)
            queue.groups.append(Group(layout.id, dtype, slice(None) if everything else columns))
        return queue.groups

    def _layout(self, clock: str, dtype: str, shape: tuple[int, ...], ids: tuple[int, ...]) -> LayoutSpec:
        key = (clock, dtype, shape, ids)
        if key not in self._layouts:
            self._layouts[key] = layout = LayoutSpec(len(self._layouts), clock, dtype, shape, ids)
            self._new_layouts.append(layout)
        return self._layouts[key]

    def _block(self, queue: Queue, groups: Sequence[Group], rows: Rows) -> Iterator[Piece]:
        self._count(queue, rows)
        most = rows_that_fit(queue.row_points, 8)
        micro = to_microseconds(rows.times, time.time())
        for group in groups:
            for at in range(0, len(rows.steps), most):
                part = slice(at, at + most)
                values = _stored(queue, group, rows.values[part])
                data = put_block(group.layout, rows.steps[part], micro[part], values)
                yield Piece(make_frame(BLOCK, data), values.size)

    def _count(self, queue: Queue, rows: Rows) -> None:
        if not len(rows.steps):
            return
        view = self.overview
        view.points += rows.values.size
        top = int(rows.steps.max())
        view.steps[queue.clock] = max(top, view.steps.get(queue.clock, top))
        view.last_time = float(rows.times[-1])
        if self._loss is not None and not queue.shaped:
            column = next((i for i, spec in enumerate(queue.specs) if spec.name == self._loss), None)
            if column is not None:
                view.last_loss = float(rows.values[-1, column])

    def _summary(self) -> dict[str, Any]:
        record = self.overview.to_dict()
        summary = self._metas.get("summary")
        if summary is not None and len(str(summary)) <= _LARGEST_SUMMARY:
            record["summary"] = summary
        return record

    def _summary_is_due(self, coming: int) -> bool:
        size, now = self.file.size + coming, time.monotonic()
        grown = size - self._summed_size
        if grown < SUMMARY_BYTES and (now - self._summed < SUMMARY_SECONDS or grown < 1024):
            return False
        self._summed, self._summed_size = now, size
        return True

    def _repeats(self) -> list[bytes]:
        """The start, all declarations, layouts and facts once more."""
        self._repeat, self._repeated_size = False, self.file.size
        frames = [self._start, *_declared(list(self._specs.items()))]
        frames += [make_frame(LAYOUT, put_layout(layout)) for layout in self._layouts.values()]
        return frames + [make_frame(META, put_json({"key": k, "value": v})) for k, v in self._metas.items()]

    def _keep_house(self, wrote: bool) -> None:
        now = time.monotonic()
        if wrote:
            self._touched = now
        elif now - self._touched > TOUCH_SECONDS:
            self._touched = now
            self.file.touch()
        if now - self._synced > SYNC_SECONDS:
            self._synced = now
            self.file.sync()


def _declared(specs: list[tuple[int, SignalSpec]]) -> list[bytes]:
    parts = [specs[at : at + _SPECS_A_FRAME] for at in range(0, len(specs), _SPECS_A_FRAME)]
    return [make_frame(DECLARE, put_declarations(part)) for part in parts]


def _stored(queue: Queue, group: Group, values: NDArray[Any]) -> NDArray[Any]:
    """Columns [columns, rows, *shape] in the type they are stored as; infinity where float32 can't hold it."""
    columns = np.swapaxes(values, 0, 1)[group.columns]
    if columns.dtype == group.dtype:
        return np.ascontiguousarray(columns)
    with np.errstate(all="ignore"):
        if np.dtype(group.dtype).kind in "iu" and columns.dtype.kind == "f":
            limits = np.iinfo(group.dtype)
            columns = np.nan_to_num(columns).clip(float(limits.min), float(limits.max))
            out = columns.astype(group.dtype)
            out[columns >= float(limits.max)] = limits.max
            return np.ascontiguousarray(out)
        return np.ascontiguousarray(columns.astype(group.dtype))


def uncaught_name() -> str | None:
    """The name of the exception that ends this process, if one does; for what runs at exit."""
    error = getattr(sys, "last_value", None)
    return type(error).__name__ if error is not None and not hasattr(sys, "ps1") else None
