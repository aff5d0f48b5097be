"""Write the pages and tables of the documentation that are made from the code: ``python tools/build_docs.py``.

Methods and papers come from the index and the bibliography, definitions from the glossary, the options of the
commands from the command line itself, the table of instruments from their classes, the list of faults from the tests
that provoke them. With ``--check`` nothing is written, and files that are out of date are named.
"""

import argparse
import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core import glossary, paper, papers
from thalweg.core.cards import Card
from thalweg.core.method_index import IndexRow, load
from thalweg.diagnosis import Rule, explain, kinds
from thalweg.diagnosis.pictures import picture_of
from thalweg.record.sketching import Strip, sketch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "generated"
NOTE = "<!-- Made by tools/build_docs.py; edit the code it is made from. -->\n\n"
KINDS = {"instrument": "Instruments", "importer": "Importers", "rule": "Rules", "schedule": "Schedules"}
FAULT_TESTS = ("test_*fault*.py", "test_*fuzz*.py", "test_watch_call.py", "test_watch_loops.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all files that are out of date, or only name them and return 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is out of date")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in wanted().items() if _read(path) != text}
    for path, text in stale.items():
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print("run `python tools/build_docs.py` and commit what it writes")
        return 1
    return 0


def wanted() -> dict[Path, str]:
    """Every generated file with the text it should have."""
    made = {
        "methods.md": methods_page(load()),
        "papers.md": papers_page(load()),
        "definitions.md": definitions_page(),
        "parts/instruments.md": instruments_table(),
        "parts/faults.md": faults_table(ROOT / "tests"),
        "parts/rooms.md": rooms_table(),
        "parts/common-tests.md": common_tests(ROOT / "tests" / "watching" / "test_instruments.py"),
        "parts/schema.sql": schema(),
    }
    made |= {f"parts/help-{name}.md": text for name, text in command_helps()}
    made |= {"parts/kinds.md": kinds_table(), "parts/importers.md": importers_table(load())}
    made |= {"parts/schedules.md": schedules_table(load())}
    made |= {f"findings/{kind}.md": finding_page(explain(kind)) for kind in kinds()}
    return {OUT / name: text for name, text in made.items()}


# -- methods and papers ---------------------------------------------------------------------------------------


def methods_page(rows: Iterable[IndexRow]) -> str:
    """One entry a card, by kind and name."""
    parts = [
        f"{NOTE}# Methods\n\nEvery method, one file each. `thalweg methods` prints this list, "
        "`tw.methods()` returns it. The numbers of papers are those of the [bibliography](papers.md).\n"
    ]
    for kind, of_kind in groupby(rows, key=lambda row: row.card.kind):
        parts.append(f"## {KINDS.get(kind, kind.capitalize() + 's')}\n")
        parts += [_method(row) for row in of_kind]
    return "\n".join(parts)


def _method(row: IndexRow) -> str:
    card = row.card
    lines = [f"### {card.name}\n", f"{card.summary}\n"]
    if card.formula:
        lines.append(f"```text\n{card.formula}\n```\n")
    facts = [
        ("Symbols", "; ".join(f"`{k}` {v}" for k, v in card.symbols.items())),
        ("Needs", card.needs),
        ("Cost", card.cost),
        ("Options", "; ".join(f"`{k}`: {v}" for k, v in card.options.items())),
        ("Signals", ", ".join(f"`{s}`" for s in card.signals)),
        ("Papers", "; ".join(_citation(number) for number in card.papers)),
        ("File", f"`{row.module}`"),
    ]
    return (
        "\n".join(lines) + "\n" + "".join(f"- **{name}**: {_inline(text)}\n" for name, text in facts if text)
    )


def _citation(number: int) -> str:
    found = paper(number)
    year = f", {found.year}" if found.year else ""
    return f"{_linked(found.title, found.url)}{year} ({number})"


def papers_page(rows: Iterable[IndexRow]) -> str:
    """The whole bibliography, and which methods cite what."""
    users: dict[int, list[Card]] = {}
    for row in rows:
        for number in row.card.papers:
            users.setdefault(number, []).append(row.card)
    cells = [
        (
            entry.id,
            entry.year or "",
            _linked(entry.title, entry.url),
            ", ".join(f"[{card.name}](methods.md#{card.name})" for card in users.get(entry.id, ())),
        )
        for entry in papers()
    ]
    about = (
        "The papers whose methods Thalweg sets out to offer (1 to 359), and others that a card or a definition cites "
        "(from 1001). The last column says which methods there are so far. A year and a link are given where they "
        "were checked against a public listing. `thalweg papers WORD` searches this list, `tw.papers()` returns it.\n"
    )
    return f"{NOTE}# Papers\n\n{about}\n{_table(('number', 'year', 'title', 'methods'), cells)}"


def definitions_page() -> str:
    """The glossary: each shared word with the things it is used for."""
    parts = [
        f"{NOTE}# Definitions\n\nWhere the field uses one name for several things, each has its own name here, with "
        "its formula and source. Signals, cards and the report keep to these names.\n"
    ]
    for word, terms in groupby(glossary(), key=lambda term: term.word):
        parts.append(f"## {word}\n")
        for term in terms:
            source = f"\n\nSource: {_citation(term.paper)}." if term.paper is not None else ""
            parts.append(f"**{term.name}**: {term.meaning}\n\n```text\n{term.formula}\n```{source}\n")
    return "\n".join(parts)


# -- findings -------------------------------------------------------------------------------------------------


def kinds_table() -> str:
    """Every kind of finding with its summary, linked to its page."""
    cells = [(f"[{kind}](generated/findings/{kind}.md)", explain(kind).card.summary) for kind in kinds()]
    return _table(("kind", "what it is"), cells)


def importers_table(rows: Iterable[IndexRow]) -> str:
    """Every importer: what it reads, and what tells it."""
    cells = [(f"`{r.card.name}`", r.card.summary, r.card.needs) for r in rows if r.card.kind == "importer"]
    return _table(("format", "what is read", "needs"), cells)


def schedules_table(rows: Iterable[IndexRow]) -> str:
    """Every schedule: its name in an expression, what it is, its papers; linked to its card."""
    cells = [
        (
            f"[`{row.card.name.replace('-', '_')}`](generated/methods.md#{row.card.name})",
            row.card.summary,
            ", ".join(map(str, row.card.papers)),
        )
        for row in rows
        if row.card.kind == "schedule"
    ]
    return _table(("schedule", "what it is", "papers"), cells)


def finding_page(rule: Rule) -> str:
    """The page of one kind of finding, from the rule's card and explanation, with its pictures."""
    card, page = rule.card, rule.page
    parts = [f"{NOTE}# {card.name}\n\n{card.summary}\n\n{page.what}\n", *_pictures(card.name)]
    parts.append("## What brings it about\n\n" + "".join(f"- {_inline(cause)}\n" for cause in page.causes))
    apart = "".join(f"- **{name}**: {_inline(how)}\n" for name, how in page.apart.items())
    parts.append(f"## Its look-alikes\n\n{apart}")
    parts.append("## What to do\n\n" + "".join(f"1. {_inline(step)}\n" for step in page.remedy))
    parts.append("## How it is found\n")
    if card.formula:
        parts.append(f"```text\n{card.formula}\n```\n")
    needs = card.needs or "; ".join(query.role or query.name for query in rule.requires)
    facts = [
        ("Needs", needs),
        ("Thresholds", page.tried),
        ("Explains", ", ".join(f"[{kind}]({kind}.md)" for kind in page.explains)),
        ("Papers", "; ".join(_citation(number) for number in card.papers)),
        ("File", f"`{rule.check.__module__}`"),
    ]
    parts.append("".join(f"- **{name}**: {text}\n" for name, text in facts if text))
    return "\n".join(parts)


def _caption(run: str) -> str:
    """What a picture's run was: the recipe, network and optimizer that its name is made of."""
    recipe, network, optimizer, seed = run.rsplit("-", 3)
    return f"{recipe.replace('-', ' ')}: {network}, {optimizer}, seed {seed}"


def _pictures(kind: str) -> Iterator[str]:
    """The trouble and health as drawn strips of two real small runs."""
    picture = picture_of(kind)
    if picture is None:
        return
    for side, words in (("sick", "The trouble"), ("healthy", "Health")):
        signals = picture[side]["signals"].items()
        strips = [
            Strip(name, np.array(steps), np.array([np.nan if v is None else v for v in values], np.float64))
            for name, (steps, values) in signals
        ]
        drawing = sketch(strips, marks=picture[side].get("marks"), title=f"{words}: {kind}")
        yield f"## {words}\n\n<figure>{drawing}<figcaption>{_caption(picture[side]['run'])}</figcaption></figure>\n"


# -- tables that other pages include --------------------------------------------------------------------------


def instruments_table() -> str:
    """The default instruments in the order of their priority: signals, moment, shortest period, needs."""
    from thalweg.watching.instruments import DEFAULT

    cells = []
    for make in DEFAULT:
        instrument = make()
        moments = instrument.when if isinstance(instrument.when, tuple) else (instrument.when,)
        needs = instrument.needs
        often = f"with {needs.rides}" if needs.rides else _ordinal_period(needs.shortest)
        names = dict.fromkeys(f"`{e.name}`" for e in instrument.emits)
        card = instrument.card
        link = f"[{card.name}](generated/methods.md#{card.name})"
        when = ", ".join(moment.name.lower().replace("_", "-") for moment in moments)
        cells.append((link, ", ".join(names), when, often))
    return _table(("instrument", "signals", "looks at the moment", "at most"), cells)


def _ordinal_period(steps: int) -> str:
    return "every step" if steps == 1 else f"every {steps} steps"


def rooms_table() -> str:
    """The layers as the import checker enforces them, from the top, with each room's own first line."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    torch_free = next(c["source_modules"] for c in contracts if c["type"] == "forbidden")
    cells = []
    for number, layer in enumerate(layers, 1):
        for room in re.split(r" *[|:] *", layer):
            source = ROOT / "src" / "thalweg" / room / "__init__.py"
            about = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            line = "no torch" if f"thalweg.{room}" in torch_free else "torch"
            cells.append((number, f"`{room}`", line, " ".join(about.split())))
    return _table(("layer", "room", "imports", "what lives there"), cells)


def common_tests(path: Path) -> str:
    """The tests that every default instrument gets, in the words of their names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = []
    for node in tree.body:
        decorators = [ast.unparse(d) for d in getattr(node, "decorator_list", ())]
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and "every" in decorators:
            words = node.name.removeprefix("test_").replace("_", " ")
            where = ", in each situation" if "everywhere" in decorators else ""
            lines.append(f"- {words}{where}\n")
    situations = next(
        [element.id.replace("_", " ") for element in node.value.elts if isinstance(element, ast.Name)]
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(target, ast.Name) and target.id == "SITUATIONS" for target in node.targets)
    )
    return "".join(lines) + f"\nThe situations: {', '.join(situations)}.\n"


def faults_table(tests: Path) -> str:
    """What the tests of faults provoke and expect, in the words of their names or docstrings, by file."""
    parts = []
    for path in sorted({path for pattern in FAULT_TESTS for path in tests.rglob(pattern)}):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        about = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
        cells = [(_inline(sentence), "slow" if slow else "every") for sentence, slow in _fault_tests(tree)]
        parts.append(f"## {path.relative_to(tests).as_posix()}\n\n{about}\n\n")
        parts.append(_table(("fault, and what happens", "test run"), cells) + "\n")
    return "".join(parts)


def _fault_tests(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = (ast.get_docstring(node) or "").split("\n\n")[0]
            sentence = " ".join(words.split()) or node.name.removeprefix("test_").replace("_", " ")
            marks = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            yield sentence[:1].upper() + sentence[1:].rstrip("."), "mark.slow" in marks


def schema() -> str:
    """The tables of the closed form, as the code makes them."""
    from thalweg.record.sqlitefile import TABLES

    return TABLES.strip() + "\n"


# -- the command line -----------------------------------------------------------------------------------------


def command_helps() -> Iterator[tuple[str, str]]:
    """(name, what ``--help`` says) of each command; a group's commands are ``group-command``.

    Taken from the commands' own declarations and laid out here, since the layout of ``--help`` depends on the
    terminal and on the version of its library.
    """
    import typer

    from thalweg.cli.entry import command_line

    yield from _helps(typer.main.get_command(command_line()), ())


def _helps(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from _helps(child, (*path, name))
    if not children:
        yield "-".join(path), _help(command, path)


def _help(command: Any, path: tuple[str, ...]) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["thalweg", *path, *(["[OPTIONS]"] if options else []), *map(_placeholder, arguments)])
    rows = [(_placeholder(p).strip("[]."), _described(p)) for p in arguments]
    rows += [(_option(p), _described(p)) for p in options]
    rows.append(("--help, -h", "Show this and exit."))
    about = textwrap.wrap(" ".join(str(command.help or "").split()), 88)
    body = [f"Usage: {usage}", "", *about, ""]
    width = max(len(name) for name, _ in rows)
    body += [f"  {name:<{width}}  {text}" for name, text in rows]
    if command.epilog:
        body += ["", str(command.epilog).strip()]
    return "```text\n" + "\n".join(body) + "\n```\n"


def _placeholder(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name).upper().strip("[].")
    many = "..." if parameter.nargs == -1 else ""
    return f"{name}{many}" if parameter.required else f"[{name}]{many}"


def _option(parameter: Any) -> str:
    names = ", ".join(parameter.opts)
    if parameter.is_flag:
        return names
    value = parameter.metavar or ("N" if type(parameter.default) is int else parameter.name)
    return f"{names} {value.upper()}"


def _described(parameter: Any) -> str:
    default = parameter.default
    plain = default not in (None, False, (), []) and not callable(default) and not parameter.required
    return (parameter.help or "") + (f" [default: {default}]" if plain else "")


# -- Markdown -------------------------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(str(v).replace("|", "\\|") for v in line) + " |\n" for line in lines)


def _linked(title: str, url: str) -> str:
    return f"[{_inline(title)}]({url})" if url else _inline(title)


def _inline(text: str) -> str:
    """Text whose asterisks and underscores outside code and links must not become emphasis, nor ``<`` a tag."""
    parts = re.split(r"(`[^`]*`|\]\([^)]*\))", text)
    return "".join(
        part if i % 2 else re.sub(r"(?<!\\)([*_<])", r"\\\1", part) for i, part in enumerate(parts)
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
