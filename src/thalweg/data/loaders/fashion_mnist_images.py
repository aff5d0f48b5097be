"""Fashion-MNIST, from a Debian package, installed or fetched."""

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from thalweg.core.errors import DataError
from thalweg.data.cache import Arrays, cached_arrays
from thalweg.data.containers import Images
from thalweg.data.decoding import idx, images, member
from thalweg.data.fetching import fetch
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="fashion_mnist",
    title="Fashion-MNIST: pictures of clothes",
    origin="debian",
    package="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    licence="MIT",
    shape="60,000 + 10,000 grey images of 28 x 28, 10 classes",
    size=30_900_652,
    sha256="37e5852d33933792bfddacf387e185c9c3d87fa20c45417517512181f092a44a",
    archive="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    archive_sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    installed="/usr/share/datasets/fashion-mnist",
)
_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def fashion_mnist() -> Images:
    """Load Fashion-MNIST: from the installed Debian package, else fetching it (31 MB) the first time.

    Raises:
        DataError: it can't be fetched or unpacked, or isn't the file that was expected.
    """
    return images(cached_arrays(DATASET, _decode), _CLASSES)


def _decode() -> Arrays:
    installed = Path(DATASET.installed)
    if installed.is_dir():
        return _four_files(lambda name: (installed / name).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(_unpacked(fetch(DATASET.name)))) as archive:
        return _four_files(lambda name: member(archive, f".{DATASET.installed}/{name}"))


def _four_files(read: Callable[[str], bytes]) -> Arrays:
    names = {
        "x_train": "train-images-idx3-ubyte.gz",
        "y_train": "train-labels-idx1-ubyte.gz",
        "x_test": "t10k-images-idx3-ubyte.gz",
        "y_test": "t10k-labels-idx1-ubyte.gz",
    }
    return {part: idx(gzip.decompress(read(name))) for part, name in names.items()}


def _unpacked(package: Path) -> bytes:
    """The tar archive inside a Debian package; nothing is installed or run."""
    if shutil.which("dpkg-deb") is None:
        raise DataError(
            f"{package.name} is unpacked with dpkg-deb, which is not installed here (package dpkg)"
        )
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=False)
    if done.returncode != 0:
        raise DataError(f"dpkg-deb can't unpack {package}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
