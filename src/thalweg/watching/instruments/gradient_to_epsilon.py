r"""Root-mean-square gradient of each parameter against the optimizer's epsilon.

.. math:: q_\ell = \frac{\mathrm{rms}(g_\ell)}{\epsilon}, \qquad \mathrm{rms}(g_\ell) = \|g_\ell\| / \sqrt{n_\ell}

Where it comes near 1, epsilon dominates Adam's denominator and the update of that parameter shrinks: one of the two
instabilities that small models foretell (Wortsman et al., "Small-scale proxies for large-scale Transformer training
instabilities", 2023).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, OfSums, Quantity, StepView, When

CARD = Card(
    name="gradient-to-epsilon",
    kind="instrument",
    summary="Root-mean-square gradient of each parameter divided by the optimizer's epsilon.",
    papers=(14,),
    formula="q_l = rms(g_l) / eps,  rms(g_l) = ||g_l|| / sqrt(n_l)",
    symbols={
        "g": "gradient as applied",
        "n_l": "elements of the parameter",
        "eps": "the optimizer's epsilon",
    },
    needs="an optimizer whose groups have eps",
    cost="nothing beyond gradient-norm's pass",
    signals=("grad/rms_to_epsilon", "grad/rms_to_epsilon/*"),
)


class GradientToEpsilon(OfSums):
    """Gradient RMS over epsilon, per parameter, and the smallest of all as the total."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}), shortest=20)
    when = When.GRADIENT
    emits = (
        Emits(
            name="grad/rms_to_epsilon", formula="smallest root ratio", estimator="smallest over parameters"
        ),
        Emits(name="grad/rms_to_epsilon", formula="root ratio", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """The gradients' sums of squares, with each row's size and epsilon."""
        layers = view.layers(Quantity.GRAD)
        epsilons = dict.fromkeys(layers, 0.0)
        for row in view.table.rows if view.optimizer is not None else ():
            if row.name in epsilons:
                epsilons[row.name] = float(view.optimizer.param_groups[row.group].get("eps") or 0.0)
        if not any(epsilons.values()):
            return None
        elements = [float(n) for n in view.elements(Quantity.GRAD)]
        return Measured(
            {"sumsq": view.sumsq(Quantity.GRAD), "elements": elements},
            layers,
            {"eps": list(epsilons.values())},
        )

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Sums of squares in units of epsilon, infinite where a group has none, and elements."""
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.stack([raw["sumsq"] / facts["eps"] ** 2, raw["elements"]], -1)
        return {"grad/rms_to_epsilon": each.reshape(len(each), -1), "grad/rms_to_epsilon/*": each}
