r"""Share of coordinates in which the gradient and the optimizer's momentum have the same sign.

.. math:: a = \frac{\#\{i : g_i\, m_i > 0\}}{\#\{i : g_i\, m_i \ne 0\}}

Where they disagree, the momentum would move a weight against its present gradient: Cautious optimizers mask those
coordinates and Grams turns them round (Cao, Li and Song, "Grams: Gradient Descent with Adaptive Momentum
Scaling", 2024). The momentum already contains the present gradient, as in those methods. By a fixed sample.
"""

from collections.abc import Mapping, Sequence

import torch

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
    name="sign-agreement",
    kind="instrument",
    summary="Share of coordinates where gradient and momentum have the same sign.",
    papers=(322,),
    formula="a = #{i : g_i m_i > 0} / #{i : g_i m_i != 0}",
    symbols={"g": "gradient as applied", "m": "first moment or momentum buffer after the step"},
    needs="an optimizer with exp_avg or momentum_buffer",
    cost="gathers at most 4,096 coordinates a parameter, twice",
    signals=("momentum/sign_agreement", "momentum/sign_agreement/*"),
)


class SignAgreement(OfSums):
    """Sign agreement of gradient and momentum, by a fixed sample of coordinates."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD_SAMPLE, Quantity.MOMENTUM_SAMPLE}), shortest=10)
    when = (When.GRADIENT, When.UPDATE)
    emits = (
        Emits(name="momentum/sign_agreement", formula="ratio", estimator="sample of coordinates"),
        Emits(
            name="momentum/sign_agreement",
            formula="ratio",
            estimator="sample of coordinates",
            per_layer=True,
        ),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Take the gradient before the step (Nesterov's changes it in place), compare with the momentum after."""
        gradient = view.matrix(Quantity.GRAD_SAMPLE) if view.layers(Quantity.GRAD_SAMPLE) else None
        if view.moment is When.GRADIENT or gradient is None:
            return None
        momentum_rows = {name: i for i, name in enumerate(view.layers(Quantity.MOMENTUM_SAMPLE))}
        gradient_rows = view.layers(Quantity.GRAD_SAMPLE)
        both = [(i, momentum_rows[n]) for i, n in enumerate(gradient_rows) if n in momentum_rows]
        if not both:
            return None
        momentum = view.matrix(Quantity.MOMENTUM_SAMPLE)
        rows = [i for i, _ in both]
        signs = torch.sign(rows_of(gradient, rows)) * torch.sign(rows_of(momentum, [j for _, j in both]))
        sums = {"same": (signs > 0).sum(1), "counted": (signs != 0).sum(1)}
        scale = view.scale_of_sample(Quantity.GRAD_SAMPLE)
        return Measured(sums, tuple(gradient_rows[i] for i in rows), {"scale": [scale[i] for i in rows]})

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Coordinates of the same sign, and those that could be counted, scaled up to all elements."""
        same, counted = raw["same"] * facts["scale"], raw["counted"] * facts["scale"]
        return each_and_whole("momentum/sign_agreement", same, counted)
