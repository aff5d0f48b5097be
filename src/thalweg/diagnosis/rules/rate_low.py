"""The learning rate is far too low: updates are a vanishing part of the weights, and the loss has hardly moved.

Where even the largest stretch of updates stays below 0.0001 of the weights (0.001 is usual) and the loss has lost less
than a seventh of its first value, most of the run was spent standing still. Successive gradients that agree are a
further sign: the landscape is nearly the same from step to step, and longer steps are safe.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import noise, stretches
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="rate-low",
    kind="rule",
    summary="Updates are a vanishing part of the weights, and the loss has hardly moved: the rate is far too low.",
    formula="max over stretches of ||Delta|| / ||w|| < 1e-4 and the loss fell by less than 15 %;  or < 3e-4 if also "
    "cos(g_t, g_(t-1)) >= 0.45, or the loss is a straight line over the sum of the rates",
    symbols={"Delta": "update", "w": "weights before it", "g_t": "gradient at step t"},
    needs="update ratios, a training loss above zero",
)
PAGE = Page(
    what="The weights hardly move. The loss creeps along a line, and would go on so for a hundred times as many steps.",
    causes=(
        "a rate of Adam used with SGD, which needs about a hundred times more",
        "a rate in the wrong unit (1e-5 typed for 1e-3), or multiplied twice by a schedule",
        "a warm-up longer than the run, or a schedule that has ended",
        "a clipping limit far below the gradient's norm: with SGD it sets the length of the step",
        "an epsilon of Adam that is larger than the gradients",
    ),
    apart={
        "fine-tuning": "small updates of pre-trained weights, with a loss that falls by more than a seventh",
        "parameters-frozen": "updates are exactly zero",
        "gradient-clipped": "the limit makes the steps short, not the rate; so too for epsilon-dominates",
        "plateau": "updates have their usual size, and the loss stays all the same",
        "a finished run": "the rate has decayed; the largest updates count, not the last ones",
        "reinforcement learning": "losses there needn't fall; one that goes below zero isn't judged",
    },
    remedy=(
        "multiply the peak rate by 10 until the loss falls within the first hundreds of steps; stop before it leaps",
        "compare the recorded lr with the one you meant",
    ),
    tried="Healthy MLPs, CNNs and GPTs have stretches with ratios of 0.0007 to 0.1; at a thousandth of their rates 0.00001 "
    "to 0.00017, at a hundredth 0.00008 to 0.0002.",
    explains=("plateau",),
)
_RATIO = 1e-4
_RATIO_WITH_MORE = 3e-4
_AGREEING = 0.45
_FALL = 0.15
_FALL_AGREEING = 0.2
_STRAIGHT = 0.35
_STRETCHES = 10
_LEAST_STEPS = 100
_THIRDS = ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0))


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding if updates are small throughout and the loss agrees."""
    ratio, loss = view.curve("update ratio"), view.loss
    assert ratio is not None and loss is not None
    steps, means, _ = stretches(ratio.steps, ratio.values, _STRETCHES)
    largest = float(means.max())
    agreement = _agreement(view)
    agrees, fall = agreement >= _AGREEING, _fall(loss)
    limit = _RATIO_WITH_MORE if agrees or (largest >= _RATIO and _straight(view, loss)) else _RATIO
    if not 0 < largest < limit or not fall < (_FALL_AGREEING if agrees else _FALL):
        return []
    if len(loss.bad_steps) or loss.values.min() <= 0:
        return []
    if view.last_step - int(loss.steps[0]) < _LEAST_STEPS:
        return []
    rate = view.rate
    used = float(rate.values.max()) if rate is not None and len(rate) else float("nan")
    if used == 0:
        return []
    return [
        Finding(
            kind=CARD.name,
            title=f"Updates are at most {largest:.1g} of the weights, and the loss fell by {max(fall, 0):.1%}",
            severity="warning",
            confidence=0.9 if largest < _RATIO / 2 or agrees else 0.7,
            first_step=int(min(loss.steps[0], ratio.steps[0])),
            last_step=view.last_step,
            evidence=Evidence(
                text=f"Even in the stretch around step {int(steps[np.argmax(means)]):,} updates are {largest:.2g} of the weights "
                f"(0.001 is usual), at a rate of up to {used:.3g}. The loss fell by {max(fall, 0):.1%} in the whole run."
                + (f" Successive gradients agree (cosine {agreement:.2f})." if agrees else ""),
                numbers={"ratio": largest, "fall": fall, "cosine": agreement},
                plot=Plot(signals=(loss.name, ratio.name)),
            ),
            remedy=instruction(PAGE.remedy[0]),
        )
    ]


def _fall(loss: Curve) -> float:
    """By what share the loss fell from its first tenth to its last."""
    width = max(3, len(loss) // 20)
    first = float(np.median(loss.values[:width]))
    return 1.0 - float(np.median(loss.values[-width:])) / first if first > 0 else 1.0


def _straight(view: RunView, loss: Curve) -> bool:
    """Whether the loss falls nearly as fast, for the same sum of rates, in the second half as in the first."""
    rate = view.rate
    if rate is None or not len(rate):
        return False
    spent = np.cumsum(np.nan_to_num(rate.at(loss.steps)))
    if len(loss) < 40 or not spent[-1] > 0:
        return False
    thirds = [loss.values[(spent >= a * spent[-1]) & (spent <= b * spent[-1])] for a, b in _THIRDS]
    if any(len(part) < 5 for part in thirds):
        return False
    first, middle, last = (float(np.median(part)) for part in thirds)
    error = 1.5 * noise(loss.values) / np.sqrt(min(len(part) for part in thirds))
    return first - middle > error and middle - last >= _STRAIGHT * (first - middle)


def _agreement(view: RunView) -> float:
    """Median cosine of successive gradients; 0 where it wasn't recorded."""
    cosine = view.named("grad/cosine")
    return float(np.median(cosine.values)) if cosine is not None and len(cosine) >= 3 else 0.0


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="update ratio", least=3), SignalQuery(role="train loss", least=20)),
    check=check,
)
