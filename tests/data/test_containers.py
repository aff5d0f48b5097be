"""Images, Text and Corpus: balanced seeded subsets, codes and splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core.errors import UsageError
from thalweg.data.containers import Corpus, Images, Text


def made(n: int = 60, classes: int = 3) -> Images:
    y = np.arange(n) % classes
    x = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    return Images(x, y, x[:5], y[:5], tuple("abcdefgh"[:classes]))


@given(n=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_a_subset_is_balanced_and_keeps_images_with_their_labels(n, seed):
    images = made()
    part = images.subset(n, seed)
    counts = np.bincount(part.y_train, minlength=3)
    assert counts.sum() == n and counts.max() - counts.min() <= 1
    places = part.x_train.ravel().astype(int)
    assert len(set(places)) == n
    assert (images.y_train[places] == part.y_train).all()
    assert part.x_test is images.x_test


@given(n=st.integers(1, 59), more=st.integers(0, 59), seed=st.integers(0, 1000))
def test_a_larger_subset_of_the_same_seed_contains_a_smaller_one(n, more, seed):
    images = made()
    small, large = images.subset(n, seed), images.subset(min(60, n + more), seed)
    assert set(small.x_train.ravel()) <= set(large.x_train.ravel())


def test_a_seed_gives_the_same_subset_and_another_seed_another():
    images = made()
    first = images.subset(20, 5).x_train.ravel()
    assert (first == images.subset(20, 5).x_train.ravel()).all()
    assert set(first) != set(images.subset(20, 6).x_train.ravel())
    assert first.tolist()[:6] == [47, 51, 19, 6, 13, 45]  # frozen: numbers from old subsets stay comparable


def test_a_subset_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        made().subset(0)
    with pytest.raises(UsageError, match="needs 21 examples of class"):
        made().subset(61)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_tokens_and_back(text):
    made_text = Text.of(text)
    tokens = made_text.tokens()
    assert made_text.decode(tokens) == text
    assert [made_text.symbols[code] for code in tokens] == list(text)


@pytest.mark.parametrize(("symbols", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_the_type_of_tokens_is_the_smallest(symbols, dtype):
    text = Text.of("".join(map(chr, range(100, 100 + symbols))))
    assert text.tokens().dtype == dtype
    assert (text.tokens() == np.arange(symbols)).all()


@pytest.mark.parametrize("stranger", ["z", "é", "A"])
def test_a_character_outside_the_alphabet_is_refused(stranger):
    with pytest.raises(UsageError, match=f"'{stranger}' is not among"):
        Text("b" + stranger, "bc").tokens()


def test_a_split_is_by_position_with_one_alphabet():
    text = Text.of("abcdefghij")
    train, validation = text.split(0.2)
    assert (train.text, validation.text) == ("abcdefgh", "ij")
    assert train.symbols == validation.symbols == text.symbols
    assert validation.tokens().tolist() == [8, 9]
    for share in (0, 1, -0.5):
        with pytest.raises(UsageError, match="between 0 and 1"):
            text.split(share)


@given(n=st.integers(1, 26), seed=st.integers(0, 100))
def test_a_piece_of_text(n, seed):
    text = Text.of("abcdefghijklmnopqrstuvwxyz")
    piece = text.subset(n, seed)
    assert len(piece) == n and piece.text in text.text
    assert piece.text == text.subset(n, seed).text and piece.symbols == text.symbols


@pytest.mark.parametrize("n", [0, 27])
def test_a_piece_that_cannot_be_is_refused(n):
    with pytest.raises(UsageError, match=f"piece of {n}"):
        Text.of("abcdefghijklmnopqrstuvwxyz").subset(n)


def test_a_corpus():
    corpus = Corpus(("n1", "f1", "n2"), ("news", "fiction", "news"), ("aa b", "c d", "e"))
    assert len(corpus) == 3 and next(iter(corpus)) == ("n1", "news", "aa b")
    assert corpus.joined().text == "aa b\n\nc d\n\ne"
    assert corpus.joined("news").text == "aa b\n\ne"
    assert corpus.joined("news").symbols == corpus.joined().symbols == "\n abcde"
    assert corpus.joined("fiction").tokens().tolist() == [4, 1, 5]
    with pytest.raises(UsageError, match="there are: fiction, news"):
        corpus.joined("poetry")
