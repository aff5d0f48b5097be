"""JSON for what users hand over: configurations and notes may hold anything, and must never make a run fail."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_DEPTH = 32
_LONGEST = 10_000
_MOST = 1_000_000


def to_plain(value: Any) -> Any:
    """A value as numbers, strings, lists and dictionaries: what is neither becomes its text.

    Arrays become lists (of at most 10,000 items, longer ones a description). What is nested deeper than 32, or comes
    after the first million characters, becomes "...", so that a structure that holds itself has an end, and
    a note always fits into the file.
    """
    try:
        return _Plain().take(value, 0)
    except Exception:
        return _text(value)


class _Plain:
    """One conversion, and how many characters it may still take."""

    def __init__(self) -> None:
        self._left = _MOST

    def take(self, value: Any, depth: int) -> Any:
        self._left -= 10
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 1 << 63 else str(value)[:100]
        if isinstance(value, float):
            return float(value)
        if depth >= _DEPTH or self._left < 0:
            return "..."
        if isinstance(value, str):
            return self._cut(value)
        if isinstance(value, Mapping):
            items = list(value.items())[:_LONGEST]
            return {self._cut(str(k)): self.take(v, depth + 1) for k, v in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.take(v, depth + 1) for v in list(value)[:_LONGEST]]
        if isinstance(value, np.generic):
            return self.take(value.item(), depth + 1)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size <= _LONGEST:
            self._left -= 10 * value.size
            return value.tolist()
        if isinstance(value, np.ndarray):
            return f"array of shape {value.shape} and type {value.dtype}"
        return self._cut(_text(value))

    def _cut(self, text: str) -> str:
        text = text if len(text) <= self._left else text[: max(0, self._left)] + "..."
        self._left -= len(text)
        return text


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
