"""Activations and logits of a compiled model: an eager look over the held batch.

Module hooks break or silently miss compiled graphs. The eager module inside the compiled one is run on the batch
that the user keeps aside, in evaluation mode (so that no running average moves), with every random state restored.
Nothing is differentiated, but a graph is made: that an input needs a gradient is how units are told from data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from thalweg.tensor.randomness import preserved_randomness
from thalweg.tensor.unwrapping import inner_model
from thalweg.watching.contracts import HeldBatch


def can_look(model: nn.Module) -> bool:
    """Whether there is an eager module to run: ``torch.compile(model)`` keeps one, ``model.compile()`` does not."""
    return not any(getattr(m, "_compiled_call_impl", None) is not None for m in inner_model(model).modules())


def look(model: nn.Module, held: HeldBatch) -> Any:
    """Run the eager module on the held batch; hooks on it see the forward."""
    inner = inner_model(model)
    with torch.enable_grad(), preserved_randomness(), _evaluating(inner):
        return held(inner)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
