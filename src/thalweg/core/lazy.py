"""Names that a package exports and imports only when they are first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Any

from thalweg.core.errors import MissingExtra, MissingTorch

Attached = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(
    package: str,
    names: Mapping[str, str],
    *,
    with_torch: Mapping[str, str] | None = None,
    also: tuple[str, ...] = (),
) -> Attached:
    """Make the ``__getattr__``, ``__dir__`` and ``__all__`` of a lazy package.

    Args:
        package: the package's ``__name__``.
        names: exported name -> the module that defines it; an empty module means that the name is itself a
            subpackage of `package`.
        with_torch: the same for names whose module imports PyTorch. Without PyTorch they raise `MissingTorch`
            and are not in ``__all__``.
        also: exported names that the package defines eagerly; only listed.

    Returns:
        The three values, to be assigned in the package's namespace. A name, once asked for, is put into that
        namespace, so that the next use costs nothing.
    """
    torch_names = dict(with_torch or {})
    where = {**names, **torch_names}

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if name in torch_names and not has_torch():
            raise missing_torch(f"{package}.{name}", sys._getframe(1))
        module = where[name]
        value = getattr(import_module(module), name) if module else import_module(f"{package}.{name}")
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exported})

    exported = sorted({*names, *also, *(torch_names if has_torch() else ())})
    return get, listing, exported


def missing_torch(name: str, caller: FrameType) -> MissingTorch | MissingExtra:
    """Make the error for `name`: an ``ImportError`` if the import system asks, else an ``AttributeError``.

    The import system would turn an ``AttributeError`` into "cannot import name", and lose the words.
    """
    words = f"{name} needs PyTorch, which is not installed here: pip install 'thalweg[torch]'"
    importing = caller.f_globals.get("__name__") in ("importlib._bootstrap", "_frozen_importlib")
    return MissingExtra(words) if importing else MissingTorch(words)


def has_torch() -> bool:
    """Say whether PyTorch is installed, without importing it (a tenth of a millisecond instead of seconds)."""
    if "torch" in sys.modules:
        return sys.modules["torch"] is not None
    try:
        return find_spec("torch") is not None
    except (ImportError, ValueError):
        return False
