"""The rows of a log: where the blocks of each layout lie, and how they are read."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import DecodeError, Ints
from thalweg.record.frames import FRAME_HEAD, Frame
from thalweg.record.payloads import (
    BlockHead,
    LayoutSpec,
    column_place,
    get_block_head,
    get_block_times,
    get_block_values,
)
from thalweg.record.sources import chained

CACHE_BYTES = 1 << 26
"""A layout with more is read column by column, one with less as a whole and kept for its other signals."""


@dataclass(slots=True)
class Held:
    """The blocks of one layout: (offset, size, where the values begin) of each payload; rows, lowest and highest step."""

    first: int
    last: int
    blocks: list[tuple[int, int, int]] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0


@dataclass(slots=True)
class _Matrix:
    """All blocks of a layout: values are [columns, rows, *shape]."""

    steps: Ints
    times: Ints
    values: NDArray[Any]


class Blocks:
    """The blocks of an open log.

    Args:
        path: for messages.
        fd: the open file; its owner closes it.
        layouts: the layouts by number, as far as they are known; grows while the log is scanned.
        warn: told what can't be read.

    Attributes:
        index: layout -> its blocks.
    """

    def __init__(
        self, path: Path, fd: int, layouts: Mapping[int, LayoutSpec], warn: Callable[[str], None]
    ) -> None:
        self.index: dict[int, Held] = {}
        self._path = path
        self._fd = fd
        self._layouts = layouts
        self._warn = warn
        self._cache: OrderedDict[int, _Matrix] = OrderedDict()

    def take(self, frame: Frame) -> None:
        """Enter a block that was found."""
        head, steps = get_block_head(frame.payload)
        if not head.rows:
            return
        first, last = int(steps.min()), int(steps.max())
        held = self.index.setdefault(head.layout, Held(first, last))
        held.first, held.last = min(first, held.first), max(last, held.last)
        held.blocks.append((frame.offset + FRAME_HEAD, len(frame.payload), head.values_at))
        held.rows += head.rows
        held.nbytes += len(frame.payload)
        self._cache.pop(head.layout, None)

    def on(self, clock: str) -> list[int]:
        """The layouts on a clock that have rows."""
        return [i for i in self.index if i in self._layouts and self._layouts[i].clock == clock]

    def columns(self, number: int, column: int) -> Iterator[tuple[Ints, NDArray[Any]]]:
        """Steps [n] and values [n, *shape] of one column of a layout, in parts."""
        layout = self._layouts[number]
        if self.index[number].nbytes <= CACHE_BYTES:
            matrix = self._matrix(number)
            yield matrix.steps, matrix.values[column]
            return
        kind = np.dtype(layout.dtype).newbyteorder("<")
        for head, steps, at, size, _ in self._heads(number):
            place, nbytes = column_place(head, size, layout, column)
            data = np.frombuffer(self._bytes(at + place, nbytes), kind)
            yield steps, data.reshape(head.rows, *layout.shape)

    def times(self, number: int) -> tuple[Ints, Ints]:
        """Steps and wall times (microseconds) of a layout's rows."""
        if self.index[number].nbytes <= CACHE_BYTES:
            matrix = self._matrix(number)
            return matrix.steps, matrix.times
        return chained(
            (steps, get_block_times(data, head)) for head, steps, _, _, data in self._heads(number)
        )

    def time_of(self, number: int, block: int) -> float:
        """The last wall time of one block of a layout, in Unix seconds; 0 if it can't be read."""
        try:
            head, _, payload = self._read(*self.index[number].blocks[block][:2])
            return float(get_block_times(payload, head)[-1]) / 1e6
        except DecodeError:
            return 0.0

    def stream(self, layouts: tuple[int, ...], ids: list[int]) -> Iterator[tuple[Ints, Ints, NDArray[Any]]]:
        """Blocks of these layouts in file order: steps, times, and these signals' columns [ids, rows, *shape]."""
        blocks = sorted((at, size, i) for i in layouts for at, size, _ in self.index[i].blocks)
        for at, size, number in blocks:
            layout = self._layouts[number]
            try:
                head, steps, payload = self._read(at, size)
                values = get_block_values(payload, head, layout)
                everything = list(layout.signals) == ids
                picked = values if everything else values[[layout.signals.index(i) for i in ids]]
                yield steps, get_block_times(payload, head), picked
            except DecodeError as error:
                self._warn(str(error))

    def _matrix(self, number: int) -> _Matrix:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        layout = self._layouts[number]
        steps: list[NDArray[Any]] = []
        times: list[NDArray[Any]] = []
        values: list[NDArray[Any]] = []
        for at, size, _ in self.index[number].blocks:
            try:
                head, these, payload = self._read(at, size)
                parts = these, get_block_times(payload, head), get_block_values(payload, head, layout)
            except DecodeError as error:
                self._warn(str(error))
                continue
            for kept, part in zip((steps, times, values), parts, strict=True):
                kept.append(part)
        none = np.empty(0, np.int64)
        empty = np.empty((len(layout.signals), 0, *layout.shape), layout.dtype)
        matrix = _Matrix(
            np.concatenate([none, *steps]),
            np.concatenate([none, *times]),
            np.concatenate([empty, *values], axis=1),
        )
        self._cache[number] = matrix
        while sum(m.values.nbytes for m in self._cache.values()) > 2 * CACHE_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return matrix

    def _heads(self, number: int) -> Iterator[tuple[BlockHead, Ints, int, int, bytes]]:
        """Of each block what lies before its values, with its steps, offset and size."""
        layout = self._layouts[number]
        for at, size, values_at in self.index[number].blocks:
            try:
                data = self._bytes(at, values_at)
                head, steps = get_block_head(data, size)
                column_place(head, size, layout, 0)
                yield head, steps, at, size, data
            except DecodeError as error:
                self._warn(str(error))

    def _read(self, at: int, size: int) -> tuple[BlockHead, Ints, bytes]:
        payload = self._bytes(at, size)
        return *get_block_head(payload), payload

    def _bytes(self, at: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, at)
        except OSError as error:
            raise RunFileError(
                f"{self._path} can't be read any more ({error.strerror}): open it again"
            ) from error
        if len(data) != size:
            raise DecodeError("the file became shorter while it was read")
        return data
