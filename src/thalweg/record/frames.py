"""The frames of a run's log: how records are marked off in an append-only file, and found again after damage.

A log is a header of 16 bytes (magic, format version) and frames: marker (4 bytes), type (1), length of the payload
(4), CRC-32 of type, length and payload (4), payload. A reader checks every CRC; behind a torn or
damaged frame it goes on at the next marker whose frame is whole.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAGIC = b"\x89Thalweg\r\n\x1a\n"
FORMAT = 1
"""Version of the log format; see `migrations` for what older ones need."""
MARKER = b"\xf1TW\x0b"
HEADER_SIZE = 16
FRAME_HEAD = 13
MAX_PAYLOAD = 1 << 27

START, META, DECLARE, LAYOUT, BLOCK, EVENT, SUMMARY, END = b"GMDLBESZ"
_HEAD = struct.Struct("<4sBII")
_CHECKED = struct.Struct("<BI")
_FILE_HEAD = struct.Struct("<12sHH")
_WINDOW = 1 << 20

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> the bytes there, fewer at the end of the file."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame: its type, where it begins in the file, and its payload."""

    kind: int
    offset: int
    payload: bytes | memoryview

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + FRAME_HEAD + len(self.payload)


def file_header(version: int = FORMAT) -> bytes:
    """The first 16 bytes of a log."""
    return _FILE_HEAD.pack(MAGIC, version, 0)


def format_of(head: bytes) -> int | None:
    """The format version a log's first bytes tell, or None where they are not a log's."""
    if len(head) < HEADER_SIZE or not head.startswith(MAGIC):
        return None
    return int(_FILE_HEAD.unpack_from(head)[1])


def make_frame(kind: int, payload: bytes) -> bytes:
    """A payload with its marker, type, length and checksum."""
    check = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, len(payload))))
    return _HEAD.pack(MARKER, kind, len(payload), check) + payload


@dataclass(slots=True)
class Scan:
    """What a pass over a log found.

    Attributes:
        position: where the next pass goes on: behind the last whole frame.
        damaged: stretches of bytes that were skipped with whole frames behind them.
        gave_up: the rest was left out, since the file is so damaged that reading it would take too long.
    """

    position: int = HEADER_SIZE
    damaged: int = 0
    gave_up: bool = False


def scan(read_at: ReadAt, size: int, state: Scan) -> Iterator[Frame]:
    """Yield the whole frames between `state.position` and `size`, in order, updating `state` as it goes.

    A frame whose end lies beyond `size` may still be being written: if nothing whole follows, the state stays before
    it. The bytes put through checksums are bounded by a multiple of the size, so that a hostile file can't
    cost quadratic time.
    """
    allowance = 8 * (size - state.position) + (1 << 26)
    window, base = b"", 0
    at, skipped = state.position, False
    while at + FRAME_HEAD <= size:
        if at + FRAME_HEAD > base + len(window) or at < base:
            window, base = read_at(at, min(_WINDOW, size - at)), at
            if len(window) < FRAME_HEAD:
                return
        marker, kind, length, check = _HEAD.unpack_from(window, at - base)
        end = at + FRAME_HEAD + length
        whole = marker == MARKER and length <= MAX_PAYLOAD and end <= size
        if whole:
            allowance -= length
            if allowance < 0:
                state.gave_up = True
                return
            if end > base + len(window):
                window, base = read_at(at, max(min(_WINDOW, size - at), end - at)), at
            body = memoryview(window)[at - base + FRAME_HEAD : end - base]
            whole = len(body) == length and check == zlib.crc32(body, zlib.crc32(_CHECKED.pack(kind, length)))
        if whole:
            state.damaged += skipped
            skipped = False
            state.position = at = end
            yield Frame(kind, end - FRAME_HEAD - length, body)
            continue
        skipped = True
        found = window.find(MARKER, at - base + 1)
        # a marker may straddle the window's end: its last three bytes are looked at again
        at = base + found if found >= 0 else max(at + 1, base + len(window) - len(MARKER) + 1)


def last_of(read_at: ReadAt, size: int, kinds: bytes, reach: int) -> Frame | None:
    """The last whole frame of one of these types, searched backwards over at most `reach` bytes."""
    span = 1 << 16
    allowance = 8 * reach
    while True:
        span = min(span, size - HEADER_SIZE, reach)
        if span < FRAME_HEAD:
            return None
        base = size - span
        window = read_at(base, span)
        at = len(window)
        while (at := window.rfind(MARKER, 0, at)) >= 0:
            kind, length = window[at + 4 : at + 5], window[at + 5 : at + 9]
            if kind not in kinds or len(length) < 4:
                continue
            allowance -= min(span, int.from_bytes(length, "little"))
            if allowance < 0:
                return None
            frame = _frame_in(window, at, base)
            if frame is not None:
                return frame
        if span >= min(size - HEADER_SIZE, reach):
            return None
        span *= 8


def _frame_in(window: bytes, at: int, base: int) -> Frame | None:
    if at + FRAME_HEAD > len(window):
        return None
    _, kind, length, check = _HEAD.unpack_from(window, at)
    body = memoryview(window)[at + FRAME_HEAD : at + FRAME_HEAD + length]
    if len(body) != length or check != zlib.crc32(body, zlib.crc32(_CHECKED.pack(kind, length))):
        return None
    return Frame(kind, base + at, body)
