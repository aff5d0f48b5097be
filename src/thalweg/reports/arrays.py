"""The numbers of a page: typed arrays in one compressed block, which the page's script refers to by place."""

import base64
import gzip
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reference = tuple[int, int, str]  # first byte, number of elements, "f4" or "f8"


class ArrayStore:
    """Collects arrays; each is aligned to eight bytes, in little-endian order, and stored once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._known: dict[tuple[str, bytes], Reference] = {}

    def add(self, values: NDArray[Any]) -> Reference:
        """Keep ``values`` as float32, or as float64 where whole numbers would lose digits (steps past 2**24)."""
        array = np.ascontiguousarray(values).ravel()
        whole = array.dtype.kind in "iu" and array.size > 0 and np.abs(array).max() > 1 << 24
        kind = "f8" if whole else "f4"
        with np.errstate(over="ignore"):
            data = array.astype(f"<{kind}").tobytes()
        key = (kind, data)
        if key not in self._known:
            self._known[key] = (self._size, array.size, kind)
            padding = bytes(-len(data) % 8)
            self._parts += [data, padding]
            self._size += len(data) + len(padding)
        return self._known[key]

    def packed(self) -> str:
        """Return everything kept so far: gzip, then base64."""
        return pack(b"".join(self._parts))


def pack(data: bytes) -> str:
    """Compress ``data`` reproducibly (no time stamp) and write it in base64."""
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")
