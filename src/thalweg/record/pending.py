"""What was logged and is not yet written: rows packed as bytes, a queue for every set of names.

A call of ``log`` with the same names in the same order finds its queue by one look into a dictionary and leaves one
packed row there; turning rows into matrices is done later, for many at once, by the writer.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import Ints, size_of
from thalweg.record.signals import SignalSpec


@dataclass(slots=True)
class Rows:
    """Rows of a queue as arrays: steps and wall times [n], values [n, columns] or [n, columns, *shape]."""

    steps: Ints
    times: NDArray[np.float64]
    values: NDArray[Any]

    def thinned(self) -> "Rows":
        """Every second row, copied so that the memory of the others is given back."""
        return Rows(self.steps[::2].copy(), self.times[::2].copy(), self.values[::2].copy())

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.steps.nbytes + self.times.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True)
class Group:
    """The columns of a queue that share a stored type, and the layout they are written as."""

    layout: int
    dtype: str
    columns: list[int] | slice


@dataclass(slots=True, eq=False)
class Queue:
    """Rows waiting for the writer; scalars of any stored type together, or signals of one other shape and type.

    Attributes:
        specs: the signals, in the order of the columns.
        ids: their ids in the file.
        clock: the counter their steps are of.
        pack: (step, time, numbers...) -> one packed row; for shaped signals (step, time, bytes).
        rows: packed rows.
        blocks: rows that came as arrays.
    """

    specs: list[SignalSpec]
    ids: list[int]
    clock: str
    groups: list[Group] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    blocks: list[Rows] = field(default_factory=list)
    row_type: np.dtype[Any] = field(init=False)
    pack: Any = field(init=False)
    row_bytes: int = field(init=False)
    row_points: int = field(init=False)

    def __post_init__(self) -> None:
        if self.shaped:
            shape = (len(self.specs), *self.specs[0].shape)
            kind = np.dtype(self.specs[0].dtype).newbyteorder("<")
            self.pack = struct.Struct(f"<qd{size_of(shape) * kind.itemsize}s").pack
        else:
            shape, kind = (len(self.specs),), np.dtype("<f8")
            self.pack = struct.Struct(f"<qd{len(self.specs)}d").pack
        self.row_type = np.dtype([("step", "<i8"), ("time", "<f8"), ("values", kind, shape)])
        self.row_bytes = self.row_type.itemsize + 64  # what a bytes object and its place in a list add
        self.row_points = size_of(shape)

    @property
    def shaped(self) -> bool:
        """Whether this is a queue of values that are not scalars."""
        return bool(self.specs[0].shape)

    def take(self) -> tuple[list[bytes], list[Rows]]:
        """What waits, leaving the queue empty."""
        rows = self.rows[:]
        del self.rows[: len(rows)]  # in place: callers append without a lock, even in between
        blocks, self.blocks = self.blocks, []
        return rows, blocks

    def thin(self) -> tuple[int, int]:
        """Drop every second row; how many points and bytes that freed."""
        points = bytes_freed = 0
        if len(self.rows) > 1:
            dropped = len(self.rows) // 2  # counted before: callers append without a lock
            del self.rows[1::2]
            points, bytes_freed = dropped * self.row_points, dropped * self.row_bytes
        kept: list[Rows] = []
        single = 0
        for block in self.blocks:
            single += len(block.steps) == 1
            if len(block.steps) == 1 and single % 2 == 0:
                points += block.values.size
                bytes_freed += block.nbytes
                continue
            thinned = block.thinned() if len(block.steps) > 1 else block
            points += block.values.size - thinned.values.size
            bytes_freed += block.nbytes - thinned.nbytes
            kept.append(thinned)
        self.blocks = kept
        return points, bytes_freed


def unpack_rows(queue: Queue, rows: Sequence[bytes]) -> Rows:
    """Packed rows as arrays."""
    table = np.frombuffer(b"".join(rows), queue.row_type)
    return Rows(table["step"].astype(np.int64), table["time"].astype(np.float64), table["values"])


def to_number(value: Any) -> float | NDArray[Any] | None:
    """A logged value as a number, or an array of numbers, or None if it is neither.

    Tensors of any library are taken by their own ``item`` and ``tolist``, which wait for a device to finish.
    """
    if isinstance(value, str | bytes | bytearray) or value is None:
        return None
    try:
        if getattr(value, "size", None) == 1 or getattr(value, "ndim", None) == 0:
            value = value.item()
        elif hasattr(value, "tolist") and not isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, complex):
            return None
        if isinstance(value, int | float) or (hasattr(value, "__float__") and not hasattr(value, "__len__")):
            return float(value)
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = _numbers(value)
        return array.item() if array.size == 1 and array.dtype.kind != "c" else array
    except Exception:
        return None


def _numbers(value: Any) -> NDArray[np.float64]:
    """An array from nested sequences; strings inside are refused, where NumPy would parse them."""
    array = np.asarray(value)
    if array.dtype.kind not in "O":
        raise TypeError("not numbers")
    if any(isinstance(item, str | bytes | complex) or item is None for item in array.reshape(-1)):
        raise TypeError("not numbers")
    return array.astype(np.float64)


def to_microseconds(times: NDArray[np.float64], now: float) -> Ints:
    """Unix seconds as whole microseconds; what is no usable time becomes the present one."""
    good = np.abs(times) < 1e11  # False for NaN as well
    return np.rint(np.where(good, times, now) * 1e6).astype(np.int64)
