"""TFRecord files in blocks: where the whole records lie, and what is damaged, in words with the place.

A record is its length (8 bytes), the masked CRC-32C of these, the data, and the masked CRC-32C of the data. After a
damaged length the next header whose checksum is right is looked for, byte by byte; damaged data costs its record only.
The end of a file that is being written, or whose writer was killed, is no damage.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import Ints
from thalweg.record.importing import progress
from thalweg.record.importing.checksums import Bytes, Words, byte_table, crc32c_pieces, crc32c_rows

HEADER = 12
_FRAME = 16  # bytes a record has besides its data
_BLOCK = 4 << 20
_LARGEST = 64 << 20  # bytes of data that are read; larger records (videos, meshes) are passed over
_NAMED = 3  # damaged places of a file that are named; more are counted
_KEPT = 1000
_LARGE = -1
_MASK = 0xA282EAD8
_head = struct.Struct("<QI")


def is_header(head: bytes) -> bool:
    """Whether bytes begin with the length of a record and its right checksum."""
    return len(head) >= HEADER and Headers().right(*_head.unpack_from(head))


@dataclass
class Place:
    """Something damaged: from an offset in the file up to where the next record begins; None if none does."""

    start: int
    what: str
    stop: int | None = None
    cut: bool = False  # the end of a file that lacks the rest of a record, if no other record follows


class Records:
    """One pass over a file.

    Attributes:
        places: what was damaged, the first thousand.
        damaged: how many places were.
        cut: whether the file ends within a record.
        large: records passed over since they are larger than 64 MB.
    """

    def __init__(self, path: Path) -> None:
        self.places: list[Place] = []
        self.damaged = 0
        self.cut = False
        self.large = 0
        self._path = path
        self._headers = Headers()
        self._base = self._size = 0
        self._open: Place | None = None  # no record was found yet behind it

    def blocks(self) -> Iterator[tuple[Bytes, Ints, Ints]]:
        """Bytes of a block, and starts [n] and lengths [n] of the data in it, whose checksums are yet to be verified.

        Raises:
            OSError: the file can't be read.
        """
        with self._path.open("rb") as file:
            self._size = file.seek(0, 2)
            file.seek(0)
            yield from self._blocks(file)
        if self._open is not None:
            self.cut = self._open.cut
            if not self.cut:
                self._keep(self._open)

    def verify(self, data: Bytes, starts: Ints, lengths: Ints) -> NDArray[np.bool_]:
        """[n] which records of the present block have the checksum that belongs to their data."""
        windows = np.lib.stride_tricks.sliding_window_view(data, 4)
        return self._compare(windows[starts + lengths], crc32c_pieces(data, starts, lengths), starts)

    def verify_rows(self, rows: Bytes, starts: Ints) -> NDArray[np.bool_]:
        """[n] the same for rows [n, length + 4]: data of one length, each followed by its stored checksum."""
        return self._compare(rows[:, -4:], crc32c_rows(rows[:, :-4]), starts)

    def in_words(self, name: str) -> list[str]:
        """What was damaged, as warnings; the first three places in full."""
        places = sorted(self.places, key=lambda place: place.start)
        out = []
        for place in places[:_NAMED]:
            until = "" if place.stop is None else f"; read on at byte {place.stop:,}"
            out.append(f"{name}: damaged at byte {place.start:,}: {place.what}{until}")
        if self.damaged > _NAMED:
            out.append(f"{name}: damaged at {self.damaged - _NAMED:,} more places")
        if self.cut:
            out.append(f"{name} ends within a record: it is still being written, or its writer was killed")
        if self.large:
            out.append(f"{name}: {self.large:,} records of more than 64 MB were passed over")
        return out

    def _compare(self, stored: Bytes, sums: Words, starts: Ints) -> NDArray[np.bool_]:
        right = np.ascontiguousarray(stored).view("<u4")[:, 0] == masked(sums)
        for start in starts[~right].tolist():
            at = self._base + start - HEADER
            self.places.append(Place(at, "the data of a record don't have its checksum; it is left out", -1))
            self.places[-1].stop = at + _FRAME
        return np.asarray(right)

    def _blocks(self, file: BinaryIO) -> Iterator[tuple[Bytes, Ints, Ints]]:
        buffer, wanted, last = b"", 0, False
        while not last or wanted == _LARGE:
            missing = self._size - self._base - len(buffer)
            more = file.read(min(max(_BLOCK, wanted - len(buffer)), missing))
            buffer += more
            progress.say(self._base + len(buffer), self._size)
            if missing and not more:  # it was cut short while it was read
                self._size = self._base + len(buffer)
            last = self._base + len(buffer) >= self._size
            starts, lengths, used, wanted = self._frame(buffer, last)
            if starts:
                yield np.frombuffer(buffer, np.uint8), np.array(starts), np.array(lengths)
            self._base += used
            buffer = buffer[used:]
            if wanted == _LARGE and not buffer:
                file.seek(self._base)

    def _frame(self, buffer: bytes, last: bool) -> tuple[list[int], list[int], int, int]:
        """Starts and lengths of the data in a buffer, bytes used up, and how many bytes the next record needs."""
        starts: list[int] = []
        lengths: list[int] = []
        position, end, left = 0, len(buffer), self._size - self._base
        known, unpack, headers = self._headers.known, _head.unpack_from, self._headers
        headers.forget()
        while position + HEADER <= end:
            length, check = unpack(buffer, position)
            if known.get(length) != check and not headers.right(length, check):
                again = self._open is not None
                self._lose(position, "no record begins here, or its length is damaged")
                # the record before may have lost bytes: the next header is looked for from its beginning on
                position = headers.next_in(buffer, starts[-1] if starts and not again else position + 1)
                continue
            after = position + length + _FRAME
            if after > left:
                self._lose(position, "a record reaches beyond the end of the file", cut=True)
                position = headers.next_in(buffer, position + 1)
                continue
            if after > end and length <= _LARGEST:
                return starts, lengths, position, after - position
            if self._open is not None:
                self._resume(position)
            if length > _LARGEST:
                self.large += 1
                return starts, lengths, after, _LARGE
            starts.append(position + HEADER)
            lengths.append(length)
            position = after
        if last and position < end:
            self._lose(position, "the rest is no record", cut=True)
        return starts, lengths, position, 0

    def _lose(self, position: int, what: str, cut: bool = False) -> None:
        if self._open is None:
            self._open = Place(self._base + position, what, cut=cut)

    def _resume(self, position: int) -> None:
        place, self._open = self._open, None
        assert place is not None
        place.stop = self._base + position
        place.start = min(place.start, place.stop)
        self._keep(place)

    def _keep(self, place: Place) -> None:
        self.damaged += 1
        if len(self.places) < _KEPT:
            self.places.append(place)


class Headers:
    """What lengths have which checksum.

    Attributes:
        known: length -> its masked checksum, for lengths met before.
    """

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self._found: list[int] | None = None

    def right(self, length: int, check: int) -> bool:
        """Whether this is the checksum of this length."""
        if length in self.known:
            return self.known[length] == check
        right = _masked_crc(length.to_bytes(8, "little")) == check
        if right:
            self.known[length] = check
        return right

    def forget(self) -> None:
        """Another buffer is looked at from now on."""
        self._found = None

    def next_in(self, buffer: bytes, low: int) -> int:
        """Where the first right header from `low` on is; else the first place that the buffer holds too little of."""
        if self._found is None:
            self._found = _headers_of(np.frombuffer(buffer, np.uint8))
        index = bisect_left(self._found, low)
        return self._found[index] if index < len(self._found) else max(low, len(buffer) - HEADER + 1)


def _headers_of(data: Bytes) -> list[int]:
    """All places with a length below 4 GiB and its right checksum."""
    last = len(data) - HEADER + 1
    if last <= 0:
        return []
    zero = data == 0
    candidates = np.flatnonzero(np.logical_and.reduce([zero[place : last + place] for place in (4, 5, 6, 7)]))
    windows = np.lib.stride_tricks.sliding_window_view(data, HEADER)
    found: list[int] = []
    for low in range(0, len(candidates), 1 << 17):
        part = candidates[low : low + (1 << 17)]
        heads = windows[part]
        right = masked(crc32c_rows(heads[:, :8])) == np.ascontiguousarray(heads[:, 8:]).view("<u4")[:, 0]
        found += part[right].tolist()
    return found


def _masked_crc(data: bytes) -> int:
    table, crc = byte_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def masked(sums: Words) -> Words:
    """Checksums as TFRecord files store them."""
    turned: Words = (sums >> np.uint32(15)) | (sums << np.uint32(17))
    return turned + np.uint32(_MASK)
