"""Normalized layers with weight decay end before their weights have come to balance.

Weight decay shrinks a weight by the factor 1 - eta lambda a step, and forgets its first size after 1 / (eta lambda) steps.
Before a normalization, the size of a weight only sets its effective rate; updates make it grow, decay makes it shrink, and
they balance after about that many steps. A run of about that length changes its effective rate all the way.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import stretches
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="equilibrium-not-reached",
    kind="rule",
    summary="Weights before a normalization were still drifting toward their balance with weight decay when the run ended.",
    papers=(25,),
    formula="0.2 <= sum_t eta_t lambda <= 3 and | ||w_T|| / ||w_(2T/3)|| - 1 | >= 0.1",
    symbols={"eta_t": "learning rate", "lambda": "weight decay", "w_t": "weights after t updates"},
    needs="weights followed by a normalization, weight decay, weight norms",
)
PAGE = Page(
    what="The effective rate of normalized layers (rate over the norm of the weights, or over its square for SGD) has changed "
    "during the whole run, on top of the schedule. Another length, rate or decay would give another course of it, so "
    "results with other settings don't compare well.",
    causes=(
        "a run shorter than a few times 1 / (rate x decay)",
        "an initial norm far from the balance",
        "a rate that decays so early that the weights stand still before balance",
    ),
    apart={
        "weight-norm-growth": "there is no decay, or too little to matter: no balance will come",
        "short runs": "below a fifth of 1 / (rate x decay) nobody expects balance, and nothing is said",
    },
    remedy=(
        "if comparisons matter, choose rate and decay so that 1 / (rate x decay) is a third of the run or less",
        "or begin with weights at the norm they end with",
    ),
    tried="Synthetic curves, and small CNNs with BatchNorm, which are too short for it. The time constant follows from the "
    "update rule; the bounds are common practice.",
)
_LEAST_TIMES = 0.2
_MOST_TIMES = 3.0
_DRIFT = 0.1
_LEAST_STEPS = 500


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """A note for the layer that drifts most."""
    matrix, decay, rate = view.layers("rate/effective"), view.layers("hyper/weight_decay"), view.rate
    assert matrix is not None and rate is not None
    strongest = 0.0 if decay is None else float(np.nan_to_num(decay.values).max(initial=0.0))
    span = view.last_step - int(matrix.steps[0])
    if not strongest > 0 or span < _LEAST_STEPS:
        return []
    times = strongest * float(rate.values.mean()) * span
    if not _LEAST_TIMES <= times <= _MOST_TIMES:
        return []
    curves = {
        n: c for n in matrix.layers if (c := view.named(f"weight/norm/{n}")) is not None and len(c) >= 12
    }
    drifts = {name: drift for name, curve in curves.items() if abs(drift := _drift(curve)) >= _DRIFT}
    if not drifts:
        return []
    where = max(drifts, key=lambda name: abs(drifts[name]))
    curve = curves[where]
    return [
        Finding(
            kind=CARD.name,
            title=f"{where} was still drifting at the end: its norm changed by {drifts[where]:+.0%} in the last third",
            severity="note",
            confidence=0.6,
            first_step=int(curve.steps[len(curve) * 2 // 3]),
            last_step=int(curve.steps[-1]),
            where=where,
            evidence=Evidence(
                text=f"Rate times decay gives a time constant of about {span / times:,.0f} steps; the run has {span:,}. "
                f"{len(drifts)} of {len(curves)} weights before a normalization still changed by a tenth or more.",
                numbers={"times": times, "drift": drifts[where], "layers": len(drifts)},
                plot=Plot(signals=(curve.name, rate.name)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def _drift(curve: Curve) -> float:
    """Relative change of the norm from two thirds of the run to its end."""
    _, means, _ = stretches(curve.steps, curve.values, 12)
    return float(means[-1] / means[8] - 1.0) if means[8] > 0 else 0.0


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(name="rate/effective", layers=True, least=5), SignalQuery(role="rate", least=5)),
    check=check,
)
