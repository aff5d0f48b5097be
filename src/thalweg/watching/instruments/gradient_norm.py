r"""Norm of the gradient, of the whole model and of each parameter.

.. math:: \|g\| = \sqrt{\sum_\ell \|g_\ell\|^2}, \qquad \|g_\ell\|^2 = \sum_i g_{\ell,i}^2

The gradient is the one the optimizer applies: after clipping, and divided by the loss scale under mixed
precision. Per-parameter norms are the flight recorder: measured at every step where that is cheap, stored every
few steps, and in full around a spike.
"""

from collections.abc import Mapping, Sequence

from thalweg.core.cards import Card
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
    name="gradient-norm",
    kind="instrument",
    summary="Norm of the gradient that the optimizer applies, total and per parameter.",
    formula="||g|| = sqrt(sum_l ||g_l||^2)",
    symbols={"g": "gradient after clipping, unscaled", "l": "index of the parameter"},
    needs="gradients",
    cost="one pass over the gradients",
    signals=("grad/norm", "grad/norm/*"),
)


class GradientNorm(OfSums):
    """Norm of the applied gradient, total and per parameter."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}))
    when = When.GRADIENT
    emits = (
        Emits(name="grad/norm", role="gradient norm", stage="applied", formula="root"),
        Emits(name="grad/norm", stage="applied", formula="root", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Sums of squares of the gradients."""
        layers = view.layers(Quantity.GRAD)
        return Measured({"sumsq": view.sums(Quantity.GRAD)}, layers) if layers else None

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Sums of squares."""
        return each_and_whole("grad/norm", raw["sumsq"])
