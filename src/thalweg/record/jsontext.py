"""JSON for what users hand over: configurations and notes may hold anything, and must never make a run fail."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_DEPTH = 32
_LONGEST = 10_000
_MOST = 100_000


def to_plain(value: Any) -> Any:
    """A value as numbers, strings, lists and dictionaries: what is neither becomes its text.

    Arrays become lists (of at most 10,000 items, longer ones a description). What is nested deeper than 32 or comes
    after the first 100,000 items becomes "...", so that a structure that holds itself has an end.
    """
    try:
        return _plain(value, 0, iter(range(_MOST)))
    except Exception:
        return _text(value)


def _plain(value: Any, depth: int, left: Iterator[int]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else str(value)[:100]
    if isinstance(value, float):
        return float(value)
    if depth >= _DEPTH or next(left, None) is None:
        return "..."
    if isinstance(value, Mapping):
        return {str(k): _plain(v, depth + 1, left) for k, v in list(value.items())[:_LONGEST]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, depth + 1, left) for v in list(value)[:_LONGEST]]
    if isinstance(value, np.generic):
        return _plain(value.item(), depth + 1, left)
    if isinstance(value, np.ndarray):
        kept = value.dtype.kind in "biuf" and value.size <= _LONGEST
        return value.tolist() if kept else f"array of shape {value.shape} and type {value.dtype}"
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)[:_LONGEST]
    except Exception:
        return f"<{type(value).__name__}>"


def dumps(value: Any) -> str:
    """JSON of anything (see `to_plain`); NaN and infinities as Python's json writes and reads them."""
    try:
        return json.dumps(to_plain(value), separators=(",", ":"))
    except Exception:
        return json.dumps(_text(value))


def loads(text: str | bytes) -> Any:
    """The inverse; raises ValueError for anything that is not JSON, however it is broken."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def loads_mapping(text: str | bytes) -> dict[str, Any]:
    """JSON that must be an object."""
    value = loads(text)
    if not isinstance(value, dict):
        raise ValueError("JSON is not an object")
    return value
