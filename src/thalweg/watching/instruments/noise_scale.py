r"""Gradient noise scale: the batch size at which noise and signal in the gradient are equal.

.. math::
    |G|^2 \approx \frac{B_{big}\,|G_{big}|^2 - B_{small}\,|G_{small}|^2}{B_{big} - B_{small}}, \qquad
    S \approx \frac{|G_{small}|^2 - |G_{big}|^2}{1/B_{small} - 1/B_{big}}, \qquad
    \mathcal{B}_{simple} = \frac{\overline{S}}{\overline{|G|^2}}

The unbiased two-batch estimator of McCandlish et al., "An Empirical Model of Large-Batch Training" (2018, appendix
A). The small batch is the first micro-batch of an accumulated update, the big one all of them; both estimates are
averaged first and divided afterwards, since the mean of ratios is biased. The averages are over the last
20 measurements, with exponential weights.

It needs gradient accumulation, with micro-batches of one size. The loss may be divided by their number or not. The
unit is examples where the forward's first argument has a batch dimension, else micro-batches. Clipping changes the
big batch and not the small one: with ``watch.clip_grad_norm_`` the norm before it is used, and an update whose
gradients were changed in place by something else is left out, and the record says so. Whether something changed sharded
gradients can't be seen, so that they need ``watch.clip_grad_norm_``, if with an infinite limit. Under a GradScaler give it
to the watch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.core.cards import Card
from thalweg.record.formulas import Averages, evaluate, running_ratio
from thalweg.tensor.local import is_distributed
from thalweg.watching.contracts import (
    Array,
    Emits,
    Measured,
    Needs,
    NotSeenError,
    OfSums,
    Quantity,
    StepView,
    When,
)

CARD = Card(
    name="noise-scale",
    kind="instrument",
    summary="Gradient noise scale from accumulation micro-batches, as a ratio of averages.",
    papers=(1001,),
    formula="B_simple = mean(S) / mean(|G|^2)",
    symbols={
        "S": "trace of the per-example gradient covariance",
        "G": "the true gradient",
        "B_simple": "noise scale, in examples",
    },
    needs="gradient accumulation, two or more backward passes of equal size; clipping (or shards) by watch.clip_grad_norm_; scaler=",
    cost="one further pass over the gradients",
    signals=("noise/scale", "noise/trace", "noise/gradient_squared"),
)

LARGEST_RATIO = 1e4
"""Above this many times what pure noise would give, the small batch was measured under a loss scale, and is left out."""

CLIPPED = (
    "The gradients were changed in place after the last backward pass, as torch.nn.utils.clip_grad_norm_ does, and the "
    "noise scale compares them with those of the first micro-batch: such an update is left out. "
    "watch.clip_grad_norm_(max_norm) clips just so, and hands over the norm before it."
)


class NoiseScale(OfSums):
    """Noise scale from the first micro-batch and the whole accumulated batch."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}), shortest=5)
    when = (When.MICRO_BATCH, When.GRADIENT)
    emits = (
        Emits(
            name="noise/scale",
            role="noise scale",
            unit="examples",
            formula="running ratio",
            estimator="two batches, ratio of averages",
        ),
        Emits(name="noise/trace", formula="within", estimator="two batches, unbiased, one step"),
        Emits(name="noise/gradient_squared", formula="within", estimator="two batches, unbiased, one step"),
    )

    def __init__(self) -> None:
        self._small: tuple[int, tuple[str, ...], Tensor, int, int] | None = None
        self._averages: Averages = (0.0, 0.0, 0.0)

    def measure(self, view: StepView) -> Measured | None:
        """Sum of squares after the first backward pass, then of the whole accumulated gradient."""
        if view.moment is When.MICRO_BATCH:
            if view.micro_batches == 1 and view.layers(Quantity.GRAD):
                self._small = (
                    view.step,
                    view.layers(Quantity.GRAD),
                    view.sumsq(Quantity.GRAD),
                    view.examples,
                    _writes(view),
                )
            return None
        small, self._small = self._small, None
        if small is None or small[0] != view.step or view.micro_batches < 2:
            return None
        names, first, examples = small[1], small[2], small[3] or 1
        uneven = view.examples and view.examples != examples * view.micro_batches
        later = view.micro_batches - 1
        copied = 0 if view.ranks == 1 else 1 if view.unreduced else later  # DDP copies what it has reduced
        layers, unclipped = view.layers(Quantity.GRAD), view.unclipped
        unseen = any(map(is_distributed, view.tensors(Quantity.GRAD)))  # what clips these leaves no trace
        clipped = unseen or _writes(view) - small[4] > later + copied
        if uneven or not set(names) <= set(layers) or (unseen and unclipped is None):
            return None
        if clipped and unclipped is None:
            raise NotSeenError(CLIPPED)
        if names != layers:
            known = dict(zip(names, first.unbind(), strict=True))
            first = torch.stack([known.get(name, first.new_zeros(())) for name in layers])
        big = view.sumsq(Quantity.GRAD) if unclipped is None else unclipped.to(first).square()
        sums = {"small": first, "big": big}
        alone = 1 if view.unreduced else view.ranks
        facts = {"batches": view.micro_batches, "examples": examples * alone, "more": view.ranks / alone}
        return Measured(sums, layers, {name: float(value) for name, value in facts.items()})

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """The unbiased estimates of each step, and what tells whether the small batch can be used.

        Gradients are taken as means over their batches: the accumulated one is divided by the number of
        micro-batches, the small one taken as it is, whatever constant the loss was divided by; that constant
        squared is in the trace and the squared gradient, and cancels in the noise scale. Under DDP the accumulated
        gradient is over the examples of all ranks; the small one too, unless its backward pass was in ``no_sync``, and
        always where gradients are sharded.
        """
        k, b = facts["batches"], facts["examples"]
        small, big = _whole(raw["small"]), _whole(raw["big"]) / k**2
        ratio = k * facts.get("more", 1.0)
        squared = (ratio * big - small) / (ratio - 1)
        trace = (small - big) / (1 / b - 1 / (ratio * b))
        usable = (small, LARGEST_RATIO * k * big)
        return {
            "noise/trace": np.stack([trace, *usable], -1),
            "noise/gradient_squared": np.stack([squared, *usable], -1),
            "noise/scale": np.stack([trace, squared, *usable], -1),
        }

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """The estimates, and the ratio of their averages, which go on from those before."""
        sums = self.sums(raw, facts, layers)
        trace, squared = (evaluate("within", sums[n]) for n in ("noise/trace", "noise/gradient_squared"))
        scale, self._averages = running_ratio(trace, squared, self._averages)
        return {"noise/scale": scale, "noise/trace": trace, "noise/gradient_squared": squared}

    def state_dict(self) -> dict[str, Any]:
        """The running averages."""
        return {"averages": [float(v) for v in self._averages]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved averages."""
        weight, s, g = state["averages"]
        self._averages = (float(weight), float(s), float(g))


def _writes(view: StepView) -> int:
    """How often the first gradient was written in place: once a backward pass, and once when it was clipped."""
    return view.tensors(Quantity.GRAD)[0]._version


def _whole(sums: Array) -> Array:
    """Totals [steps] of sums [steps, layers], or of what is total already."""
    return sums.sum(1) if sums.ndim == 2 else sums
