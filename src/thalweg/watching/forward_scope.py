"""One forward under way, for the instruments that look at activations or outputs.

Their hooks are put in when the root's forward begins and taken out when it ends, also when it raised. They see
nothing of the recomputation that activation checkpointing does later, in the backward pass.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import ref

from torch import nn

from thalweg.tensor.hooks import TemporaryHooks
from thalweg.tensor.unwrapping import clean_name
from thalweg.watching.contracts import Measured


class ModuleList:
    """The modules of a model with their canonical names, held weakly."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [(clean_name(name), ref(module)) for name, module in model.named_modules()]

    def alive(self) -> Sequence[tuple[str, nn.Module]]:
        """(name, module) of those that still exist."""
        return [(name, module) for name, weak in self._modules if (module := weak()) is not None]


class RootForward:
    """A `ForwardScope` over the forward of one root module.

    Args:
        root: the outermost module, whose forward has just begun.
        modules: the model's modules.
        deliver: called as ``deliver(owner, measured)`` at the end, under the same protection as any hook.
    """

    def __init__(
        self,
        root: nn.Module,
        modules: ModuleList,
        deliver: Callable[[Any, Callable[[], Measured | None]], None],
    ) -> None:
        self._modules = modules
        self._deliver = deliver
        self.over = False
        self._inner, self._outer = TemporaryHooks(), TemporaryHooks()
        self._ends: list[tuple[Any, Callable[[Any], Measured | None]]] = []
        self.owner: Any = None
        self._outer.add_end(root, End(self))

    def modules(self) -> Sequence[tuple[str, nn.Module]]:
        """See `ForwardScope`."""
        return self._modules.alive()

    def before(self, module: nn.Module, look: Any) -> None:
        """See `ForwardScope`."""
        owner = self.owner
        self._inner.add_pre(ref(module), lambda m, args: self._deliver(owner, lambda: look(m, args)))

    def at_end(self, look: Callable[[Any], Measured | None]) -> None:
        """See `ForwardScope`."""
        self._ends.append((self.owner, look))

    def close(self) -> None:
        """Take every hook out, whether the forward ended or not."""
        self._inner.remove()
        self._outer.remove()

    def end(self, module: nn.Module, output: Any) -> None:
        """The forward has returned, or raised (``output`` is None then)."""
        self.over = True
        self._inner.remove()
        ends = [h for h in module._forward_hooks.values() if isinstance(h, End)]
        if (
            ends and ends[-1].scope is self
        ):  # torch may be walking through the table: only its last entry can go
            for end in ends:
                if end.scope.over:
                    end.scope.close()
        for owner, look in self._ends if output is not None else ():
            self._deliver(owner, partial(look, output))
        self._ends.clear()


class End:
    """The hook at a root's end; it knows its forward, so that the last of several can take all of them out."""

    def __init__(self, scope: RootForward) -> None:
        self.scope = scope

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """What torch calls, also when the forward raised."""
        self.scope.end(module, output)
