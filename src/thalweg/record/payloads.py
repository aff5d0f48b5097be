"""What the frames of a log hold: declarations, layouts and blocks of rows.

A *layout* is a list of signals of one clock, type and shape that are written together; a *block* is some rows of a
layout: steps, wall times in microseconds, and the values column after column. Everything else is JSON.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import (
    MAX_BYTES,
    MAX_ROWS,
    Buffer,
    DecodeError,
    Ints,
    get_ints,
    get_varint,
    inflate,
    put_ints,
    put_varint,
    size_of,
)
from thalweg.record.jsontext import dumps, loads
from thalweg.record.signals import SignalSpec

DTYPES = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "uint16",
    "uint32",
    "bool",
)
"""The types a signal may be stored as."""
MAX_NAME = 1024
MAX_ITEMS = 1 << 22
"""Items in one value of a signal."""
_MAX_JSON = 1 << 24
_FIELDS = {f.name: f.default for f in fields(SignalSpec)}
_PLAIN, _DEFLATED = 0, 1


@dataclass(frozen=True)
class LayoutSpec:
    """Signals written together: their ids in this file, in the order of a block's columns."""

    id: int
    clock: str
    dtype: str
    shape: tuple[int, ...]
    signals: tuple[int, ...]

    @property
    def row_items(self) -> int:
        """Numbers in one row."""
        return len(self.signals) * size_of(self.shape)


@dataclass(frozen=True)
class BlockHead:
    """Where the parts of a block lie within its payload."""

    layout: int
    rows: int
    times_at: int
    values_at: int


def spec_to_dict(spec: SignalSpec) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    return {k: getattr(spec, k) for k, default in _FIELDS.items() if getattr(spec, k) != default}


def spec_from_dict(data: Mapping[str, Any]) -> SignalSpec:
    """A declaration read from a file: unknown fields are ignored, impossible ones raise `DecodeError`."""
    known = {k: v for k, v in data.items() if k in _FIELDS}
    name, shape = known.get("name"), known.get("shape", ())
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise DecodeError("a signal without a usable name")
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n > 0 for n in shape):
        raise DecodeError(f"signal {name!r} has an impossible shape")
    if size_of(shape) > MAX_ITEMS or len(shape) > 16:
        raise DecodeError(f"signal {name!r} has a shape of more than {MAX_ITEMS} numbers")
    if known.get("dtype", "float32") not in DTYPES:
        raise DecodeError(
            f"signal {name!r} is stored as {known.get('dtype')!r}, which this version can't read"
        )
    for key, default in _FIELDS.items():
        if key not in ("name", "shape") and not isinstance(known.get(key, default), type(default)):
            raise DecodeError(f"signal {name!r}: its {key} is not of the right type")
        if len(str(known.get(key, default))) > MAX_NAME:
            raise DecodeError(f"signal {name!r}: its {key} is longer than {MAX_NAME} characters")
    return SignalSpec(**{**known, "shape": tuple(shape)})


def put_json(value: Any) -> bytes:
    """JSON, compressed where that pays: a byte that says so, then the text."""
    text = dumps(value).encode()
    if len(text) > 200:
        return bytes([_DEFLATED]) + put_varint(len(text)) + zlib.compress(text, 6)
    return bytes([_PLAIN]) + text


def get_json(payload: Buffer) -> Any:
    """The inverse of `put_json`."""
    if len(payload) == 0 or payload[0] not in (_PLAIN, _DEFLATED):
        raise DecodeError("a record of unknown coding")
    text = bytes(payload[1:])
    if payload[0] == _DEFLATED:
        size, at = get_varint(payload, 1)
        if size > _MAX_JSON:
            raise DecodeError(f"a note of {size} bytes (at most {_MAX_JSON} are read)")
        text = inflate(payload[at:], size)
    try:
        return loads(text)
    except ValueError as error:
        raise DecodeError(f"unreadable JSON ({error})") from None


def get_mapping(payload: Buffer) -> dict[str, Any]:
    """JSON that must be an object."""
    value = get_json(payload)
    if not isinstance(value, dict):
        raise DecodeError("a record that should be an object is not")
    return value


def put_layout(layout: LayoutSpec) -> bytes:
    """A layout's frame."""
    ids = put_ints(np.array(layout.signals, np.int64), deflate=True)
    head = {"id": layout.id, "clock": layout.clock, "n": len(layout.signals)}
    if layout.dtype != "float32":
        head["dtype"] = layout.dtype
    if layout.shape:
        head["shape"] = list(layout.shape)
    text = dumps(head).encode()
    return put_varint(len(text)) + text + ids


def get_layout(payload: Buffer) -> LayoutSpec:
    """The inverse of `put_layout`."""
    length, at = get_varint(payload, 0)
    try:
        head = loads(bytes(payload[at : at + length]))
    except ValueError as error:
        raise DecodeError(f"unreadable layout ({error})") from None
    if not isinstance(head, dict) or type(head.get("id")) is not int or type(head.get("n")) is not int:
        raise DecodeError("an incomplete layout")
    if not isinstance(head.get("clock"), str) or not 0 < head["n"] <= MAX_ROWS:
        raise DecodeError("an impossible layout")
    ids, _ = get_ints(payload, at + length, head["n"])
    probe = spec_from_dict(
        {"name": "-", "dtype": head.get("dtype", "float32"), "shape": head.get("shape", [])}
    )
    return LayoutSpec(head["id"], head["clock"], probe.dtype, probe.shape, tuple(ids.tolist()))


def put_block(layout: int, steps: Ints, times: Ints, values: NDArray[Any]) -> bytes:
    """Rows of a layout; `values` is [columns, rows, *shape] in the type they are stored as."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    head = put_varint(layout) + put_varint(len(steps)) + put_ints(steps) + put_ints(times)
    return head + little.tobytes()


def get_block_head(payload: Buffer, size: int | None = None) -> tuple[BlockHead, Ints]:
    """A block's layout, row count and steps; `size` is that of the block where only its beginning is given."""
    layout, at = get_varint(payload, 0)
    rows, at = get_varint(payload, at)
    if rows > (
        size or len(payload)
    ):  # every row has at least a byte of values: checked before anything is allocated
        raise DecodeError("a block with fewer bytes than rows")
    steps, times_at = get_ints(payload, at, rows)
    _, values_at = get_ints(payload, times_at, rows)
    return BlockHead(layout, rows, times_at, values_at), steps


def get_block_times(payload: Buffer, head: BlockHead) -> Ints:
    """A block's wall times in microseconds since 1970."""
    return get_ints(payload, head.times_at, head.rows)[0]


def get_block_values(payload: Buffer, head: BlockHead, layout: LayoutSpec) -> NDArray[Any]:
    """A block's values [columns, rows, *shape], as a view into the payload."""
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    column_items = head.rows * size_of(layout.shape)
    nbytes = column_items * len(layout.signals) * dtype.itemsize
    if nbytes > 2 * MAX_BYTES or nbytes != len(payload) - head.values_at:
        raise DecodeError("a block's size does not agree with its layout")
    flat = np.frombuffer(payload, dtype, offset=head.values_at)
    return flat.reshape(len(layout.signals), head.rows, *layout.shape)


def column_place(head: BlockHead, size: int, layout: LayoutSpec, column: int) -> tuple[int, int]:
    """Where in a block of that size a column lies: offset and bytes."""
    nbytes = head.rows * size_of(layout.shape) * np.dtype(layout.dtype).itemsize
    if head.values_at + nbytes * len(layout.signals) != size:
        raise DecodeError("a block's size does not agree with its layout")
    return head.values_at + column * nbytes, nbytes


def put_declarations(specs: Sequence[tuple[int, SignalSpec]]) -> bytes:
    """Declarations of signals: their ids in this file and their fields."""
    return put_json([{"id": number, **spec_to_dict(spec)} for number, spec in specs])


def get_declarations(payload: Buffer) -> list[tuple[int, SignalSpec]]:
    """The inverse of `put_declarations`."""
    rows = get_json(payload)
    if not isinstance(rows, list) or not all(isinstance(r, dict) and type(r.get("id")) is int for r in rows):
        raise DecodeError("an impossible declaration")
    return [(cast(int, row["id"]), spec_from_dict(row)) for row in rows]
