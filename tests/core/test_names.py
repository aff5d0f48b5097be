"""No module has the name of an object its package exports: the one would hide the other, by order of import."""

import ast
import importlib
from pathlib import Path

import pytest

import thalweg

ROOT = Path(thalweg.__file__).parent


def exported(init: Path, package: str) -> set[str]:
    """Names that an ``__init__.py`` binds or exports lazily, its own submodules (imported as such) left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(init.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module != package:
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            constants = [(k.value, v) for k, v in pairs if isinstance(k, ast.Constant)]
            names |= {
                k
                for k, v in constants
                if isinstance(k, str) and not (isinstance(v, ast.Constant) and v.value == "")
            }
    return names


def clashes(root: Path) -> list[str]:
    found = []
    for init in sorted(root.rglob("__init__.py")):
        package = ".".join(init.parent.relative_to(root.parent).parts)
        modules = {path.stem for path in init.parent.glob("*.py")} | {
            path.parent.name for path in init.parent.glob("*/__init__.py")
        }
        found += [f"{package}.{name}" for name in sorted(exported(init, package) & modules - {"__init__"})]
    return found


def test_no_module_has_the_name_of_an_exported_object():
    assert clashes(ROOT) == []


@pytest.mark.parametrize(
    "text",
    [
        "from pack.thing import thing",
        "def thing(): ...",
        "thing = 3",
        "a, b = attach(__name__, {'thing': 'pack.other'})",
        "from pack.other import something as thing",
    ],
)
def test_the_walk_finds_each_kind_of_clash(tmp_path, text):
    inner = tmp_path / "pack" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text("")
    (inner / "__init__.py").write_text(text)
    (inner / "thing.py").write_text("")
    assert clashes(tmp_path / "pack") == ["pack.inner.thing"]


def test_a_subpackage_exported_as_itself_is_no_clash(tmp_path):
    (tmp_path / "pack" / "data").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text(
        "from pack import data as data\nattach(__name__, {'data': ''})"
    )
    (tmp_path / "pack" / "data" / "__init__.py").write_text("")
    assert clashes(tmp_path / "pack") == []


@pytest.mark.parametrize("package", ["thalweg.core", "thalweg.data", "thalweg.schedules"])
def test_names_are_the_same_before_and_after_the_modules_are_imported(package):
    room = importlib.import_module(package)
    before = {name: getattr(room, name) for name in room.__all__}
    for path in Path(room.__path__[0]).glob("*.py"):
        importlib.import_module(f"{package}.{path.stem}" if path.stem != "__init__" else package)
    assert {name: getattr(room, name) for name in room.__all__} == before
