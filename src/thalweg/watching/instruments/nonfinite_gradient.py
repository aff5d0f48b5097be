r"""How many entries of each gradient are NaN or infinite, counted only where the norm is.

.. math:: n_\ell = \#\{i : g_{\ell,i} \notin \mathbb{R}\}

A finite norm proves that no entry is bad, so the count costs nothing on healthy steps. On the CPU the norm's value
is known at once; on an accelerator, where reading it would stop the device, the count starts as soon as the
record shows a bad norm, some steps later.
"""

from collections.abc import Mapping, Sequence

import torch

from thalweg.core.cards import Card
from thalweg.tensor.local import local
from thalweg.watching.contracts import Array, Emits, Measured, Needs, Quantity, StepView, When

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


class NonfiniteGradient:
    """NaN and infinite entries of the gradients."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}), rides="gradient-norm")
    when = When.GRADIENT
    emits = (
        Emits(name="grad/nonfinite", unit="entries", reduce="sum"),
        Emits(name="grad/nonfinite", unit="entries", reduce="sum", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Counts, if the norm is bad (on the CPU) or was found bad lately (elsewhere)."""
        layers = view.layers(Quantity.GRAD)
        if not layers:
            return None
        finite = view.finite(Quantity.GRAD)
        if finite or (finite is None and not view.alarmed):
            return None
        counts = [(~torch.isfinite(local(g))).sum() for g in view.tensors(Quantity.GRAD)]
        return Measured({"count": torch.stack(counts)}, layers)

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Counts and their total."""
        return {"grad/nonfinite": raw["count"].sum(1), "grad/nonfinite/*": raw["count"]}
