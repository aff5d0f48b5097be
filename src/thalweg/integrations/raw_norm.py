"""The norm of the gradient before the library clips it: as it returns it, or measured just before."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from thalweg.integrations.overhearing import Overheard
from thalweg.tensor.local import is_distributed
from thalweg.tensor.sumsq import sumsq
from thalweg.watching import Watch


def measure_norm(watch: Watch, optimizer: torch.optim.Optimizer, max_norm: float, index: int = 0) -> None:
    """Measure and record the norm of an optimizer's gradients, at the steps at which gradient norms are due."""
    if not watch.is_due("gradient-norm", index):
        return
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if grads and not any(is_distributed(g) for g in grads):
        with torch.no_grad():
            watch.record_clipping(sumsq(grads).sum().sqrt(), max_norm, index)


def overhear_clipping(accelerator: Any, watch: Watch, failed: Any) -> Overheard:
    """Record what an ``Accelerator``'s ``clip_grad_norm_`` returns at each step on which it clips."""

    def tell(norm: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        try:
            max_norm = kwargs.get("max_norm", args[1] if len(args) > 1 else math.inf)
            norm_type = kwargs.get("norm_type", args[2] if len(args) > 2 else 2)
            if norm is not None and norm_type == 2 and accelerator.sync_gradients and max_norm < math.inf:
                watch.record_clipping(norm, max_norm)
        except Exception as error:
            failed("clip_grad_norm_", error)

    return Overheard(accelerator, "clip_grad_norm_", tell)
