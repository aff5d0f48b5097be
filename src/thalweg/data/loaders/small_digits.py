"""The 1,797 digits of 8 x 8 pixels that come with scikit-learn."""

import gzip

import numpy as np

from thalweg.data.cache import Arrays, cached_arrays
from thalweg.data.containers import Images
from thalweg.data.decoding import images, package_folder
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="digits_8x8",
    title="Handwritten digits of 8 x 8 pixels",
    origin="pip",
    package="scikit-learn",
    version="1.9.1",
    licence="BSD-3-Clause (package)",
    shape="1,437 + 360 grey images of 8 x 8, values 0 to 16, 10 classes",
    size=57_523,
    sha256="90be0fd9c31cebbf2e7b6765bf4ef802f0941cf9fcbab908a0091733f5fd14a3",
)
_TRAIN = 1437  # four fifths; the file's order stays, since digits of one writer are next to each other


def digits_8x8() -> Images:
    """Load the 1,797 small digits, values 0 to 16: the first four fifths to train on, the rest to test on.

    Raises:
        MissingExtra: scikit-learn isn't installed.
        DataError: the installed version holds other data.
    """
    return images(cached_arrays(DATASET, _decode), tuple("0123456789"))


def _decode() -> Arrays:
    path = package_folder("sklearn", "scikit-learn", DATASET.name) / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(gzip.decompress(path.read_bytes()).decode().splitlines(), dtype=np.uint8, delimiter=",")
    pixels, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    return {
        "x_train": pixels[:_TRAIN],
        "y_train": labels[:_TRAIN],
        "x_test": pixels[_TRAIN:],
        "y_test": labels[_TRAIN:],
    }
