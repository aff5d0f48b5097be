"""The learning rate is too high: updates are a large part of the weights, and the loss pays for it.

||Delta|| / ||w|| of an update is about 0.001 in ordinary training, up to 0.1 in the first steps of small networks. Where
it exceeds that, and the loss leaps above where it began or never gets far below it, the steps are too long: the loss
diverges, or units die and the network is stuck. A rate somewhat lower blows the weights up with noise while the loss stays high. The ratio alone is no finding.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, Severity, instruction
from thalweg.diagnosis.rules.gradient_vanishing import relative_gradients
from thalweg.diagnosis.statistics import levels, runs_of, trailing_median
from thalweg.diagnosis.view import Curve, RunView, is_matrix

CARD = Card(
    name="rate-high",
    kind="rule",
    summary="Updates are a large part of the weights, and the loss leaps up or hardly falls: the rate is too high.",
    formula="max ||Delta|| / ||w|| >= 0.03 while the loss ends above 0.7 of its first value or rose above 3 times it;  or "
    "||w|| grows 2.2 times within a third of the run at ||Delta|| / ||w|| >= 0.012",
    symbols={"Delta": "update", "w": "weights before it"},
    needs="update ratios, a training loss",
)
PAGE = Page(
    what="Each step overshoots. Far too high, the loss grows from step to step until it overflows. Less so, it jumps once, "
    "units die or saturate, and the loss stays near that of guessing.",
    causes=(
        "a rate that was tuned for another optimizer: SGD's rates are a hundred times those of Adam",
        "a rate scaled with the batch size, or copied from a smaller network",
        "no warm-up: the first steps are the most delicate",
        "a loss that is a sum, or accumulated gradients that are not averaged: with SGD that multiplies the rate",
    ),
    apart={
        "warmup-short": "the loss leaps in the first steps and then falls as it should",
        "gradients-accumulate": "successive gradients point the same way; here they turn",
        "gradient-exploding": "gradients are far larger than the weights before the first update: the initialization",
        "a noisy loss": "it scatters around a level that falls",
    },
    remedy=(
        "divide the peak rate by 10 and try a few hundred steps; then by 3 in either direction",
        "warm up linearly over the first 1 to 5 % of the steps",
        "clip the gradient norm with watch.clip_grad_norm_(1.0)",
    ),
    tried="Healthy MLPs, CNNs and GPTs with SGD, momentum and AdamW reach ratios of up to 0.14 and learn; at 20 to 30 times "
    "those rates the largest ratio is 0.1 to 2, and weights grow 2.5 to 13 times in some hundred steps, against up to 3 "
    "times in some thousand.",
    explains=(
        "divergence",
        "loss-spike",
        "nonfinite-loss",
        "nonfinite-gradient",
        "gradient-exploding",
        "dead-units",
        "dormant-units",
        "plateau",
        "constant-prediction",
        "loss-scale-collapse",
        "weight-norm-growth",
        "gradient-clipped",
    ),
)
_RATIO = 0.03
_LEAP = 1.3  # times the first loss
_DIVERGED = 3.0
_LEAST = 20
_NOTHING_LEARNED = 0.7
_LEARNED = 0.25  # of the first loss: what leaps later was not the rate from the start
_INFLATING_RATIO = 0.012
_INFLATION = 2.2
_INFLATION_MUCH = 4.0
_LAGS = 0.2  # of the first loss
_LAGS_MUCH = 0.5
_OSCILLATES = -0.2  # cosine of successive gradients
_EXPLODED = 1.5  # decades of gradient over weight at the first measurement
_POINTS = 2000  # a long curve is made short before it is smoothed


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding if ratio and loss agree, or if the updates blow the weights up."""
    found = _leaping(view) or _inflating(view)
    return [found] if found is not None else []


def _leaping(view: RunView) -> Finding | None:
    """Large updates, and a loss that leaps up or ends where it began."""
    ratio, loss = view.curve("update ratio"), view.loss
    assert ratio is not None and loss is not None
    early = ratio.between(ratio.steps[0], ratio.steps[0] + (view.last_step - ratio.steps[0]) / 3)
    largest = float(early.values.max()) if len(early) else 0.0
    if len(loss) + len(loss.bad_steps) < _LEAST or len(loss) < 3:
        return None
    start, peak, end = _levels(loss)
    if largest < _RATIO or not start > 0 or _exploded_from_the_start(view):
        return None
    broke = len(loss.bad_steps) > 0 and loss.bad_steps[-1] >= loss.steps[-1]
    if _learned_before(loss, start):
        return None
    leaps = peak >= _LEAP * start
    ruined = (broke and leaps) or peak >= _DIVERGED * start or (end >= _NOTHING_LEARNED * start and not broke)
    turns = _turning(view) <= _OSCILLATES
    signs = (largest >= 3 * _RATIO) + leaps + turns + broke
    if not (leaps or ruined) or signs < (1 if ruined else 2):
        return None
    severity: Severity = (
        "note" if not ruined else "critical" if leaps and (end >= 0.9 * start or broke) else "warning"
    )
    at = int(early.steps[np.argmax(early.values)])
    return Finding(
        kind=CARD.name,
        title=f"Updates of up to {largest:.2g} times the weights"
        + (
            f"; the loss was {start:.3g} at first and {'not finite' if broke else f'{end:.3g}'} at the end"
            if ruined
            else f", and a loss of {peak:.3g} after {start:.3g}"
        ),
        severity=severity,
        confidence=(0.6, 0.75, 0.85, 0.9)[min(3, signs - 1)],
        first_step=min(at, _leap_step(loss, start)),
        last_step=view.last_step,
        where=_largest_layer(view, at),
        evidence=Evidence(
            text=f"The update was {largest:.2g} of the weights at step {at:,} (0.001 is usual). The loss began at "
            f"{start:.3g}"
            + (f", rose to {peak:.3g} and " if peak > start else " and ")
            + ("is not finite at the end." if broke else f"ended at {end:.3g}.")
            + (" Successive gradients turn against one another." if turns else ""),
            numbers={"ratio": largest, "start": start, "peak": peak, "end": end},
            plot=Plot(signals=(loss.name, ratio.name), marks={"largest update": at}),
        ),
        remedy=instruction(PAGE.remedy[0] if ruined else PAGE.remedy[1]),
    )


def _inflating(view: RunView) -> Finding | None:
    """Large updates that multiply the weights in the first third, while the loss lags behind."""
    ratio, weight, loss = view.curve("update ratio"), view.curve("weight norm"), view.loss
    if ratio is None or weight is None or loss is None or len(weight) < 5:
        return None
    first = weight.steps[0]
    third = first + (view.last_step - first) / 3
    usual = ratio.between(first + 0.03 * (view.last_step - first), third).values
    grown, late = weight.between(first, third).values, loss.between((first + 2 * third) / 3, third).values
    if len(usual) < 3 or len(grown) < 2 or len(late) < 5 or not grown[0] > 0:
        return None
    growth, typical, left = float(grown[-1] / grown[0]), float(np.median(usual)), float(np.median(late))
    start = float(loss.values[0])
    if _restarts(loss.between(first, third)) >= 2:
        return None  # the data or their meaning change
    lags = _LAGS_MUCH if growth < _INFLATION_MUCH else _LAGS
    if typical < _INFLATING_RATIO or growth < _INFLATION or not left > lags * start > 0:
        return None
    return Finding(
        kind=CARD.name,
        title=f"Updates of {typical:.2g} of the weights made them {growth:.1f} times larger in a third of the run",
        severity="warning",
        confidence=0.85 if growth >= _INFLATION_MUCH else 0.75,
        first_step=int(first),
        last_step=view.last_step,
        evidence=Evidence(
            text=f"In the first third of the run updates are {typical:.2g} of the weights (0.001 to 0.01 is usual), and the "
            f"norm of all weights grew {growth:.1f} times: the steps carry noise into the weights, which makes the "
            f"network harder to train. The loss was still {left:.3g} there, after {start:.3g} at the start.",
            numbers={"ratio": typical, "growth": growth, "start": start, "loss": left},
            plot=Plot(signals=(loss.name, ratio.name, weight.name)),
        ),
        remedy=instruction(PAGE.remedy[0]),
    )


def _levels(loss: Curve) -> tuple[float, float, float]:
    """The first loss, the highest smoothed one, and the last ones."""
    of_three = np.sort(np.stack([loss.values[:-2], loss.values[1:-1], loss.values[2:]]), axis=0)[1]
    peak = float(of_three.max(initial=loss.values[0]))
    return float(loss.values[0]), peak, float(np.median(loss.values[-max(5, len(loss) // 20) :]))


def _leap_step(loss: Curve, start: float) -> int:
    """The first step with a loss far above the first one; the last step if there is none."""
    above = loss.values >= _LEAP * start
    return int(loss.steps[np.argmax(above)]) if above.any() else int(loss.steps[-1])


def _learned_before(loss: Curve, start: float) -> bool:
    """Whether the loss was far below its start before it leapt or overflowed, or at the end: not the rate's fault."""
    steps, values = levels(loss.steps, loss.values, _POINTS)
    smooth = trailing_median(np.append(values, values[-1]), max(5, len(values) // 100))[1:]
    leap = _leap_step(loss, start)
    return bool((smooth[1:][steps[1:] < leap] <= _LEARNED * start).any())


def _restarts(loss: Curve) -> int:
    """How often the loss, once low, leapt to a multiple from one step to the next and stayed there for some steps."""
    around = 8
    if len(loss) < 4 * around:
        return 0
    _, values = levels(loss.steps, loss.values, _POINTS)
    smooth = trailing_median(np.append(values, values[-1]), around)[1:]
    before, after = smooth[around - 1 : -around], smooth[2 * around - 1 :]
    leaps = (after >= 3 * before) & (before <= 0.3 * loss.values[0])
    return len(runs_of(leaps))


def _turning(view: RunView) -> float:
    """Median cosine of successive gradients over the first quarter; 0 where it wasn't recorded."""
    cosine = view.named("grad/cosine")
    if cosine is None or len(cosine) < 3:
        return 0.0
    return float(np.median(cosine.values[: max(3, len(cosine) // 4)]))


def _exploded_from_the_start(view: RunView) -> bool:
    """Whether gradients were far larger than the weights at the first measurement."""
    depth = relative_gradients(view)
    row = depth[2][0] if depth is not None else np.array([])
    return bool(np.isfinite(row).any()) and float(np.nanmedian(row)) >= _EXPLODED


def _largest_layer(view: RunView, step: int) -> str:
    """The weight matrix with the largest ratio at that step; "" if it lies below twice the others' median."""
    matrix = view.layers("update/ratio")
    if matrix is None or step not in matrix.steps:
        return ""
    row = matrix.values[np.searchsorted(matrix.steps, step)]
    known = [i for i, layer in enumerate(matrix.layers) if is_matrix(layer) and np.isfinite(row[i])]
    if not known:
        return ""
    best = max(known, key=lambda i: row[i])
    return matrix.layers[best] if row[best] >= 2 * np.median(row[known]) else ""


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="update ratio", least=1), SignalQuery(role="train loss", least=3)),
    check=check,
)
