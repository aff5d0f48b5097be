r"""Effective learning rate of layers whose scale doesn't matter.

.. math:: \eta_{\mathrm{eff}} = \eta / \|w\|^2 \ \text{(SGD)}, \qquad \eta / \|w\| \ \text{(Adam and other normalised updates)}

A weight followed by a normalization can be scaled without changing the function, so its norm acts only through the
rate (van Laarhoven, "L2 Regularization versus Batch and Weight Normalization", 2017). A layer counts as
scale-invariant when it is a Linear or convolution directly followed, in the order in which modules were added, by a
BatchNorm that is not frozen, an InstanceNorm or a GroupNorm with one channel a group, which take the bias out as
well; or, where it has no bias, by another GroupNorm or a LayerNorm over its outputs.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.core.cards import Card
from thalweg.tensor.sumsq import sumsq
from thalweg.tensor.unwrapping import clean_name
from thalweg.watching.contracts import Array, Emits, Measured, Needs, OfSums, Quantity, StepView, When

CARD = Card(
    name="effective-rate",
    kind="instrument",
    summary="Learning rate over the squared norm (SGD) or the norm (Adam) of scale-invariant weights.",
    papers=(25,),
    formula="eta_eff = eta / ||w||^2 for SGD;  eta / ||w|| for updates of normalized size",
    symbols={"eta": "learning rate of the weight's group", "w": "a weight followed by a normalization"},
    needs="Linear or convolution layers directly followed by a normalization",
    cost="one pass over those weights",
    signals=("rate/effective/*",),
)

_READERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_SQUARED = ("SGD", "ASGD", "LBFGS")


class EffectiveRate(OfSums):
    """Effective rates of scale-invariant weights."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.PARAM}), shortest=20)
    when = When.GRADIENT
    emits = (Emits(name="rate/effective", formula="inverse power", per_layer=True),)

    def measure(self, view: StepView) -> Measured | None:
        """Sums of squares of those weights, with their groups' rates and the power of the norm."""
        optimizer = view.optimizer
        invariant = set(view.scale_invariant)
        rows = [r for r in view.table.rows if r.name in invariant]
        if optimizer is None or not rows:
            return None
        power = 2.0 if type(optimizer).__name__ in _SQUARED else 1.0
        rates = [optimizer.param_groups[r.group].get("lr", float("nan")) for r in rows]
        values = {"sumsq": sumsq([r.parameter for r in rows])}
        facts: dict[str, float | list[float]] = {"power": power}
        if any(isinstance(rate, Tensor) and rate.device.type != "cpu" for rate in rates):
            values["same:rate"] = torch.stack([_on(rows[0].parameter.device, rate) for rate in rates])
        else:
            facts["rate"] = [float(rate) for rate in rates]
        return Measured(values, tuple(r.name for r in rows), facts)

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Sums of squares in units of a power of the rate; half the norm's power, once a rank, and the ranks."""
        rate = raw["same:rate"] if "same:rate" in raw else facts["rate"]
        half = facts["power"][:, None] / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.broadcast_arrays(raw["sumsq"] / rate ** (1 / half), half, 1.0)
        return {"rate/effective/*": np.stack(parts, -1)}


def _on(device: torch.device, rate: float | Tensor) -> Tensor:
    """A rate on the device, without waiting for it: a number is filled in, not copied."""
    if isinstance(rate, Tensor):
        return rate.detach().reshape(()).to(device, torch.float32, non_blocking=True)
    return torch.full((), rate, device=device)


def scale_invariant_weights(model: nn.Module) -> list[str]:
    """Canonical names of the weights directly followed by a normalization over their outputs."""
    found: list[str] = []
    for path, parent in model.named_modules():
        children = list(parent.named_children())
        for (name, child), (_, following) in pairwise(children):
            if isinstance(child, _READERS) and _normalizes(following, child):
                found.append(clean_name(f"{path}.{name}.weight" if path else f"{name}.weight"))
    return found


def _normalizes(norm: nn.Module, reader: nn.Module) -> bool:
    outputs = next(reader.parameters()).shape[0]
    unbiased = all(name != "bias" for name, _ in reader.named_parameters())
    if isinstance(norm, _CHANNEL_NORMS):
        return bool(norm.num_features == outputs) and (norm.training or not norm.track_running_stats)
    if isinstance(norm, nn.GroupNorm):
        alone = norm.num_groups == norm.num_channels
        return norm.num_channels == outputs and (alone or unbiased)
    return (
        isinstance(norm, nn.LayerNorm)
        and isinstance(reader, nn.Linear)
        and unbiased
        and norm.normalized_shape == (outputs,)
    )
