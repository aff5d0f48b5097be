"""The index of methods: every `Card` in the package, found without importing the modules that hold them.

A method's file has one literal ``CARD = Card(...)`` at its top level. `build` parses these; the result is shipped
as ``core/index.json`` (rewritten by ``python tools/build_index.py``), which `methods` reads, so that lists, help
and documentation import no method, and need no PyTorch.

Another package adds its methods by shipping a ``thalweg_index.json`` that it made in the same way,

    from thalweg.core import method_index
    rows = method_index.build(Path("src/my_package"))
    Path("src/my_package/thalweg_index.json").write_text(method_index.dump(rows))

and by naming itself in the entry point group ``thalweg.index``:

    [project.entry-points."thalweg.index"]
    my_package = "my_package"
"""

import ast
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from thalweg.core.cards import Card
from thalweg.core.errors import ThalwegWarning, UsageError

ENTRY_POINTS = "thalweg.index"
PLUGIN_FILE = "thalweg_index.json"


@dataclass(frozen=True)
class IndexRow:
    """One method of the index.

    Attributes:
        module: dotted name of the module that holds it ("thalweg.watching.instruments.gradient_norm").
        card: its card.
    """

    module: str
    card: Card


def methods(kind: str | None = None) -> list[Card]:
    """Return the cards of all methods, those of installed third-party packages included.

    Args:
        kind: only those of this kind ("instrument", "importer", ...); all by default.

    Returns:
        The cards, sorted by kind and name. A third-party index that can't be read, or that repeats a name, is
        left out with a `ThalwegWarning`.

    Raises:
        UsageError: no method is of this kind; the message lists the kinds.
    """
    cards = [row.card for row in _sorted(_with_plugins())]
    kinds = sorted({card.kind for card in cards})
    if kind is not None and kind not in kinds:
        raise UsageError(f"no method is of kind {kind!r}; there are: {', '.join(kinds)}")
    return [card for card in cards if kind in (None, card.kind)]


def of_kind(kind: str) -> list[IndexRow]:
    """Return the rows of one kind, third parties' included: who uses the methods imports their modules by name."""
    return [row for row in _sorted(_with_plugins()) if row.card.kind == kind]


def load() -> list[IndexRow]:
    """Return the rows of the index that is shipped with Thalweg, third parties' left out."""
    return list(_shipped())


def build(package_dir: Path) -> list[IndexRow]:
    """Find every card below the folder of a package, by parsing its files; nothing is imported.

    Args:
        package_dir: the package's own folder, whose name is the package's.

    Returns:
        The rows, sorted by kind and name.

    Raises:
        UsageError: a card isn't literal, lacks something or has a field too many, or two have the same kind and
            name; the message names file and line.
    """
    rows = []
    for path in sorted(package_dir.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "CARD" in text:
            module = _module_name(path.relative_to(package_dir.parent))
            rows += [IndexRow(module, card) for card in _cards(text, path)]
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.card.kind, row.card.name)
        if key in seen:
            raise UsageError(f"two methods are the {key[0]} {key[1]!r}: {seen[key]} and {row.module}")
        seen[key] = row.module
    return _sorted(rows)


def dump(rows: Iterable[IndexRow]) -> str:
    """Write rows as the JSON text of an index file."""
    listed = [{"module": row.module, **_as_json(row.card)} for row in rows]
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"


def parse(text: str) -> list[IndexRow]:
    """Read the JSON text of an index file.

    Raises:
        UsageError: it isn't one.
    """
    try:
        listed = json.loads(text)
        return [IndexRow(row.pop("module"), make_card(row)) for row in listed]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"not an index of methods: {error}") from error


def make_card(values: dict[str, Any]) -> Card:
    """Make a card from plain values (lists for tuples), checking names and types.

    Raises:
        UsageError: a field is unknown, absent, or of another type than `Card` says.
    """
    known = {f.name: f for f in fields(Card)}
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"a card has no field {', '.join(unknown)}; it has {', '.join(known)}")
    if absent := sorted({"name", "kind", "summary"} - set(values)):
        raise UsageError(f"the card lacks {', '.join(absent)}")
    return Card(**{name: _checked(name, value) for name, value in values.items()})


def _checked(name: str, value: Any) -> Any:
    if name == "papers" and _all(value, int):
        return tuple(value)
    if name == "signals" and _all(value, str):
        return tuple(value)
    if name in ("symbols", "options") and isinstance(value, dict) and _all([*value, *value.values()], str):
        return MappingProxyType(dict(value))
    if name not in ("papers", "signals", "symbols", "options") and isinstance(value, str):
        return value
    raise UsageError(f"the card's {name} can't be {value!r}")


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is kind for value in values)


def _as_json(card: Card) -> dict[str, Any]:
    """The card's fields that are not empty; JSON has no tuples or read-only mappings."""
    values = {f.name: getattr(card, f.name) for f in fields(Card)}
    return {
        name: dict(value) if isinstance(value, MappingProxyType) else value
        for name, value in values.items()
        if value
    }


def _cards(text: str, path: Path) -> Iterator[Card]:
    for node in ast.parse(text, str(path)).body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == "CARD" for target in targets):
            try:
                yield make_card(_literal_keywords(value))
            except (UsageError, ValueError) as error:
                raise UsageError(f"{path}:{node.lineno}: {error}") from error


def _literal_keywords(call: ast.expr) -> dict[str, Any]:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Card"):
        raise UsageError("CARD must be written as Card(...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise UsageError("a card takes keyword arguments only, written out")
    values = {}
    for keyword in call.keywords:
        try:
            values[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            line = keyword.value.lineno
            raise UsageError(f"the card's {keyword.arg} (line {line}) must be a literal") from None
    return values


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sorted(rows: Iterable[IndexRow]) -> list[IndexRow]:
    return sorted(rows, key=lambda row: (row.card.kind, row.card.name))


@cache
def _shipped() -> tuple[IndexRow, ...]:
    return tuple(parse(files("thalweg.core").joinpath("index.json").read_text(encoding="utf-8")))


def _with_plugins() -> list[IndexRow]:
    rows = load()
    names = {(row.card.kind, row.card.name) for row in rows}
    for package in _plugin_packages():
        try:
            found = _read_plugin(package)
            if twice := sorted(row.card.name for row in found if (row.card.kind, row.card.name) in names):
                raise UsageError(f"these names are taken: {', '.join(twice)}")
        except Exception as error:  # whatever a stranger's package does, the list goes on
            warnings.warn(
                f"the methods of the package {package!r} are left out: {error}", ThalwegWarning, stacklevel=3
            )
            continue
        rows += found
        names |= {(row.card.kind, row.card.name) for row in found}
    return rows


def _plugin_packages() -> list[str]:
    from importlib.metadata import entry_points  # slow to import

    return sorted({point.value for point in entry_points(group=ENTRY_POINTS)})


def _read_plugin(package: str) -> list[IndexRow]:
    from importlib.util import find_spec

    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("no such package is installed")
    return parse((Path(spec.submodule_search_locations[0]) / PLUGIN_FILE).read_text(encoding="utf-8"))
