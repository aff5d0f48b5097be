"""Reading the file formats that data sets come in, and files inside installed packages without importing them."""

import math
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from thalweg.core.errors import DataError, MissingExtra
from thalweg.data.containers import Images


def package_folder(package: str, requirement: str, wanted_by: str) -> Path:
    """Return the folder of an installed package, which is not imported (that can take seconds).

    Args:
        package: its import name.
        requirement: what to give to pip ("'thalweg[data]'").
        wanted_by: the data set's name, for the message.

    Raises:
        MissingExtra: it isn't installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            f"{wanted_by} comes inside a package that is not installed: pip install {requirement}"
        )
    return Path(spec.submodule_search_locations[0])


def idx(data: bytes) -> np.ndarray:
    """Read the IDX format of MNIST: a magic number with the count of axes, the axes' lengths, then bytes.

    Raises:
        DataError: it isn't that, or not whole.
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError("not an IDX file of bytes")
    start = 4 + 4 * data[3]
    shape = tuple(int(length) for length in np.frombuffer(data[4:start], ">u4"))
    if len(shape) != data[3] or len(data) != start + math.prod(shape):
        raise DataError(f"an IDX file of shape {shape} can't have {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the bytes of one file of an open tar archive.

    Raises:
        DataError: it isn't there.
    """
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise DataError(f"the archive has no file {name}")
    return file.read()


def images(arrays: dict[str, np.ndarray], classes: tuple[str, ...]) -> Images:
    """Make `Images` of stored uint8 arrays: labels become int64, grey images get their one channel."""
    with_channels = {
        name: array if array.ndim == 4 else array[..., None]
        for name, array in arrays.items()
        if name.startswith("x_")
    }
    labels = {name: array.astype(np.int64) for name, array in arrays.items() if name.startswith("y_")}
    return Images(**with_channels, **labels, classes=classes)
