"""The bibliography: whole, unique, and with identifiers of the right form."""

import re

import pytest

import thalweg as tw
from thalweg.core.bibliography import paper, papers


def test_catalogue_ids_are_all_there_and_others_start_at_1001():
    ids = [p.id for p in papers()]
    assert ids == sorted(set(ids))
    assert [i for i in ids if i < 1000] == list(range(1, 360))
    assert min(i for i in ids if i >= 1000) == 1001


def test_titles_are_clean_and_identifiers_have_their_form():
    for p in papers():
        assert p.title and p.title == " ".join(p.title.split())
        assert p.year is None or 1940 < p.year < 2100
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", p.arxiv)
        assert p.doi == "" or p.doi.startswith("10.")


def test_an_arxiv_id_agrees_with_its_year():
    for p in papers():
        if p.arxiv:
            assert p.year == 2000 + int(p.arxiv[:2]), p


def test_a_known_paper():
    p = paper(1001)
    assert (p.title, p.year, p.arxiv) == ("An Empirical Model of Large-Batch Training", 2018, "1812.06162")
    assert p.url == "https://arxiv.org/abs/1812.06162"
    assert paper(2).url == ""


def test_an_unknown_id_says_where_to_look():
    with pytest.raises(KeyError, match="thalweg papers"):
        paper(999)


def test_the_list_is_the_callers_own():
    tw.papers().clear()
    assert len(tw.papers()) > 359
