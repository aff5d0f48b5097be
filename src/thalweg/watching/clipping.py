r"""Gradient clipping by norm, and the norm before it.

.. math:: g \leftarrow g \cdot \min\left(1, \frac{c}{\|g\|}\right)

What an optimizer applies says nothing of the gradient before clipping: a run whose norm sits at the limit may be
calm or wild. ``watch.clip_grad_norm_`` clips exactly as torch's function does and records the norm it returns.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from thalweg.core.cards import Card
from thalweg.tensor.local import counts_here, local
from thalweg.watching.contracts import Array, Emits, Measured, Needs, OfSums, Quantity, StepView, When

CARD = Card(
    name="clipping",
    kind="instrument",
    summary="Norm of the gradient before clipping, and whether the step was clipped.",
    formula="g <- g min(1, c / ||g||);  clipped: ||g|| > c",
    symbols={"g": "gradient", "c": "the limit, max_norm"},
    needs="clipping through watch.clip_grad_norm_",
    cost="nothing beyond the clipping itself",
    signals=("grad/norm_raw", "grad/clipped"),
)


class Clipping(OfSums):
    """The raw norm and the clipped steps; called by ``watch.clip_grad_norm_``, not by the plan."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}))
    when = When.GRADIENT
    emits = (
        Emits(name="grad/norm_raw", role="gradient norm", stage="raw", formula="root"),
        Emits(name="grad/clipped", formula="above one", estimator="1 where the norm exceeded the limit"),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Nothing: the clipping itself hands the norm over."""
        return None

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """The square of the norm, as it is and in units of the limit."""
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = raw["norm"] / facts["max_norm"]
        return {"grad/norm_raw": raw["norm"][:, None] ** 2, "grad/clipped": relative[:, None] ** 2}


def part_of_norm(total: Tensor, rank: int) -> Tensor:
    """What this rank adds to the norm that torch's function returned: its shards' norm, or zero for a replica."""
    part = local(total)
    return part if counts_here(total, rank) else torch.zeros_like(part)
