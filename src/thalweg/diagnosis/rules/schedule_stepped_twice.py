r"""The schedule runs several times as fast as the run: it is over at a half (a third, ...) of it, or turns upward there.

Three signs are looked for, each with a whole factor k from 2 to 8:

- the warm-up in the record is a k-th of the one in the settings,
- the rate falls smoothly from early on and stays at its floor from the k-th part of the run,
- the rate turns at its floor and climbs back as it came: a cosine that is asked beyond its end.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import RateCourse, rate_course
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="schedule-stepped-twice",
    kind="rule",
    summary="The schedule is over at a half of the run, or turns upward there: it is stepped more than once a step.",
    formula="warm-up planned / warm-up seen = k, or S / s_floor = k, within 8 %;  k in 2..8",
    symbols={
        "S": "steps of the run",
        "s_floor": "step at which the rate comes to its floor",
        "k": "whole factor",
    },
    needs="a rate; the settings make it surer",
)
PAGE = Page(
    what="The rate is at its end while the run is at its half. The rest is trained at the floor, or with a rate that climbs "
    "again where a cosine is followed beyond its end.",
    causes=(
        "scheduler.step() is called in the loop and by the framework as well",
        "a prepared scheduler steps once for every process (Accelerate), or once for every micro-batch",
        "total steps counted in updates, stepped in batches (or the other way round)",
    ),
    apart={
        "rate-decayed-early": "the decay ends at no simple part of the run",
        "a schedule of several cycles": "it comes down more than once: a note",
        "warm restarts": "the rate leaps up instead of climbing: not reported",
    },
    remedy=(
        "step the scheduler once for each optimizer.step(), in one place",
        "give it the number of updates, not of batches or samples",
    ),
    tried="Whole factors within 8 % of the run's length; cosine, linear, WSD and warm restarts must stay silent.",
    explains=("rate-decayed-early", "plateau", "rate-low", "rate-floor-high"),
)


@dataclass(frozen=True)
class Sign:
    """Why the schedule seems to be stepped ``factor`` times a step."""

    factor: int
    step: int
    severity: Severity
    confidence: float
    text: str


def check(view: RunView) -> list[Finding]:
    """One finding, from the first step on; the plot marks where the schedule came to its end."""
    rate = view.rate
    assert rate is not None  # required
    course = rate_course(rate.steps, rate.values)
    if course is None:
        return []
    sign = _turning(course) or _over_early(view, course) or _warmup(view, course)
    if sign is None:
        return []
    words = {2: "twice", 3: "three times"}.get(sign.factor, f"{sign.factor} times")
    return [
        Finding(
            kind=CARD.name,
            title=f"The schedule {'may be' if sign.severity == 'note' else 'is'} stepped {words} a step: {sign.text}",
            severity=sign.severity,
            confidence=sign.confidence,
            first_step=int(course.steps[0]),
            last_step=int(course.steps[-1]),
            evidence=Evidence(
                text=f"{sign.text[0].upper()}{sign.text[1:]}.",
                numbers={"factor": sign.factor, "step": sign.step},
                plot=Plot(signals=(rate.name,), marks={"end of the schedule": sign.step}),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
        )
    ]


def _whole(long: float, short: float) -> int:
    """The whole factor from 2 to 8 between two lengths, within 8 % or a step; 0 if there is none."""
    factor = round(long / short) if short > 0 else 0
    return factor if 2 <= factor <= 8 and abs(long - factor * short) <= max(0.08 * long, factor) else 0


def _seen_warmup(course: RateCourse) -> int:
    """Updates of a linear warm-up; 0 if there is none, or too few values to say."""
    return int(course.steps[course.warmed] - course.steps[0]) + 1 if course.warmed >= 4 else 0


def _warmup(view: RunView, course: RateCourse) -> Sign | None:
    planned, seen = float(view.planned.get("warmup", 0)), _seen_warmup(course)
    factor = _whole(planned, seen)
    if not factor or planned > 0.9 * view.last_step:
        return None
    text = f"the warm-up took {seen:,} of the {planned:,.0f} steps in the settings"
    return Sign(factor, int(course.steps[course.warmed]), "warning", 0.75, text)


def _over_early(view: RunView, course: RateCourse) -> Sign | None:
    """A decay from early on that is over at a whole part of the run, and stays there."""
    floor = float(course.shares[-1])
    fell = np.flatnonzero(course.shares > floor + 0.002)
    end = int(fell[-1]) + 1 if len(fell) else 0
    if floor > 0.5 or end >= len(course.shares) or course.part(course.warmed) > 0.2 or _stairs(course, end):
        return None
    part = course.part(end)
    whole, done = (int(course.steps[at] - course.steps[0]) for at in (-1, end))
    factor = _whole(whole, done)
    if not factor or course.part(course.leaves) > 0.35 * part:
        return None
    hint = _warmup(view, course)
    named = view.planned.get("schedule", "")
    sure = 0.95 if hint is not None and hint.factor == factor else 0.8 if named else 0.6
    text = f"it is over at step {int(course.steps[end]):,}, {part:.0%} of the run"
    return Sign(
        factor, int(course.steps[end]), "warning", sure, text + (f", and {hint.text}" if hint else "")
    )


def _stairs(course: RateCourse, end: int) -> bool:
    """Whether the decay is made of a few steps down."""
    return int((np.abs(np.diff(course.shares[: end + 1])) > 1e-6).sum()) < 8


def _turning(course: RateCourse) -> Sign | None:
    """A smooth climb back after the floor."""
    shares = course.shares
    lowest = course.warmed + int(np.argmin(shares[course.warmed :]))
    after = shares[lowest:]
    if len(after) < 8 or shares[lowest] > 0.2 or after.max() < shares[lowest] + 0.3:
        return None
    climbs = np.diff(after[: int(np.argmax(after)) + 1])
    if len(climbs) < 5 or climbs.max() > 0.3 * (after.max() - after[0]) or (climbs < -1e-3).any():
        return None
    before = shares[max(0, lowest - len(climbs)) : lowest + 1][::-1]
    size = min(len(before), len(climbs) + 1)
    if np.abs(before[:size] - after[:size]).max() > 0.15:
        return None
    down = (np.diff(shares[course.warmed :]) < 0).astype(int)
    cycles = int((np.diff(down) == 1).sum()) + 1
    factor = max(2, round(1 / course.part(lowest))) if course.part(lowest) > 0 else 2
    text = f"the rate climbs again after its floor at step {int(course.steps[lowest]):,}"
    severity: Severity = "warning" if cycles <= 1 else "note"
    return Sign(factor, int(course.steps[lowest]), severity, 0.8 if cycles <= 1 else 0.4, text)


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="rate"),), check=check)
