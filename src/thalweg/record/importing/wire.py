"""Protocol buffers read by hand: where each field of a message lies, with every bound checked."""

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Field = tuple[int, int, int, int]  # number, wire type, start, end of what it holds


class WireError(ValueError):
    """The bytes are no message."""


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Each field of the message in ``data[start:end]``, in the order it was written.

    Raises:
        WireError: a field reaches beyond the message, or has a wire type that none of the known formats writes.
    """
    end = len(data) if end is None else end
    while start < end:
        key, start = varint(data, start, end)
        kind = key & 7
        if kind == VARINT:
            stop = varint(data, start, end)[1]
        elif kind == BYTES:
            size, start = varint(data, start, end)
            stop = start + size
        elif kind == FIXED64:
            stop = start + 8
        elif kind == FIXED32:
            stop = start + 4
        else:
            raise WireError(f"wire type {kind}")
        if stop > end or not key >> 3:
            raise WireError("a field reaches beyond its message")
        yield key >> 3, kind, start, stop
        start = stop


def varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits, and where it ends."""
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, start
        shift += 7
    raise WireError("an integer without an end")


def signed(data: bytes, start: int, end: int) -> int:
    """An int32, int64 or enumeration."""
    value = varint(data, start, end)[0]
    return value - (1 << 64) if value >> 63 else value


def double(data: bytes, start: int) -> float:
    """A double."""
    return float(struct.unpack_from("<d", data, start)[0])


def text(data: bytes, start: int, end: int) -> str:
    """A string; bytes that are no UTF-8 are shown as escapes."""
    return data[start:end].decode("utf-8", "backslashreplace")
