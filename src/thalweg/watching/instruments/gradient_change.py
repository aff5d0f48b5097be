r"""How the gradient turns and changes from one step to the next.

.. math:: \cos_t = \frac{\langle g_t, g_{t-1}\rangle}{\|g_t\|\,\|g_{t-1}\|}, \qquad
          c_t = \frac{\|g_t - g_{t-1}\|}{\|g_{t-1}\|}

The change between successive gradients is what diffGrad's friction is made of (Dubey et al., "diffGrad: An
Optimization Method for Convolutional Neural Networks", 2019). A cosine near -1 is an oscillation along the steepest
direction; near 0, noise. By a fixed sample of coordinates; exact for parameters no larger than the sample.
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
from thalweg.watching.sampling import rows_of

CARD = Card(
    name="gradient-change",
    kind="instrument",
    summary="Cosine between successive gradients, and their difference relative to the earlier one.",
    papers=(229,),
    formula="cos = <g_t, g_(t-1)> / (||g_t|| ||g_(t-1)||);  change = ||g_t - g_(t-1)|| / ||g_(t-1)||",
    symbols={"g_t": "gradient at step t, as applied"},
    needs="dense gradients at two successive steps",
    cost="gathers at most 4,096 coordinates a parameter, at two steps",
    signals=("grad/cosine", "grad/change", "grad/cosine/*", "grad/change/*"),
)


class GradientChange(OfSums):
    """Cosine and relative difference of successive gradients, by a fixed sample of coordinates."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD_SAMPLE, Quantity.PREVIOUS_GRAD_SAMPLE}), shortest=10)
    when = When.GRADIENT
    emits = (
        Emits(name="grad/cosine", formula="cosine", estimator="sample of coordinates"),
        Emits(name="grad/change", formula="change", estimator="sample of coordinates"),
        Emits(name="grad/cosine", formula="cosine", estimator="sample of coordinates", per_layer=True),
        Emits(name="grad/change", formula="change", estimator="sample of coordinates", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Products of the two samples."""
        layers = view.layers(Quantity.PREVIOUS_GRAD_SAMPLE)
        if not layers:
            return None
        now, before = view.matrix(Quantity.GRAD_SAMPLE), view.matrix(Quantity.PREVIOUS_GRAD_SAMPLE)
        if len(layers) != len(now):
            at = {name: i for i, name in enumerate(view.layers(Quantity.GRAD_SAMPLE))}
            now = rows_of(now, [at[name] for name in layers])
        now, before = now.double(), before.double()
        sums = {"dot": (now * before).sum(1), "now": now.square().sum(1), "before": before.square().sum(1)}
        return Measured(sums, layers, {"scale": view.scale_of_sample(Quantity.PREVIOUS_GRAD_SAMPLE)})

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """The three products of both gradients, scaled up to all elements."""
        products = [raw[k] * facts["scale"] for k in ("dot", "now", "before")]
        return each_and_whole("grad/cosine", *products) | each_and_whole("grad/change", *products)
