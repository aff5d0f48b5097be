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
from thalweg.watching.contracts import Array, Emits, Measured, Needs, OfSums, Quantity, StepView, When

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


class AppliedUpdate(OfSums):
    """Norms of the applied update and of the weights before it."""

    card = CARD
    needs = Needs(quantities=frozenset({Quantity.UPDATE, Quantity.BEFORE}), shortest=10)
    when = When.UPDATE
    emits = (
        Emits(name="update/norm", role="update norm", formula="root"),
        Emits(name="weight/norm", role="weight norm", formula="root"),
        Emits(name="update/ratio", role="update ratio", formula="root ratio"),
        Emits(name="update/norm", formula="root", per_layer=True),
        Emits(name="weight/norm", formula="root", per_layer=True),
        Emits(name="update/ratio", formula="root ratio", per_layer=True),
    )

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Array]] = {}

    def measure(self, view: StepView) -> Measured | None:
        """Sums of squares of the updates and of the weights before them, of the rows whose turn it is."""
        layers = view.layers(Quantity.UPDATE)
        if not layers:
            return None
        sums = {"before": view.sumsq(Quantity.BEFORE), "update": view.sumsq(Quantity.UPDATE)}
        return Measured(sums, layers, {"rows": float(len(view.table.rows))})

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Sums of squares of updates and weights; totals where this turn completes all rows."""
        each = np.stack([raw["update"], raw["before"]], -1)
        rows = int(facts["rows"][-1])
        whole = each.sum(1) if len(layers) == rows else self._rounds(layers, each, rows)
        ways = (("update/norm", slice(1)), ("weight/norm", slice(1, 2)), ("update/ratio", slice(2)))
        return {f"{n}/*": each[..., k] for n, k in ways} | {n: whole[..., k] for n, k in ways}

    def _rounds(self, layers: Sequence[str], each: Array, rows: int) -> np.ma.MaskedArray[Any, Any]:
        """[steps, 2] totals over rounds of turns: at the steps whose turn completes a round, masked at the others."""
        totals = np.ma.MaskedArray(np.zeros((len(each), 2)), mask=True)
        for i, pairs in enumerate(each):
            for name, pair in zip(layers, pairs, strict=True):
                self._waiting.setdefault(name, deque(maxlen=1024)).append(pair)
            if len(self._waiting) == rows and all(self._waiting.values()):
                totals[i] = np.sum([turns.popleft() for turns in self._waiting.values()], axis=0)
        return totals
