"""The cache folder: fetched archives, and decoded arrays, so that the second load takes a fraction of a second.

Every file is written beside its name and moved over it, so that a file under its name is whole. What is read back
is checked all the same; a damaged file counts as absent and is made again.
"""

import hashlib
import os
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.errors import DataError, ThalwegWarning
from thalweg.data.sources import DataSet

Arrays = dict[str, np.ndarray]

# What NumPy and zipfile raise for a file that is cut off, garbled or not an archive.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def cache_dir() -> Path:
    """Return the folder for data: ``$THALWEG_DATA`` if set, else ``thalweg`` in the platform's cache folder.

    The folder need not exist yet.
    """
    if chosen := os.environ.get("THALWEG_DATA"):
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "thalweg" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "thalweg"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "thalweg"


def cached_arrays(dataset: DataSet, decode: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of a data set: from the cache, else decoded, checked and put there.

    A cache that can't be written costs time, not data: it becomes a `ThalwegWarning`.

    Raises:
        DataError: what was decoded isn't the content that `dataset.sha256` names.
    """
    path = cache_dir() / f"{dataset.name}-{dataset.sha256[:12]}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except _DAMAGED:
        pass
    arrays = decode()
    if (found := content_sha256(arrays)) != dataset.sha256:
        raise DataError(
            f"{dataset.name} from {dataset.source} is not what was expected: its content has the sha256 {found}, "
            f"not {dataset.sha256}. Install or fetch exactly that version again."
        )
    named: dict[str, Any] = dict(arrays)  # savez's own keywords would be typed as arrays otherwise
    try:
        with replacing(path) as new, new.open("wb") as file:
            np.savez(file, **named)
    except OSError as error:
        warnings.warn(
            f"{dataset.name} can't be cached in {path.parent} ({error}); set THALWEG_DATA to a folder that can be "
            f"written",
            ThalwegWarning,
            stacklevel=3,
        )
    return arrays


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a fresh path in the same folder; if the block ends well, what is there takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        yield new
        new.replace(path)


def content_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 over the arrays by name: each name, type, shape and its bytes in C order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
