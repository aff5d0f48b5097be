"""The index of methods: built by parsing, fresh, and open to other packages."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg
from thalweg.core import method_index
from thalweg.core.bibliography import paper
from thalweg.core.cards import Card
from thalweg.core.errors import ThalwegWarning, UsageError

ROOT = Path(thalweg.__file__).parent
GOOD = 'from x import Card\nCARD = Card(name="a", kind="law", summary="s", papers=(14,), symbols={"x": "step"})\n'


def package(folder: Path, **files: str) -> Path:
    root = folder / "pack"
    for name, text in {"__init__": "", **files}.items():
        path = root / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_shipped_index_is_fresh():
    shipped = (ROOT / "core" / "index.json").read_text(encoding="utf-8")
    assert shipped == method_index.dump(method_index.build(ROOT)), "run python tools/build_index.py"


def test_cards_cite_papers_of_the_bibliography_and_name_their_module():
    for row in method_index.load():
        assert row.module.startswith("thalweg.")
        assert (ROOT.parent / Path(*row.module.split("."))).with_suffix(".py").exists()
        for number in row.card.papers:
            paper(number)


def test_build_finds_cards_at_any_depth_without_importing(tmp_path):
    root = package(
        tmp_path, a=GOOD + "raise RuntimeError", deep__b=GOOD.replace('"a"', '"b"'), c="CARDS = 1\n"
    )
    rows = method_index.build(root)
    assert [(row.module, row.card.name) for row in rows] == [("pack.a", "a"), ("pack.deep.b", "b")]
    assert rows[0].card == Card(name="a", kind="law", summary="s", papers=(14,), symbols={"x": "step"})


def test_dump_and_parse_are_inverse(tmp_path):
    rows = method_index.build(package(tmp_path, a=GOOD))
    assert method_index.parse(method_index.dump(rows)) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CARD = make()", r"a\.py:1: CARD must be written as Card"),
        ("\nCARD = Card('a')", r"a\.py:2: a card takes keyword arguments only"),
        ("CARD = Card(**values)", r"keyword arguments only"),
        (
            'CARD = Card(name="a",\n    kind=KIND, summary="s")',
            r"a\.py:1: the card's kind \(line 2\) must be a literal",
        ),
        ('CARD = Card(name="a", kind="law")', r"lacks summary"),
        ('CARD = Card(name="a", kind="law", summary="s", colour="red")', r"no field colour"),
        ('CARD = Card(name="a", kind="law", summary="s", papers=14)', r"papers can't be 14"),
        ('CARD = Card(name="a", kind="law", summary="s", papers=("14",))', r"papers can't be"),
        ('CARD = Card(name="a", kind="law", summary=3)', r"summary can't be 3"),
        ('CARD: Card = Card(name="a", kind="law", summary=("s",))', r"summary can't be"),
    ],
)
def test_a_bad_card_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        method_index.build(package(tmp_path, a=text))


def test_two_methods_of_one_kind_and_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"two methods are the law 'a': pack\.a and pack\.b"):
        method_index.build(package(tmp_path, a=GOOD, b=GOOD))


def test_methods_are_sorted_and_chosen_by_kind(monkeypatch):
    cards = thalweg.methods()
    assert cards == sorted(cards, key=lambda card: (card.kind, card.name))
    kind = cards[0].kind
    assert thalweg.methods(kind) == [card for card in cards if card.kind == kind]
    with pytest.raises(UsageError, match="no method is of kind 'nonsense'; there are: "):
        thalweg.methods("nonsense")


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install packages that name themselves in the entry point group: a dict of name -> text of their index."""
    points = []

    def install(name: str, text: str | None) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("raise RuntimeError('a plug-in must not be imported')")
        if text is not None:
            (folder / "thalweg_index.json").write_text(text)
        points.append(importlib.metadata.EntryPoint(name, name, "thalweg.index"))

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: tuple(points))
    return install


def row(**changes) -> str:
    return json.dumps([{"module": "p.a", "name": "theirs", "kind": "law", "summary": "s"} | changes])


def test_a_third_party_adds_methods_unimported(plugins):
    plugins("friendly_plugin", row(papers=[14]))
    assert Card(name="theirs", kind="law", summary="s", papers=(14,)) in thalweg.methods("law")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not an index of methods"),
        ("[1]", "not an index of methods"),
        (row(colour="red"), "no field colour"),
        (None, "thalweg_index.json"),
        (row(name="gradient-norm", kind="instrument"), "these names are taken: gradient-norm"),
    ],
)
def test_a_broken_plugin_is_a_warning_and_the_others_stay(plugins, text, message):
    plugins("a_broken_plugin", text)
    plugins("friendly_plugin", row())
    with pytest.warns(ThalwegWarning, match=message) as caught:
        cards = thalweg.methods()
    assert [warning.filename for warning in caught] == [__file__]
    assert "theirs" in {card.name for card in cards}
    assert len(cards) == len(method_index.load()) + 1


def test_a_plugin_that_is_not_installed_is_a_warning(monkeypatch):
    point = importlib.metadata.EntryPoint("gone", "no_such_package_here", "thalweg.index")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: (point,))
    with pytest.warns(ThalwegWarning, match="no such package is installed"):
        assert thalweg.methods() == [row.card for row in method_index.load()]


def test_the_tool_checks_without_writing():
    tool = ROOT.parents[1] / "tools" / "build_index.py"
    if not tool.exists():
        pytest.skip("not a source checkout")
    before = (ROOT / "core" / "index.json").read_bytes()
    done = subprocess.run(
        [sys.executable, str(tool), "--check"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the index is fresh" in done.stdout
    assert (ROOT / "core" / "index.json").read_bytes() == before
