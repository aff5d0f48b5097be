"""The weights grow without bound.

Where a normalization follows a weight, each update is at a right angle to it, so that ||w||^2 grows by ||Delta||^2 every
step and nothing holds it: the norm grows like the root of the number of steps or faster, and the effective rate (rate
over the norm, or over its square for SGD) falls although the rate doesn't. Weight decay is what balances it.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import Curve, Floats, Ints, RunView

CARD = Card(
    name="weight-norm-growth",
    kind="rule",
    summary="The norm of the weights has grown many times and goes on growing: nothing balances the updates.",
    papers=(25,),
    formula="||w_T|| >= 3 ||w_0|| for weights before a normalization (8 for all), and d log ||w|| / d log t >= 0.15 in the last half",
    symbols={"w_t": "weights after t updates", "T": "the last step"},
    needs="weight norms",
)
PAGE = Page(
    what="Weights that only grow lower the effective rate of normalized layers, raise the logits of the others, and in half "
    "precision lose their small updates to rounding. The run slows down in a way that no schedule shows.",
    causes=(
        "no weight decay, with weights followed by BatchNorm, LayerNorm or GroupNorm",
        "a rate too high: each update adds its square to the norm",
        "a loss that can always be lowered by larger logits (all examples already right)",
    ),
    apart={
        "a small initialization": "embeddings and output layers start small and grow some times; then they level off",
        "equilibrium-not-reached": "weight decay is on, and balance comes later",
        "softmax-collapse": "logits grew until the loss rounds to zero",
    },
    remedy=(
        "use decoupled weight decay (AdamW) of 0.01 to 0.1 on weight matrices, or 1e-4 to 5e-4 with SGD",
        "lower the rate, or decay it",
    ),
    tried="Healthy MLPs, CNNs and GPTs of up to 3,000 steps: all weights together grow 1.0 to 3.1 times, single matrices up to "
    "5.3 times, weights before BatchNorm up to 2.4 times. SGD without decay lets them grow like t^(1/4), Adam like t^(1/2).",
    explains=("plateau", "softmax-collapse"),
)
_GROWN_FREE = 3.0
_GROWN = 8.0
_EXPONENT = 0.15
_MUCH = 5.0
_LEAST = 10


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding: weights before a normalization first, else all weights together."""
    total, layers = view.curve("weight norm"), _before_normalizations(view)
    if (total is None or len(total) < _LEAST) and not layers:
        return NotEvaluable(
            kind=CARD.name,
            lacked="weight norms at 10 steps or more",
            record="watch = tw.watch(model, optimizer)",
        )
    grown = {
        name: found
        for name, (steps, values) in layers.items()
        if (found := _growth(steps, values, _GROWN_FREE)) is not None
    }
    if grown:
        where = max(grown, key=lambda name: grown[name][0])
        curve = view.named(f"weight/norm/{where}")
        return [_finding(view, curve, where, len(grown), grown[where])] if curve is not None else []
    found = None if total is None or len(total) < _LEAST else _growth(total.steps, total.values, _GROWN)
    return [] if total is None or found is None else [_finding(view, total, "", 0, found)]


def _before_normalizations(view: RunView) -> dict[str, tuple[Ints, Floats]]:
    """Weights followed by a normalization -> steps and norms."""
    matrix, effective = view.layers("weight/norm"), view.layers("rate/effective")
    out: dict[str, tuple[Ints, Floats]] = {}
    if matrix is None or effective is None:
        return out
    for i, name in enumerate(matrix.layers):
        there = np.isfinite(matrix.values[:, i])
        if name in effective.layers and there.sum() >= _LEAST:
            out[name] = matrix.steps[there], matrix.values[there, i].astype(np.float64)
    return out


def _growth(steps: Ints, values: Floats, least: float) -> tuple[float, float, int] | None:
    """How many times it grew, its exponent over the last half and where it passed the bound; None if it didn't."""
    start, half = float(values[0]), len(values) // 2
    end, middle = float(np.median(values[-3:])), float(np.median(values[half - 1 : half + 2]))
    if not start > 0 or not middle > 0 or not end >= least * start:
        return None
    taken = steps - steps[0] + 1.0
    exponent = float(np.log(end / middle) / np.log(taken[-1] / taken[half]))
    if not exponent >= _EXPONENT:
        return None
    return end / start, exponent, int(steps[np.argmax(values >= least * start)])


def _finding(
    view: RunView, curve: Curve, where: str, count: int, growth: tuple[float, float, int]
) -> Finding:
    factor, exponent, first = growth
    decay = view.layers("hyper/weight_decay")
    decays = decay is not None and bool((np.nan_to_num(decay.values) > 0).any())
    rate = view.rate
    return Finding(
        kind=CARD.name,
        title=f"{where or 'The weights'} grew to {f'{factor:.1f}' if factor < 100 else f'{factor:.2g}'} times the first norm, and "
        f"{'goes' if where else 'go'} on growing",
        severity="note" if decays else "warning",
        confidence=0.6 if decays or factor < _MUCH else 0.8 if where else 0.65,
        first_step=first,
        last_step=int(curve.steps[-1]),
        where=where,
        evidence=Evidence(
            text=f"{curve.name} is {factor:.1f} times its first value and grows like t^{exponent:.2f} in the last half of the run"
            + (f", as do {count - 1} other weights before a normalization. " if count > 1 else ". ")
            + (
                "There is weight decay, too weak for this rate."
                if decays
                else "No weight decay was recorded."
            ),
            numbers={"factor": factor, "exponent": exponent, "layers": count},
            plot=Plot(signals=tuple(c.name for c in (curve, rate) if c is not None)),
        ),
        remedy=instruction(PAGE.remedy[0]),
        papers=CARD.papers if where else (),
    )


RULE = Rule(card=CARD, page=PAGE, check=check)
