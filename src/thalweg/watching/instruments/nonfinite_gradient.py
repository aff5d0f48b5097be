r"""How many entries of each gradient are NaN or infinite, counted only where the norm is.

.. math:: n_\ell = \#\{i : g_{\ell,i} \notin \mathbb{R}\}

A finite norm proves that no entry is bad, so the count costs nothing on healthy steps. On the CPU the norm's value
is known at once; on an accelerator, where reading it would stop the device, the count starts as soon as the
record shows a bad norm, some steps later.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from thalweg.core.cards import Card
from thalweg.tensor.local import is_sharded, local
from thalweg.watching.contracts import (
    Array,
    Emits,
    Measured,
    Needs,
    OfSums,
    Quantity,
    StepView,
    When,
    each_and_whole,
)

CARD = Card(
    name="nonfinite-gradient",
    kind="instrument",
    summary="Number of NaN and infinite gradient entries per parameter, counted once the norm is not finite.",
    formula="n_l = #{i : g_li is NaN or infinite}",
    symbols={"g": "gradient", "l": "index of the parameter"},
    needs="gradients; runs with gradient-norm",
    cost="nothing until a norm is bad; then one pass over the gradients",
    signals=("grad/nonfinite", "grad/nonfinite/*"),
)


class NonfiniteGradient(OfSums):
    """NaN and infinite entries of the gradients."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}), rides="gradient-norm")
    when = When.GRADIENT
    emits = (
        Emits(name="grad/nonfinite", unit="entries", formula="sum", reduce="count"),
        Emits(name="grad/nonfinite", unit="entries", formula="sum", reduce="count", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Counts, if the norm is bad (on the CPU) or was found bad lately (elsewhere).

        Of shards whose norms only the device knows, and that were not found bad: NaN for a bad one, so that other
        ranks' counts are not taken for the whole.
        """
        layers = view.layers(Quantity.GRAD)
        if not layers:
            return None
        finite = view.finite(Quantity.GRAD)
        gradients = view.tensors(Quantity.GRAD)
        if finite is None and not view.alarmed and any(map(is_sharded, gradients)):
            squares = view.sumsq(Quantity.GRAD)
            return Measured({"unknown": torch.where(torch.isfinite(squares), 0.0, torch.nan)}, layers)
        if finite or (finite is None and not view.alarmed):
            return None
        counts = [(~torch.isfinite(local(g))).sum() for g in gradients]
        return Measured({"count": torch.stack(counts)}, layers)

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Counts; masked where none of what is unknown is bad."""
        if "count" in raw:
            return each_and_whole("grad/nonfinite", raw["count"])
        quiet = (raw["unknown"] == 0).all(1)
        found = each_and_whole("grad/nonfinite", raw["unknown"])
        return {
            n: np.ma.MaskedArray(x, np.broadcast_to(quiet.reshape(-1, *[1] * (x.ndim - 1)), x.shape))
            for n, x in found.items()
        }
