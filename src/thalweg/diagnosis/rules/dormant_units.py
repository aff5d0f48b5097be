"""Units whose activation is small against their layer, and that become more and more.

s_i = E_x |h_i(x)| / (1/H sum_k E_x |h_k(x)|); a unit is dormant where s_i <= tau = 0.1. In deep reinforcement learning,
where the phenomenon was described, their share grows with training and the network loses what it could express.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import column_medians
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="dormant-units",
    kind="rule",
    summary="A growing share of a layer's units is nearly silent: the network loses capacity.",
    papers=(183,),
    formula="s_i = E|h_i| / mean_k E|h_k| <= tau for more than half of a layer's units, and grown by 0.25 or more",
    symbols={"h_i": "activation of unit i", "tau": "0.1"},
    needs="a forward through the watched model",
)
PAGE = Page(
    what="Dormant units hardly contribute to what the next layer gets. Where their share grows, the network behaves like a "
    "narrower one and learns new things worse: it matters most where the data change, as in reinforcement and continual "
    "learning.",
    causes=(
        "targets that change (reinforcement learning, continual learning) with many updates for each new example",
        "a rate too high, or a spike: the units were pushed to where they don't respond",
        "a network much wider than the task needs; then it costs nothing",
    ),
    apart={
        "dead-units": "exactly zero for every example; if most dormant units are dead, that is the finding",
        "sparse features": "a share that is high from the start and doesn't grow",
        "the loss falls as before": "a note: on fixed data narrow solutions are usual",
    },
    remedy=(
        "in reinforcement learning reset the dormant units from time to time (ReDo), or lower the replay ratio",
        "lower the rate; use LayerNorm before the activation; add weight decay",
    ),
    tried="tau is the paper's for runs that go on learning (Atari agents). On small MLPs, CNNs and GPTs healthy layers have "
    "up to 0.45 dormant units, a share that falls or stays.",
    explains=("plateau",),
)
_SHARE = 0.5
_GROWTH = 0.25
_DEAD = 0.8  # of the dormant ones: then it is the other rule's finding
_LEAST = 4


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding: the layer whose share grew most."""
    matrix, dead = view.layers("units/dormant"), view.layers("units/dead")
    assert matrix is not None
    part = max(_LEAST // 2, len(matrix.steps) // 5)
    first, last = column_medians(matrix.values[:part]), column_medians(matrix.values[-part:])
    with np.errstate(invalid="ignore"):
        high = np.flatnonzero((last >= _SHARE) & (last - first >= _GROWTH))
    if dead is not None:
        lost = dict(zip(dead.layers, column_medians(dead.values[-part:]), strict=True))
        high = np.array([i for i in high if not lost.get(matrix.layers[i], 0.0) >= _DEAD * last[i]], int)
    if not len(high):
        return []
    worst = int(high[np.argmax((last - first)[high])])
    where, values = matrix.layers[worst], matrix.values[:, worst]
    begins = int(matrix.steps[np.argmax(values >= first[worst] + _GROWTH)])
    slower = _stalled(view, begins)
    curves = (view.named(f"units/dormant/{where}"), view.loss)
    return [
        Finding(
            kind=CARD.name,
            title=f"{last[worst]:.0%} of the units that {where} reads are dormant, {first[worst]:.0%} in the beginning",
            severity="warning" if slower else "note",
            confidence=0.7 if slower else 0.5,
            first_step=begins,
            last_step=int(matrix.steps[-1]),
            where=where,
            evidence=Evidence(
                text=f"The share of units with less than a tenth of the layer's mean activation grew from {first[worst]:.0%} "
                f"to {last[worst]:.0%} in {where}, and as far in {len(high) - 1} other layers"
                + ("; the loss has not fallen since." if slower else "; the loss went on falling."),
                numbers={
                    "share": float(last[worst]),
                    "first_share": float(first[worst]),
                    "layers": len(high),
                },
                plot=Plot(
                    signals=tuple(c.name for c in curves if c is not None), marks={"a quarter more": begins}
                ),
            ),
            remedy=instruction(PAGE.remedy[1]),
            papers=CARD.papers,
        )
    ]


def _stalled(view: RunView, since: int) -> bool:
    """Whether the loss at the end is no lower than when the units fell silent."""
    loss = view.loss
    if loss is None or not (loss.steps >= since).any():
        return False
    width = max(5, len(loss) // 20)
    place = int(np.searchsorted(loss.steps, since))
    then = float(np.median(loss.values[max(0, place - width // 2) : place + width // 2 + 1]))
    return float(np.median(loss.values[-width:])) >= 0.98 * then


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(name="units/dormant", layers=True, least=_LEAST),),
    check=check,
)
