"""The rate changes in equal stairs, once an epoch, where a change at every step was meant.

Stairs are stretches of one value, all of the same length or a multiple of it (within a tenth), at least three of them and five values long. They
are usual for schedules that are counted in epochs and come to their end; so they count only if the rate is still above
half of its peak at the end, and either rises in three stairs or more (a warm-up counted in epochs) or the settings name
a schedule that decays.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, instruction
from thalweg.diagnosis.statistics import rate_course
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="schedule-per-epoch",
    kind="rule",
    summary="The rate changes once an epoch where a change at every step was meant.",
    formula="rate is constant over equal stretches of L >= 5 values, and ends above 0.5 peak",
    symbols={"L": "length of a stretch; an epoch"},
    needs="a rate; the settings tell which schedule was meant",
)
PAGE = Page(
    what="A schedule planned in steps is stepped once an epoch, so it runs as many times too slowly as an epoch has steps: "
    "warm-up lasts tens of epochs, and the decay hardly begins.",
    causes=(
        "scheduler.step() stands at the end of the epoch instead of after optimizer.step()",
        'a framework steps it each epoch unless told otherwise (Lightning: "interval": "step")',
    ),
    apart={
        "a schedule counted in epochs": "it comes to its end with the run: not reported",
        "schedule-not-stepped": "the rate doesn't change at all",
        "rate-floor-high": "the rate changes at every step",
    },
    remedy=(
        "call scheduler.step() after every optimizer.step()",
        "or give the schedule its length and warm-up in epochs",
    ),
    tried="Stairs of 5 values and more; schedules by epoch that come to their end must stay silent.",
    explains=("rate-floor-high", "rate-never-decayed", "rate-low", "plateau"),
)


def check(view: RunView) -> list[Finding]:
    """One finding for the whole run."""
    rate = view.rate
    assert rate is not None  # required
    course = rate_course(rate.steps, rate.values)
    if course is None or view.unfinished:
        return []
    changes = np.flatnonzero(np.abs(np.diff(course.shares)) > 1e-9) + 1
    lengths = np.diff(np.concatenate([[0], changes]))  # the last stretch may be cut short
    if len(changes) < 3:
        return []
    length = float(np.median(lengths))
    uneven = np.abs(
        lengths - np.maximum(1, np.round(lengths / length)) * length
    )  # two stairs may be of one height
    if length < 5 or (uneven > max(1.0, 0.1 * length)).any():
        return []
    rises = int((np.diff(course.shares)[changes - 1] > 0.001).sum())
    end = float(course.shares[-1])
    named = str(view.planned.get("schedule", ""))
    decays = bool(named) and not named.startswith(("const", "none"))
    if end < 0.5 or not (rises >= 3 or (decays and end > 0.7)):
        return []
    epoch = round(length * rate.spacing)
    surely = rises >= 3 and (decays or "warmup" in view.planned)
    return [
        Finding(
            kind=CARD.name,
            title=f"The rate changes every {epoch:,} steps only, and ends at {end:.0%} of its peak",
            severity="warning",
            confidence=0.9 if surely else 0.7,
            first_step=int(course.steps[0]),
            last_step=int(course.steps[-1]),
            evidence=Evidence(
                text=f"The rate is constant over stretches of {epoch:,} steps, {len(changes) + 1} of them"
                + (f"; it rises in {rises} of the {len(changes)} changes" if rises else "")
                + f", and ends at {end:.1%} of its peak ({course.peak:.3g})"
                + (f" although the settings name {named!r}." if decays else "."),
                numbers={"epoch": epoch, "changes": len(changes), "rises": rises, "end": end},
                plot=Plot(signals=(rate.name,), marks={"first change": int(course.steps[changes[0]])}),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
        )
    ]


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="rate"),), check=check)
