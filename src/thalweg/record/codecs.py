"""How numbers become bytes: variable-length integers, sequences of integers, and arrays in byte planes.

Every decoder is given the number of values it must produce and refuses anything else, so that a damaged or
hostile file can't make it allocate more than was checked beforehand.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Buffer = bytes | memoryview

MAX_ROWS = 1 << 20
"""Rows in one block or chunk: writers keep to it, readers refuse more."""
MAX_BYTES = 1 << 26
"""Decoded bytes of one block or chunk: writers keep to it, readers refuse more."""

_WIDTHS = (1, 2, 4, 8)
_EMPTY, _PROGRESSION = 0, 1
_RESIDUALS = {1: 2, 2: 3, 4: 4, 8: 5}  # bytes a residual -> tag
_DEFLATED = 8  # added to a residual tag: byte-shuffled and compressed
_RAW_PLANE, _DEFLATED_PLANE = 0, 1
_SAMPLE = 4096  # bytes tried before a whole plane is compressed


class DecodeError(ValueError):
    """Bytes that are not what their codec says; readers turn it into a warning or a `RunFileError`."""


def put_varint(value: int) -> bytes:
    """A non-negative integer below 2**64 in 7-bit groups, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def get_varint(data: Buffer, at: int) -> tuple[int, int]:
    """The integer at an offset, and the offset behind it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise DecodeError("an integer runs over the end of its record")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def put_signed(value: int) -> bytes:
    """A 64-bit signed integer (taken modulo 2**64): zigzag, then `put_varint`."""
    value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
    return put_varint(value << 1 if value >= 0 else ((-value - 1) << 1) | 1)


def get_signed(data: Buffer, at: int) -> tuple[int, int]:
    """The inverse of `put_signed`."""
    value, at = get_varint(data, at)
    return (value >> 1) if not value & 1 else -(value >> 1) - 1, at


def inflate(data: Buffer, size: int) -> bytes:
    """Decompress to exactly `size` bytes; never produces more than one byte beyond it."""
    decoder = zlib.decompressobj()
    try:
        out = decoder.decompress(data, size + 1)
    except zlib.error as error:
        raise DecodeError(f"damaged compressed bytes ({error})") from None
    if len(out) != size:
        raise DecodeError(f"compressed bytes hold {len(out)} or more bytes instead of {size}")
    return out


def shuffle(data: NDArray[Any]) -> bytes:
    """The first byte of every item, then the second of every item, and so on."""
    flat = np.ascontiguousarray(data).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.dtype.itemsize).T.tobytes()


def put_ints(values: Ints, *, deflate: bool = False) -> bytes:
    """A sequence of 64-bit integers; the count is kept elsewhere.

    An arithmetic progression costs a few bytes whatever its length. Otherwise the differences are stored above
    the smallest one, in 1, 2, 4 or 8 bytes each, compressed where asked for and worth it. All arithmetic
    is modulo 2**64, so every sequence survives.
    """
    if len(values) == 0:
        return bytes([_EMPTY])
    deltas = np.diff(values)
    low = int(deltas.min()) if len(deltas) else 0
    start = put_signed(int(values[0])) + put_signed(low)
    if len(deltas) == 0 or int(deltas.max()) == low:
        return bytes([_PROGRESSION]) + start
    above = deltas.view(np.uint64) - np.uint64(low % (1 << 64))
    top = int(above.max())
    width = next(w for w in _WIDTHS if top < 1 << (8 * w))
    residuals = above.astype(f"<u{width}")
    tag = _RESIDUALS[width]
    if deflate and residuals.nbytes > 32:
        packed = zlib.compress(shuffle(residuals), 1)
        if len(packed) < 0.95 * residuals.nbytes:
            return bytes([tag | _DEFLATED]) + start + put_varint(len(packed)) + packed
    return bytes([tag]) + start + residuals.tobytes()


def get_ints(data: Buffer, at: int, count: int) -> tuple[Ints, int]:
    """`count` integers from an offset on, and the offset behind them."""
    if not 0 <= count <= MAX_ROWS:
        raise DecodeError(f"a record of {count} rows (at most {MAX_ROWS} are read)")
    if at >= len(data):
        raise DecodeError("a sequence of integers is missing")
    tag = data[at]
    at += 1
    if tag == _EMPTY:
        if count:
            raise DecodeError("an empty sequence where rows are expected")
        return np.empty(0, np.int64), at
    if count == 0:
        raise DecodeError("a sequence of integers where none is expected")
    first, at = get_signed(data, at)
    low, at = get_signed(data, at)
    values = np.empty(count, np.int64)
    values[0] = first
    values[1:] = low
    if tag != _PROGRESSION:
        residuals, at = _residuals(data, at, tag, count - 1)
        values.view(np.uint64)[1:] += residuals
    np.cumsum(values, out=values)
    return values, at


def _residuals(data: Buffer, at: int, tag: int, count: int) -> tuple[NDArray[Any], int]:
    width = next((w for w, t in _RESIDUALS.items() if t == tag & ~_DEFLATED), 0)
    if not width:
        raise DecodeError(f"unknown coding {tag} of a sequence of integers")
    size = width * count
    if not tag & _DEFLATED:
        if at + size > len(data):
            raise DecodeError("a sequence of integers is cut short")
        return np.frombuffer(data, f"<u{width}", count, at), at + size
    length, at = get_varint(data, at)
    if at + length > len(data):
        raise DecodeError("a compressed sequence of integers is cut short")
    planes = np.frombuffer(inflate(data[at : at + length], size), np.uint8).reshape(width, count)
    return np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1), at + length


def put_planes(values: NDArray[Any]) -> bytes:
    """An array in byte planes (first bytes of all items, second bytes, ...), each compressed only if that pays.

    Of float32 measurements the sign and exponent plane shrinks to about half and the mantissa planes hardly at
    all; leaving those as they are makes reading several times faster than one stream over everything.
    """
    size = values.dtype.itemsize
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    planes = little.reshape(-1).view(np.uint8).reshape(-1, size)
    return b"".join(_put_plane(planes[:, i].tobytes()) for i in range(size))


def _put_plane(plane: bytes) -> bytes:
    sample = plane[:_SAMPLE]
    if len(plane) < 16 or len(zlib.compress(sample, 1)) > 0.9 * len(sample):
        return bytes([_RAW_PLANE]) + plane
    packed = zlib.compress(plane, 6 if len(plane) <= 1 << 14 else 1)
    if len(packed) > 0.95 * len(plane):
        return bytes([_RAW_PLANE]) + plane
    return bytes([_DEFLATED_PLANE]) + put_varint(len(packed)) + packed


def get_planes(data: Buffer, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse of `put_planes`: a flat array of `count` items."""
    size = dtype.itemsize
    if not 0 <= count * size <= MAX_BYTES:
        raise DecodeError(f"a record of {count} values of {size} bytes (at most {MAX_BYTES} bytes are read)")
    planes: list[Buffer] = []
    at = 0
    view = memoryview(data)
    for _ in range(size):
        kind, length = (view[at], count) if at < len(view) else (-1, 0)
        at += 1
        if kind == _DEFLATED_PLANE:
            length, at = get_varint(view, at)
        if kind not in (_RAW_PLANE, _DEFLATED_PLANE) or at + length > len(view):
            raise DecodeError("a plane of values is cut short or of unknown coding")
        body = view[at : at + length]
        planes.append(inflate(body, count) if kind == _DEFLATED_PLANE else body)
        at += length
    out = np.empty((count, size), np.uint8)
    for i, plane in enumerate(planes):
        out[:, i] = np.frombuffer(plane, np.uint8)
    return out.view(dtype.newbyteorder("<")).reshape(-1).astype(dtype, copy=False)


def rows_that_fit(width: int, itemsize: int) -> int:
    """How many rows of `width` items a block may have within half of `MAX_BYTES`; at least one."""
    return max(1, min(MAX_ROWS, (MAX_BYTES // 2) // max(1, width * itemsize)))


def size_of(shape: Sequence[int]) -> int:
    """Items in one value of this shape."""
    return math.prod(shape)
