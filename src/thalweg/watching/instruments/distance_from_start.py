r"""How far the weights are from where the run began.

.. math:: d_\ell = \|w_\ell^t - w_\ell^0\|

Under a constant rate it grows like the logarithm of the number of updates (Hoffer, Hubara and Soudry, "Train
longer, generalize better", 2017). Measured on a fixed sample of coordinates and scaled up; exact for parameters of
no more elements than the sample.
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
    name="distance-from-start",
    kind="instrument",
    summary="Distance of the weights from their initial values, total and per parameter.",
    papers=(62,),
    formula="d_l = ||w_l(t) - w_l(0)||",
    symbols={"w": "parameter", "t": "number of updates done", "l": "index of the parameter"},
    needs="parameters; a kept sample of the initial ones",
    cost="gathers at most 4,096 coordinates a parameter",
    signals=("weight/distance", "weight/distance/*"),
)


class DistanceFromStart(OfSums):
    """Distance from initialization, by a fixed sample of coordinates."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.PARAM_SAMPLE, Quantity.INITIAL_SAMPLE}), shortest=20)
    when = When.GRADIENT
    emits = (
        Emits(name="weight/distance", formula="root", estimator="sample of coordinates"),
        Emits(name="weight/distance", formula="root", estimator="sample of coordinates", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Sums of squares of the differences over the sample."""
        layers = view.layers(Quantity.INITIAL_SAMPLE)
        if not layers:
            return None
        difference = view.matrix(Quantity.PARAM_SAMPLE) - view.matrix(Quantity.INITIAL_SAMPLE)
        squares = difference.double().square().sum(1)
        return Measured({"sumsq": squares}, layers, {"scale": view.scale_of_sample(Quantity.PARAM_SAMPLE)})

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Sums of squares, scaled up to all elements."""
        return each_and_whole("weight/distance", raw["sumsq"] * facts["scale"])
