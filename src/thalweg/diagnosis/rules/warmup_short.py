"""The loss leapt up in the first steps, where the rate was at or near its peak at once.

It counts if the median of three neighboring losses rises above 1.3 times the first loss, and by 3 times the noise of its
logarithm, within the first twentieth of the run, stays above the first for ten steps or 1 % of the run, and the rate
reached its peak before that. Or, without such a leap, if the first update was a twentieth of the weights and 20 times the
usual one, and the loss, still above half of the first, has hardly fallen after the first tenth of the run.

Curvature is largest early; warm-up lets the weights reach flatter regions first (Gilmer et al., "A Loss Curvature
Perspective on Training Instability in Deep Learning", 2021), and transformers with normalization after the residual need
it most (Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020).
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import centered_median, levels, median_of_five, noise, rate_course
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="warmup-short",
    kind="rule",
    summary="The loss leapt up in the first steps, with no warm-up or a very short one.",
    papers=(26, 136),
    formula="max med3(loss_s) > 1.3 first for s < S / 20, after the rate came to its peak within 0.02 S",
    symbols={"first": "first loss", "S": "steps of the run", "med3": "median of three neighboring values"},
    needs="a training loss from the first steps on, and a rate",
)
PAGE = Page(
    what="The first updates, at a full rate, throw the weights far off: the loss rises above that of the untrained network. "
    "The run may recover, but units die and logits grow on the way, and what it ends at is often worse.",
    causes=(
        "no warm-up, with an optimizer whose first updates are large whatever the gradient (Adam)",
        "normalization after the residual, large initial gradients near the output",
        "a rate that is too high for any warm-up",
    ),
    apart={
        "rate-high": "the loss stays noisy and high long after the start",
        "divergence": "the loss never comes back",
        "a resumed run": "its first steps are not those of the training",
        "an overshoot of a few steps": "ordinary at a good rate: not reported",
    },
    remedy=(
        "warm the rate up linearly over 1 to 5 % of the run (at least 1 / (1 - beta2) steps under Adam)",
        "or lower the peak rate to a third; normalize before the residual",
    ),
    tried="Digits and small GPTs of 100 to 3,000 steps without warm-up, whose overshoots stay below 1.3 times the first loss.",
    explains=("loss-spike", "gradient-exploding", "gradient-vanishing", "plateau"),
)


def check(view: RunView) -> list[Finding]:
    """One finding, at the first steps."""
    loss, rate = view.loss, view.rate
    assert loss is not None and rate is not None  # required
    course = rate_course(rate.steps, rate.values)
    if course is None or len(loss) < 40 or loss.steps[0] > 5 * max(1.0, loss.spacing):
        return []
    whole = float(loss.steps[-1] - loss.steps[0])
    early = loss.between(loss.steps[0], loss.steps[0] + max(0.05 * whole, 20 * loss.spacing))
    if len(early) < 10:
        return []
    smooth = centered_median(early.values, 3)
    first, peak = float(np.median(early.values[:2])), int(np.argmax(smooth))
    top, at = float(smooth[peak]), int(early.steps[peak])
    warmed = int(course.steps[course.warmed])
    near = int(course.steps[int(np.flatnonzero(course.shares >= 0.5)[0])])
    started = near <= min(at, max(0.02 * whole, 10))
    above = loss.steps[(loss.steps >= at) & (median_of_five(loss.values) <= first)]
    back = int(above[0]) if len(above) else int(loss.steps[-1])
    lasting = back - int(early.steps[0]) >= max(10, 0.01 * whole)
    jitter = noise(np.log(np.maximum(early.values, 1e-30)))
    leapt = first > 0 and top > first * max(1.3, float(np.exp(min(3 * jitter, 50.0))))
    if not (leapt and started and lasting and len(above)):
        return _thrown(view, loss, near - int(course.steps[0]) <= max(0.01 * whole, 2))
    severity: Severity = "warning" if top > 1.5 * first or back > 0.1 * whole else "note"
    return [
        Finding(
            kind=CARD.name,
            title=f"The loss leapt from {first:.3g} to {top:.3g} in the first {at:,} steps; warm-up is "
            + (f"{warmed:,} steps" if warmed > int(course.steps[0]) else "missing"),
            severity=severity,
            confidence=0.8 if severity == "warning" else 0.6,
            first_step=int(loss.steps[0]),
            last_step=back,
            evidence=Evidence(
                text=f"The rate was at its peak ({course.peak:.3g}) at step {warmed:,} of {int(loss.steps[-1]):,}. The loss rose "
                f"to {top / first:.1f} times its first value at step {at:,}, and was back at step {back:,}.",
                numbers={"warmup": warmed, "first": first, "peak": top, "peak_step": at, "back": back},
                plot=Plot(
                    signals=(loss.name, rate.name), last=2 * max(back, at), marks={"peak": at, "back": back}
                ),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
            papers=CARD.papers,
        )
    ]


def _thrown(view: RunView, loss: Curve, at_once: bool) -> list[Finding]:
    """A first update that is a large part of the weights, and a loss that stays where it threw it."""
    ratio = view.curve("update ratio")
    if not at_once or ratio is None or len(ratio) < 10 or int(ratio.steps[0]) > int(loss.steps[0]) + 2:
        return []
    size, usual = float(ratio.values[0]), float(np.median(ratio.values))
    _, level = levels(loss.steps, loss.values, 20)
    first, rest = float(np.median(loss.values[:2])), level[2:]
    fell = float(np.mean(rest[:3]) - np.mean(rest[-3:]))
    if size < max(0.05, 20 * usual) or rest[-1] < 0.5 * first or abs(fell) > 0.03 * first:
        return []
    start, last = int(loss.steps[0]), int(loss.steps[-1])
    return [
        Finding(
            kind=CARD.name,
            title=f"The first update is {size:.0%} of the weights, without warm-up, and the loss stays at {rest[-1]:.3g}",
            severity="warning",
            confidence=0.6,
            first_step=start,
            last_step=last,
            evidence=Evidence(
                text=f"The rate is at its peak at once; the first update is {size:.2g} of the weights, {size / usual:.0f} times the "
                f"usual one. The loss fell from {first:.3g} to {rest[0]:.3g} in the first tenth of the run and by {fell:.2g} since.",
                numbers={"ratio": size, "usual": usual, "first": first, "end": float(rest[-1])},
                plot=Plot(signals=(loss.name, ratio.name)),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
            papers=CARD.papers,
        )
    ]


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="train loss", least=40), SignalQuery(role="rate", least=10)),
    check=check,
)
