r"""Share of gradient entries that are exactly zero.

.. math:: z_\ell = \#\{i : g_{\ell,i} = 0\} / n_\ell

Entries are zero where units are dead, tokens did not occur, or half precision flushed them away.
"""

from collections.abc import Mapping, Sequence

import torch

from thalweg.core.cards import Card
from thalweg.tensor.local import local
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
    name="zero-gradient",
    kind="instrument",
    summary="Share of gradient entries that are exactly zero, total and per parameter.",
    formula="z_l = #{i : g_li = 0} / n_l",
    symbols={"g": "gradient as applied", "n_l": "elements of the parameter"},
    needs="gradients",
    cost="one pass over the gradients",
    signals=("grad/zero_share", "grad/zero_share/*"),
)


class ZeroGradient(OfSums):
    """Share of exact zeros in the gradients."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.GRAD}), shortest=50)
    when = When.GRADIENT
    emits = (
        Emits(name="grad/zero_share", formula="ratio"),
        Emits(name="grad/zero_share", formula="ratio", per_layer=True),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Entries that are not zero; of a sparse gradient, those among its values."""
        layers = view.layers(Quantity.GRAD)
        if not layers:
            return None
        filled = [torch.count_nonzero(local(g)) for g in view.tensors(Quantity.GRAD)]
        elements = [float(n) for n in view.elements(Quantity.GRAD)]
        return Measured({"filled": torch.stack(filled), "elements": elements}, layers)

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Zeros, and all elements."""
        return each_and_whole("grad/zero_share", raw["elements"] - raw["filled"], raw["elements"])
