"""The loss does not fall: from the start, or for a long last stretch with the rate still high.

Levels are medians of a twentieth of the run. Nothing was learned if no level is lower than the first by more than 2 % of
it, and by more than 3 standard errors. The last stretch is flat if its first and last third differ by less than a
hundredth of all progress, or a standard error. A loss still above 0.65 of its first value that falls by less than 0.15 of the
progress between 0.4 and 0.9 of the run, at a rate that was not lowered, is stuck high. A loss of ln(k) is what guessing among k classes costs.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity
from thalweg.diagnosis.statistics import MAD, levels
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="plateau",
    kind="rule",
    summary="The training loss does not fall: from the start, or for long while the rate is still high.",
    formula="first - min level < max(0.02 first, 3 errors); or |change over the last 40 % or more| < 0.01 progress",
    symbols={
        "level": "median of a twentieth of the run",
        "first": "the first level",
        "error": "standard error of a level",
        "progress": "first level - last level",
    },
    needs="a training loss; the rate tells an annealed run from a stuck one",
)
PAGE = Page(
    what="The loss stands still. From the start it means that nothing is learned at all; later, that the run has come as "
    "far as this rate, model and data take it.",
    causes=(
        "the updates don't reach the parameters: zero rate, frozen parameters, an optimizer built of other ones",
        "dead units or vanished gradients, often from the initialization or a rate that was too high at first",
        "labels that have nothing to do with the inputs, or inputs that are constant",
        "later: the noise of the gradient at this rate, which a decay would remove; or the model's capacity",
    ),
    apart={
        "rate-low": "the loss does fall, slowly and steadily: not reported",
        "constant-prediction": "the outputs are the same for all inputs: seen in metrics or logits",
        "a run that is done": "the rate was decayed or the loss is near zero: not reported",
        "rate-decayed-early": "the rate was near zero in that stretch",
    },
    remedy=(
        "from the start: train on a single batch until its loss is near zero; if it doesn't fall, look at which parameters "
        "get gradients and updates (watch = tw.watch(model, optimizer)), and at the labels",
        "later: decay the rate now to see what is left, and compare with a larger model",
    ),
    tried="Digits and small GPTs of 100 to 3,000 steps, of which none may be called stuck, and published curves of language "
    "models. A task whose loss can't fall looks the same.",
    explains=(),
)


@dataclass(frozen=True)
class Course:
    """Levels of the loss: steps, medians, and the standard error of one of them."""

    steps: np.ndarray[tuple[int], np.dtype[np.float64]]
    levels: np.ndarray[tuple[int], np.dtype[np.float64]]
    error: float


def check(view: RunView) -> list[Finding]:
    """One finding: never learned, or stuck later."""
    curve = view.loss
    assert curve is not None  # required
    if len(curve) < 40:
        return []
    course = _course(curve)
    first = float(course.levels[0])
    if first <= 0:
        return []
    gain = first - float(course.levels.min())
    if 3 * course.error < 0.05 * first and gain < max(0.02 * first, 3 * course.error):
        return _never(view, curve, course)
    return _late(view, curve, course)


def _course(curve: Curve) -> Course:
    count = min(20, len(curve) // 5)
    steps, medians = levels(curve.steps, curve.values, count)
    size = len(curve) / count
    around = np.interp(curve.steps, steps, medians)
    scale = MAD * float(np.median(np.abs(curve.values - around)))
    return Course(steps, medians, 1.25 * scale / np.sqrt(size))


def _never(view: RunView, curve: Curve, course: Course) -> list[Finding]:
    first, end = float(course.levels[0]), float(course.levels[-1])
    classes = view.guessing(end)
    settled = classes > 0 and -0.003 < end / float(np.log(classes)) - 1 < 0.002
    if end - first > max(0.05 * first, 5 * course.error) or (_creeps(course) and not settled):
        return []
    blind = view.rate is None
    high = blind or _still_high(view, float(course.steps[0]))
    if not classes and (3 * course.error > 0.02 * first or not high):
        return []  # it may fall by what can't be seen here, or was annealed
    enough = len(curve) >= 100 or curve.window != 1
    severity: Severity = "critical" if classes and enough else "note" if blind and not classes else "warning"
    confidence = (0.9 if classes and enough else 0.6) - (0.0 if enough else 0.15)
    chance = f", which is what guessing among {classes:,} classes costs" if classes else ""
    last = int(curve.steps[-1])
    never = Finding(
        kind=CARD.name,
        title=f"The loss never fell: {first:.3g} at the start, {end:.3g} at the end",
        severity=severity,
        confidence=confidence,
        first_step=int(curve.steps[0]),
        last_step=last,
        evidence=Evidence(
            text=f"Over {last - int(curve.steps[0]):,} steps no level of the loss is lower than the first by more than "
            f"{first - course.levels.min():.2g} (standard error {course.error:.2g}). It ends at {end:.4g}{chance}.",
            numbers={"first": first, "end": end, "error": course.error, "classes": classes},
            plot=Plot(signals=(curve.name,)),
        ),
        remedy="Train on a single batch until its loss is near zero. If it doesn't fall, look at which parameters get "
        "gradients and updates, and at the labels.",
    )
    return [never]


def _creeps(course: Course) -> bool:
    """Whether it does fall, however slowly, once the first steps are over."""
    rest = course.levels[len(course.levels) // 8 :]
    third = max(1, len(rest) // 3)
    fall = float(np.mean(rest[:third]) - np.mean(rest[-third:]))
    return fall > 3 * course.error / float(np.sqrt(third))


def _late(view: RunView, curve: Curve, course: Course) -> list[Finding]:
    """A flat last stretch of at least 40 % of the run, at a rate that was not decayed."""
    first, end = float(course.levels[0]), float(course.levels[-1])
    progress = first - end
    if progress <= 5 * course.error or end < 0.05 * first or len(course.levels) < 10:
        return []
    begin = next((b for b in range(2, len(course.levels) * 6 // 10 + 1) if _flat(course, b, progress)), None)
    if begin is not None and not _still_high(view, float(course.steps[begin])):
        begin = None
    low = _stuck_high(view, curve, course, progress) if begin is None else None
    if begin is None and low is None:
        return []
    begin = low if begin is None else begin
    assert begin is not None
    start, last = int(course.steps[begin]), int(curve.steps[-1])
    share = (last - start) / max(1, last - int(curve.steps[0]))
    high = low is not None or (end > 0.8 * first and share > 0.6)
    severity: Severity = "warning" if high else "note"
    much = "a seventh" if low is not None else "a hundredth"
    return [
        Finding(
            kind=CARD.name,
            title=f"The loss has stood at {end:.3g} for the last {share:.0%} of the run",
            severity=severity,
            confidence=0.55,
            first_step=start,
            last_step=last,
            evidence=Evidence(
                text=f"From step {start:,} on the loss changed by less than {much} of its progress ({progress:.3g}), "
                "while the rate was not lowered.",
                numbers={"start": start, "level": end, "progress": progress, "share": share},
                plot=Plot(signals=(curve.name,), marks={"flat": start}),
            ),
            remedy="Decay the rate now to see what is left in this run, and compare with a larger model.",
        )
    ]


def _stuck_high(view: RunView, curve: Curve, course: Course, progress: float) -> int | None:
    """Where a loss began to creep that is still above 0.65 of its first level; None if it doesn't."""
    count = len(course.levels)
    begin, until = 2 * count // 5, 9 * count // 10
    rate = view.rate
    first = max(float(np.median(curve.values[:3])), float(course.levels[0]))
    whole = curve.steps[0] <= 0.01 * curve.steps[-1]  # else what was learned before is not in the log
    if len(curve) < 400 or count < 20 or rate is None or not whole or course.levels[-1] < 0.65 * first:
        return None
    part = rate.between(float(course.steps[begin]), 0.85 * float(curve.steps[-1]))
    if not len(part) or float(part.values.min()) < 0.5 * float(rate.values.max()):
        return None
    fell = float(np.median(course.levels[begin : begin + 3]) - np.median(course.levels[until - 3 : until]))
    return begin if fell < 0.15 * progress and 5 * course.error < 0.15 * progress else None


def _flat(course: Course, begin: int, progress: float) -> bool:
    part = course.levels[begin:]
    third = max(2, len(part) // 3)
    end = float(np.median(part[-third:]))
    change = abs(float(np.median(part[:third])) - end)
    arrived = abs(float(part[0]) - end) < max(0.02 * progress, 3 * course.error)
    return arrived and change < max(0.01 * progress, course.error) and 3 * course.error < 0.05 * progress


def _still_high(view: RunView, start: float) -> bool:
    rate = view.rate
    if rate is None or not len(rate):
        return False  # it may well have been annealed
    tail = rate.values[rate.steps >= start]
    return bool(len(tail)) and float(tail.min()) >= 0.5 * float(rate.values.max()) > 0


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss", least=20),), check=check)
