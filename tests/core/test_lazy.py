"""`attach`: what it returns does what a package's own ``__getattr__``, ``__dir__`` and ``__all__`` should."""

import sys
import types

import pytest

from thalweg.core import lazy
from thalweg.core.errors import MissingTorch, ThalwegError


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("lazy_example")
    monkeypatch.setitem(sys.modules, "lazy_example", module)
    return module


def test_a_name_is_imported_once_and_kept(package):
    get, listing, exported = lazy.attach("lazy_example", {"sqrt": "math"}, also=("pi",))
    assert exported == ["pi", "sqrt"]
    assert "sqrt" not in vars(package)
    assert get("sqrt")(4) == 2
    assert vars(package)["sqrt"](9) == 3
    assert {"sqrt", "pi"} <= set(listing())


def test_a_failing_import_is_not_hidden(package):
    get, _, _ = lazy.attach("lazy_example", {"x": "no_such_module_at_all"})
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        get("x")


def test_torch_names_come_and_go_with_torch(package, monkeypatch):
    monkeypatch.setattr(lazy, "has_torch", lambda: False)
    get, _, exported = lazy.attach("lazy_example", {}, with_torch={"sqrt": "math"})
    assert exported == []
    with pytest.raises(MissingTorch, match=r"lazy_example\.sqrt needs PyTorch") as caught:
        get("sqrt")
    assert isinstance(caught.value, AttributeError) and isinstance(caught.value, ThalwegError)
    monkeypatch.setattr(lazy, "has_torch", lambda: True)
    get, _, exported = lazy.attach("lazy_example", {}, with_torch={"sqrt": "math"})
    assert exported == ["sqrt"] and get("sqrt")(4) == 2


def test_has_torch_does_not_import_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert lazy.has_torch() is False
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(lazy, "find_spec", lambda name: None)
    assert lazy.has_torch() is False
    monkeypatch.setattr(lazy, "find_spec", lambda name: object())
    assert lazy.has_torch() is True
    assert "torch" not in sys.modules
