"""Callables that stand in a model's or optimizer's hook tables without tying the watch to their copies.

A model with a hook is deep-copied, saved and loaded like any other, and what is saved must load where Thalweg is not
installed, also with ``weights_only=True``, which lets nothing in but an allow-list. So a hooked module gets a
``__getstate__`` of its own, which leaves the watch's hooks out of every copy and file. Where a class pickles itself in
another way, a `Handle` copies to an inert one, and pickles as ``"".__init__``, a built-in that takes any arguments, does
nothing and returns None.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

_is_compiling = torch.compiler.is_compiling


class Handle:
    """A hook that calls its target and becomes inert when copied, pickled or released.

    It holds its target strongly (the watch lives as long as the model it is hooked to), keeps silent while a
    compiler goes through it, and returns what the target returns. Without a target it does nothing.
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


class StateWithoutHooks:
    """The ``__getstate__`` of a hooked module: its state, without the watch's hooks and without this."""

    __slots__ = ("_module",)

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)

    def __call__(self) -> Any:
        """What the module's class gives, cleaned."""
        module = self._module()
        state = None if module is None else type(module).__getstate__(module)  # type: ignore[no-untyped-call]  # typeshed's
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):  # a class with slots
            return self._cleaned(state[0]), state[1]
        return self._cleaned(state) if isinstance(state, dict) else state

    def _cleaned(self, state: dict[str, Any]) -> dict[str, Any]:
        state = {k: v for k, v in state.items() if v is not self}
        hooks = state.get("_forward_pre_hooks", {})
        mine = {key for key, hook in hooks.items() if isinstance(hook, Handle)}
        for name in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
            if name in state:
                state[name] = OrderedDict((k, v) for k, v in state[name].items() if k not in mine)
        return state


class Hooks:
    """The hooks one watch has put in, so that all of them can be taken out again."""

    def __init__(self) -> None:
        self._removals: list[Callable[[], None]] = []
        self._handles: list[Handle] = []

    def forward_pre(self, module: nn.Module, target: Callable[..., Any]) -> None:
        """Call ``target(module, args, kwargs)`` before each forward of ``module``."""
        handle = self._new(target)
        self._removals.append(module.register_forward_pre_hook(handle, with_kwargs=True).remove)
        module.__dict__.setdefault("__getstate__", StateWithoutHooks(module))
        self._removals.append(partial(_restore_state, weakref.ref(module)))

    def step(
        self, optimizer: torch.optim.Optimizer, before: Callable[..., Any], after: Callable[..., Any]
    ) -> Handle:
        """Call ``before`` and ``after`` around each step of ``optimizer``, with (optimizer, args, kwargs).

        Returns:
            The handle of ``before``, which may rest (its target None) at steps where nothing is to be done.
        """
        first = self._new(before)
        self._removals.append(optimizer.register_step_pre_hook(first).remove)
        self._removals.append(optimizer.register_step_post_hook(self._new(after)).remove)
        return first

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


def _restore_state(weak: "weakref.ref[nn.Module]") -> None:
    """Take the ``__getstate__`` out again when the last hook has gone."""
    module = weak()
    if module is not None and isinstance(module.__dict__.get("__getstate__"), StateWithoutHooks):
        hooks = module._forward_pre_hooks.values()
        if not any(isinstance(hook, Handle) for hook in hooks):
            del module.__dict__["__getstate__"]


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
