"""The rate is near zero for a long last part, and the loss stands still there although it was falling before.

With low the step from which the rate stays at or below 0.05 of its peak, the rule looks at runs in which that part is
three tenths of the run or more; a cosine to zero has 14 % of such steps, a linear decay 5 %.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import rate_course
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="rate-decayed-early",
    kind="rule",
    summary="The rate is near zero for a long last part, and the loss stands still there.",
    formula="rate_s <= 0.05 peak for 0.3 of the run to its end, with less than 0.15 of the progress in it (0.3 if it is 0.6 of the run)",
    symbols={"peak": "highest rate", "progress": "first level - last level of the loss"},
    needs="a rate and a training loss",
)
PAGE = Page(
    what="Most of the run is spent at a rate too small to change anything. The same steps at a higher rate, decayed later, "
    "would have brought the loss further down.",
    causes=(
        "a schedule planned for fewer steps than the run has (total steps, T_max, epochs)",
        "milestones or a decay factor that come too soon",
        "a scheduler that is stepped more than once a step",
    ),
    apart={
        "schedule-stepped-twice": "the rate comes to its end at a half or a third of the run",
        "plateau": "the rate is still high there",
        "a run that is done": "the loss is near zero, or had stopped falling before the decay: not reported",
        "steps by a factor of ten": "usual in vision; a note as long as it is less than 0.45 of the run",
    },
    remedy=(
        "give the schedule the number of steps that the run really has",
        "end the decay with the run; restart from the checkpoint before the decay",
    ),
    tried="Digits and small GPTs of 300 to 3,000 steps; cosine, linear and WSD schedules must stay silent.",
    explains=("plateau", "rate-low"),
)


def check(view: RunView) -> list[Finding]:
    """One finding, from the step at which the rate is near zero."""
    loss, rate = view.loss, view.rate
    assert loss is not None and rate is not None  # required
    course = rate_course(rate.steps, rate.values)
    if course is None or course.low >= len(course.steps) or course.low == 0:
        return []
    start, last = int(course.steps[course.low]), int(course.steps[-1])
    share = 1 - course.part(course.low)
    tail = loss.between(start, last)
    if share < 0.3 or len(tail) < 20 or course.low <= course.warmed:
        return []
    first, before, after, end = _levels(loss, start)
    progress = first - end
    falling = before - after > 0.05 * max(progress, 0) or before - end > 0.05 * max(progress, 0)
    still = 0.3 if share > 0.6 else 0.15  # of the progress, in so much of the run
    if progress <= 0 or after - end > still * progress or end < 0.05 * first or not falling:
        return []
    severity: Severity = "warning" if share >= 0.45 else "note"
    ratio = float(course.shares[-1])
    return [
        Finding(
            kind=CARD.name,
            title=f"The rate is at {ratio:.2%} of its peak for the last {share:.0%} of the run, and the loss stands still",
            severity=severity,
            confidence=0.85 if share >= 0.45 else 0.6,
            first_step=start,
            last_step=last,
            evidence=Evidence(
                text=f"From step {start:,} on the rate is at or below {float(course.shares[course.low :].max()):.1%} of its peak "
                f"({course.peak:.3g}). The loss fell from {first:.3g} to {after:.3g} until then, and to {end:.3g} in the "
                f"{last - start:,} steps since.",
                numbers={"start": start, "share": share, "ratio": ratio, "before": after, "end": end},
                plot=Plot(signals=(rate.name, loss.name), marks={"near zero": start}),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
        )
    ]


def _levels(loss: Curve, start: int) -> tuple[float, float, float, float]:
    """Levels of the loss: first, a while before the rate was low, just after that, and at the end."""
    x, place = loss.values, int(np.searchsorted(loss.steps, start))
    few = max(3, min(20, place // 4))
    settle = place + max(3, (len(x) - place) // 10)
    earlier = x[max(0, place // 2 - few) : max(few, place // 2)]
    return (
        float(np.median(x[:5])),
        float(np.median(earlier)),
        float(np.median(x[settle : settle + max(5, few)])),
        float(np.median(x[-max(5, len(x) // 10) :])),
    )


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="rate"), SignalQuery(role="train loss", least=40)),
    check=check,
)
