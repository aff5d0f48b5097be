r"""The update that was really applied: its norm, and its ratio to the weight.

.. math:: \Delta_\ell = w_\ell^{t+1} - w_\ell^t, \qquad r_\ell = \|\Delta_\ell\| / \|w_\ell^t\|

Measured from copies made before the step, so momentum, preconditioning, weight decay and skipped steps are all
in it. Where copies of all parameters would exceed the watch's memory, parameters take turns, and a total joins one
round of turns, at the step that completes it; of a parameter that is too large for any turn a fixed sample of
coordinates is copied, and the sums are scaled up.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, Quantity, StepView, When

CARD = Card(
    name="applied-update",
    kind="instrument",
    summary="Norm of the update really applied and its ratio to the weight, total and per parameter; weight norms.",
    formula="Delta_l = w_l(t+1) - w_l(t);  ratio_l = ||Delta_l|| / ||w_l(t)||",
    symbols={"w": "parameter", "t": "number of updates done", "l": "index of the parameter"},
    needs="parameters; copies of those whose turn it is",
    cost="a copy and two passes over the parameters",
    signals=(
        "update/norm",
        "update/ratio",
        "weight/norm",
        "update/norm/*",
        "update/ratio/*",
        "weight/norm/*",
    ),
)


class AppliedUpdate:
    """Norms of the applied update and of the weights before it."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.UPDATE, Quantity.BEFORE}), shortest=10)
    when = When.UPDATE
    emits = (
        Emits(name="update/norm", role="update norm", reduce="norm"),
        Emits(name="weight/norm", role="weight norm", reduce="norm"),
        Emits(name="update/ratio", role="update ratio"),
        Emits(name="update/norm", reduce="norm", per_layer=True),
        Emits(name="weight/norm", reduce="norm", per_layer=True),
        Emits(name="update/ratio", per_layer=True),
    )

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[float, float]]] = {}

    def measure(self, view: StepView) -> Measured | None:
        """Sums of squares of the updates and of the weights before them, of the rows whose turn it is."""
        layers = view.layers(Quantity.UPDATE)
        if not layers:
            return None
        sums = {"before": view.sumsq(Quantity.BEFORE), "update": view.sumsq(Quantity.UPDATE)}
        return Measured(sums, layers, {"rows": float(len(view.table.rows))})

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Norms and ratios; totals where this turn completes all rows."""
        update, before = raw["update"], raw["before"]
        out = {
            "update/norm/*": np.sqrt(update),
            "weight/norm/*": np.sqrt(before),
            "update/ratio/*": ratio(update, before),
        }
        if len(layers) == int(facts["rows"][-1]):
            return out | _totals(update.sum(1), before.sum(1))
        return out | _totals(*self._rounds(layers, update, before, int(facts["rows"][-1])))

    def _rounds(
        self, layers: Sequence[str], update: Array, before: Array, rows: int
    ) -> tuple[np.ma.MaskedArray[Any, Any], np.ma.MaskedArray[Any, Any]]:
        """Totals over rounds of turns: at the steps whose turn completes a round, masked at the others."""
        totals = np.ma.MaskedArray(np.zeros((2, len(update))), mask=True)
        for i, (u, b) in enumerate(zip(update, before, strict=True)):
            for name, pair in zip(layers, zip(u, b, strict=True), strict=True):
                self._waiting.setdefault(name, deque(maxlen=1024)).append(pair)
            if len(self._waiting) == rows and all(self._waiting.values()):
                totals[:, i] = np.sum([turns.popleft() for turns in self._waiting.values()], axis=0)
        return totals[0], totals[1]


def _totals(update: Array, before: Array) -> dict[str, Array]:
    return {
        "update/norm": np.sqrt(update),
        "weight/norm": np.sqrt(before),
        "update/ratio": ratio(update, before),
    }


def ratio(squares: Array, of: Array) -> Array:
    """sqrt(squares / of): infinite where only ``of`` is 0, NaN where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(squares / of)
