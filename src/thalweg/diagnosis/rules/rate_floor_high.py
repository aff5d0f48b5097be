"""The rate was decayed, but ends at a large share of its peak.

Reported above 0.2 of the peak, as a note; a warning if it ends above 0.3 and was still falling by 2 % of the peak over the
last twentieth of the run: the run ended before its schedule.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import RateCourse, rate_course
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="rate-floor-high",
    kind="rule",
    summary="The rate was decayed, but ends at a large share of its peak.",
    papers=(7, 24),
    formula="0.2 < rate_end / peak < 0.95",
    symbols={"peak": "highest rate"},
    needs="a rate",
)
PAGE = Page(
    what="Part of what a decay gives is left: the noise of the updates shrinks with the rate, and at a high floor most of it "
    "stays. A floor of a tenth of the peak is a habit; a decay to zero usually ends lower.",
    causes=(
        "a schedule planned for more steps than the run has (total steps, T_max, epochs)",
        "a floor (eta_min, min_lr) set as an absolute value for another peak",
        "a run stopped before the end of its schedule",
    ),
    apart={
        "rate-never-decayed": "the rate doesn't fall at all",
        "schedule-per-epoch": "the rate falls in equal stairs, hardly at all",
        "a run that goes on": "live runs, and runs whose settings name more steps, are not judged",
        "a step down that was meant": "a constant rate after one step: a note",
    },
    remedy=(
        "let the decay end with the run, at zero or a hundredth of the peak",
        "from this checkpoint: decay linearly to zero over a tenth to a fifth of the steps so far",
    ),
    tried="The habit of a floor of 0.1 is below the threshold; published curves with one step down to 0.3 or 0.6 are notes.",
    explains=(),
)


def check(view: RunView) -> list[Finding]:
    """One finding, at the end of the run."""
    rate = view.rate
    assert rate is not None  # required
    course = rate_course(rate.steps, rate.values)
    if course is None or view.unfinished:
        return []
    end = float(np.median(course.shares[-3:]))
    late = float(course.shares[int(0.8 * len(course.shares)) :].max())
    if not 0.2 < end < 0.95 or late > course.shares[int(0.8 * len(course.shares))] + 0.02 or _erratic(course):
        return []
    falls = float(course.shares[-max(2, len(course.shares) // 20)]) - end
    severity: Severity = "warning" if end > 0.3 and falls > 0.02 else "note"
    start, last = int(course.steps[course.leaves]), int(course.steps[-1])
    return [
        Finding(
            kind=CARD.name,
            title=f"The rate ends at {end:.0%} of its peak"
            + (", still falling" if severity == "warning" else ""),
            severity=severity,
            confidence=0.75,
            first_step=start,
            last_step=last,
            evidence=Evidence(
                text=f"The rate fell from {course.peak:.3g} at step {start:,} to {end * course.peak:.3g} at the end"
                + (
                    f", and by {falls:.1%} of its peak in the last twentieth of the run: the schedule is longer."
                    if severity == "warning"
                    else "."
                ),
                numbers={"start": start, "share": end, "falls": falls},
                plot=Plot(signals=(rate.name,), marks={"decay": start}),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def _erratic(course: RateCourse) -> bool:
    """Whether the rate goes up again after its peak, as controllers and restarts do."""
    return bool((np.diff(course.shares[course.warmed :]) > 0.01).any())


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="rate"),), check=check)
