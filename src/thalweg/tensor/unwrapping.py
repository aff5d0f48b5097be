"""What lies inside the wrappers that people put around models and optimizers, and the names without their prefixes."""

from collections.abc import Iterator

import torch
from torch import nn

_NAME_PARTS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PREFIXES = ("_orig_mod.", "module.")


def clean_name(name: str) -> str:
    """A parameter's or module's name as the user wrote it: without what compile, DDP, FSDP and checkpoint add.

    ``module.`` is dropped at the front only (a user's own submodule may have that name deeper), the others anywhere.
    """
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    parts = name.split(".")
    return ".".join(p for p in parts if p == "module" or p not in _NAME_PARTS)


def is_compiled(model: nn.Module) -> bool:
    """Whether calling the model runs a compiled graph: ``torch.compile(model)``, ``model.compile()``, or a part of it."""
    return any(
        type(m).__name__ == "OptimizedModule" or getattr(m, "_compiled_call_impl", None) is not None
        for m in model.modules()
    )


def inner_model(model: nn.Module) -> nn.Module:
    """The user's own module inside ``torch.compile``, DDP, DataParallel and the like."""
    while True:
        inner = _inside(model)
        if inner is None:
            return model
        model = inner


def _inside(model: nn.Module) -> nn.Module | None:
    kind = type(model).__name__
    if kind == "OptimizedModule":
        return model._modules.get("_orig_mod")
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)) or kind == "AveragedModel":
        return model._modules.get("module")
    return None


def inner_optimizer(optimizer: object) -> object:
    """The optimizer that takes the steps, inside wrappers that keep it as ``.optimizer`` (Accelerate, Lightning).

    Also as ``.base_optimizer``, where both have the same parameter groups: sharpness-aware ones climb, come back, and
    let the base one step.
    """
    seen: set[int] = set()
    while id(optimizer) not in seen:
        seen.add(id(optimizer))
        inner = getattr(optimizer, "optimizer", None)
        if inner is None:
            inner = getattr(optimizer, "base_optimizer", None)
            if getattr(inner, "param_groups", None) is not getattr(optimizer, "param_groups", None):
                break
        if not isinstance(inner, torch.optim.Optimizer):
            break
        optimizer = inner
    return optimizer


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Each name of each parameter, ties included, cleaned."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield clean_name(name), parameter
