"""The glossary: every ambiguous word has at least two meanings, each with its own name, formula and source."""

from collections import Counter

import pytest

from thalweg.core.bibliography import paper
from thalweg.core.terms import glossary


def test_each_word_has_several_meanings_under_different_names():
    assert all(count > 1 for count in Counter(term.word for term in glossary()).values())
    names = [term.name for term in glossary()]
    assert len(names) == len(set(names))


def test_the_words_that_the_field_confuses_are_there():
    words = {term.word for term in glossary()}
    assert words >= {
        "dormant",
        "effective rank",
        "effective rate",
        "Fisher",
        "forgetting",
        "gradient norm",
        "noise scale",
        "sharpness",
    }


def test_sources_are_in_the_bibliography():
    for term in glossary():
        assert term.meaning and term.formula
        if term.paper is not None:
            assert paper(term.paper).title


def test_one_word():
    assert [t.name for t in glossary("Fisher")] == ["Fisher", "empirical Fisher", "squared mean gradient"]
    with pytest.raises(KeyError, match="its words are: dormant"):
        glossary("entropy")
