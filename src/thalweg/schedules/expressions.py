"""Schedules written as text, as a user types them: ``wsd(peak=3e-4, total=24000, decay=0.2).warmed(500)``.

The text is parsed and never evaluated: only calls of known schedules, products, and the methods that join them, with
literals and schedules as arguments. A schedule is named by its class (``WSD``) or its card (``wsd``, ``cosine_restarts``).
"""

import ast
import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from thalweg.core.errors import UsageError
from thalweg.core.method_index import of_kind
from thalweg.schedules.joining import from_table
from thalweg.schedules.shape import Schedule

_METHODS = ("then", "warmed", "clipped", "momentum", "data")


def parse(text: str) -> Schedule:
    """The schedule that a text means.

    Raises:
        UsageError: it is no such expression, a name is unknown, or the schedule can't be made; in words.
    """
    try:
        tree = ast.parse(text.strip().removeprefix("tw.schedules."), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", error)
        raise UsageError(
            f"{_short(text)} is no schedule: {reason}. One is wsd(peak=3e-4, total=24000)"
        ) from None
    try:
        made = _value(tree.body, text)
    except RecursionError:
        raise UsageError(f"{_short(text)} is nested too deeply") from None
    if not isinstance(made, Schedule):
        raise UsageError(f"{_short(text)} is no schedule; one is wsd(peak=3e-4, total=24000)")
    return made


def known() -> dict[str, str]:
    """Every name an expression may use -> the module it is from."""
    return {row.card.name.replace("-", "_"): row.module for row in of_kind("schedule")}


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        keywords = {str(word.arg): _value(word.value, text) for word in node.keywords if word.arg is not None}
        if len(keywords) < len(node.keywords):
            raise UsageError(f"{_short(text)}: arguments are written out, without **")
        arguments = [_value(argument, text) for argument in node.args]
        function = _callee(node.func, text)
        try:
            return function(*arguments, **keywords)
        except TypeError as error:
            raise UsageError(f"{ast.unparse(node.func)}: {str(error).partition('() ')[2] or error}") from None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _value(node.left, text), _value(node.right, text)
        if isinstance(left, Schedule) or isinstance(right, Schedule):
            return left * right if isinstance(left, Schedule) else right * left
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(item, text) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UsageError(
            f"{_short(text)}: {_short(ast.unparse(node))} is neither a value nor a schedule"
        ) from None


def _callee(node: ast.expr, text: str) -> Callable[..., Any]:
    """The class, function or method that a call names."""
    if isinstance(node, ast.Attribute) and node.attr in _METHODS:
        owner = _value(node.value, text)
        if isinstance(owner, Schedule) and hasattr(owner, node.attr):
            found: Callable[..., Any] = getattr(owner, node.attr)
            return found
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tw.schedules":
        node = ast.Name(node.attr)
    if not isinstance(node, ast.Name):
        raise UsageError(
            f"{_short(text)}: {_short(ast.unparse(node))} is no schedule, and no way to join them"
        )
    if node.id == "from_table":
        return from_table
    names = known()
    for name, module in names.items():
        if node.id.lower().replace("_", "") == name.replace("_", ""):
            return _class_in(module)
    for module in names.values():
        if _class_in(module).__name__ == node.id:
            return _class_in(module)
    near = difflib.get_close_matches(node.id.lower(), names, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
    raise UsageError(f"no schedule is called {node.id}{hint}")


def _class_in(module: str) -> type[Schedule]:
    """The schedule class of a method's module: the one it defines whose name is public."""
    for value in vars(import_module(module)).values():
        own = isinstance(value, type) and issubclass(value, Schedule) and value.__module__ == module
        if own and not value.__name__.startswith("_"):
            return cast(type[Schedule], value)
    raise UsageError(f"{module} defines no schedule")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
