"""Callables that stand in a model's or optimizer's hook tables without tying the watch to their copies.

A model with a hook is deep-copied, saved and loaded like any other. The copy's hook must do nothing, and a saved
model must load where Thalweg is not installed: a `Handle` copies to an inert one, and pickles as ``"".__init__``, a
built-in that takes any arguments, does nothing and returns None.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_is_compiling = torch.compiler.is_compiling


class Handle:
    """A hook that calls its target and becomes inert when copied, pickled or released.

    It holds its target strongly (the watch lives as long as the model it is hooked to), keeps silent while a
    compiler traces through it, and returns what the target returns.
    """

    __slots__ = ("__weakref__", "target")

    def __init__(self, target: Callable[..., Any] | None) -> None:
        self.target = target

    def __call__(self, owner: Any, args: Any, kwargs: Any) -> Any:
        """Call the target with (module or optimizer, args, kwargs), if there still is one."""
        target = self.target
        if target is None or _is_compiling():
            return None
        return target(owner, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Handle":
        return Handle(None)

    def __copy__(self) -> "Handle":
        return Handle(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, ("", "__init__"))


class Hooks:
    """The hooks one watch has put in, so that all of them can be taken out again."""

    def __init__(self) -> None:
        self._removals: list[Callable[[], None]] = []
        self._handles: list[Handle] = []

    def forward_pre(self, module: nn.Module, target: Callable[..., Any]) -> None:
        """Call ``target(module, args, kwargs)`` before each forward of ``module``."""
        handle = self._new(target)
        self._removals.append(module.register_forward_pre_hook(handle, with_kwargs=True).remove)

    def step(
        self, optimizer: torch.optim.Optimizer, before: Callable[..., Any], after: Callable[..., Any]
    ) -> None:
        """Call ``before`` and ``after`` around each step of ``optimizer``, with (optimizer, args, kwargs)."""
        self._removals.append(optimizer.register_step_pre_hook(self._new(before)).remove)
        self._removals.append(optimizer.register_step_post_hook(self._new(after)).remove)

    def silence(self) -> None:
        """Make all of them do nothing, where they stand."""
        for handle in self._handles:
            handle.target = None

    def remove(self) -> None:
        """Take all out; harmless where the model has gone already."""
        self.silence()
        for removal in self._removals:
            removal()
        self._removals.clear()
        self._handles.clear()

    def _new(self, target: Callable[..., Any]) -> Handle:
        handle = Handle(target)
        self._handles.append(handle)
        return handle


def find_targets(module: nn.Module) -> list[Any]:
    """The objects whose methods are live hooks on ``module``: how a second watch finds the first."""
    hooks = module._forward_pre_hooks.values()
    targets = [h.target for h in hooks if isinstance(h, Handle) and h.target is not None]
    return [getattr(t, "__self__", t) for t in targets]


class TemporaryHooks:
    """Module hooks for one forward, put in while it is under way and taken out by its end.

    The modules are held weakly: a watch must not keep a model alive.
    """

    def __init__(self) -> None:
        self._removals: list[Callable[[], None]] = []

    def add_pre(self, module: "weakref.ref[nn.Module]", hook: Callable[..., None]) -> None:
        """Call ``hook(module, args)`` before the module's forward."""
        alive = module()
        if alive is not None:
            self._removals.append(alive.register_forward_pre_hook(hook).remove)

    def add_end(self, module: nn.Module, hook: Callable[..., None]) -> None:
        """Call ``hook(module, args, output)`` after the module's forward, also when it raised."""
        self._removals.append(module.register_forward_hook(hook, always_call=True).remove)

    def remove(self) -> None:
        """Take all out."""
        for removal in self._removals:
            removal()
        self._removals.clear()
