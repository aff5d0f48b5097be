"""The rate stays at its peak to the end, although the loss has almost stopped falling.

With progress = first level - last level of the loss, a decay would help where the last third of the run brought less than
a quarter of it. How much cannot be read from a single curve: the gain is what the noise of the updates costs at this rate.
A linear decay to zero is the best worst-case choice (Defazio et al., "When, Why and How Much? Adaptive Learning Rate
Scheduling by Refinement", 2023), and a cooldown after a constant rate gives most of it (Schaipp et al., 2025; Hu et al.,
"MiniCPM", 2024).
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import levels, noise, rate_course
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="rate-never-decayed",
    kind="rule",
    summary="The rate is at its peak to the end, although the loss has almost stopped falling.",
    papers=(7, 24, 11),
    formula="rate_s >= 0.99 peak to the end, and level(2/3) - level(end) < progress / 4",
    symbols={
        "level": "median of a twelfth of the run",
        "progress": "first level - last level of the loss",
    },
    needs="a rate and a training loss",
)
PAGE = Page(
    what="At a constant rate the weights keep jittering about what they have learned. A decay over the last part of the run "
    "removes that and lowers the loss further, usually by more than the same steps at the constant rate.",
    causes=(
        "no scheduler, or a constant one",
        "the run was stopped, or its log ends, before the decay",
    ),
    apart={
        "schedule-not-stepped": "the settings name a schedule that decays",
        "plateau": "the loss would not fall with a decay either; only trying tells",
        "a run that goes on": "live runs, and runs whose settings name more steps, are not judged",
        "a stable phase": "a constant rate to branch cooldowns from is meant: this is a note",
    },
    remedy=(
        "decay the rate linearly to zero over the last fifth of the run, from a checkpoint if there is one",
        "thalweg forecast says what a decay would give, for language models",
    ),
    tried="Digits and small GPTs of 100 to 3,000 steps and published curves of language models, in which constant rates end "
    "0.04 to 0.08 nats above decayed ones (GPTs of 25M and 100M parameters, 24,000 steps).",
    explains=("plateau",),
)


def check(view: RunView) -> list[Finding]:
    """One finding, from the end of the warm-up on."""
    loss, rate = view.loss, view.rate
    assert loss is not None and rate is not None  # required
    course = rate_course(rate.steps, rate.values)
    if (
        view.unfinished
        or course is None
        or not course.constant
        or course.part(course.warmed) > 0.5
        or len(loss) < 100
    ):
        return []
    _, level = levels(loss.steps, loss.values, 12)
    progress, recent = float(level[0] - level[-1]), float(level[8] - level[-1])
    if progress <= 0 or recent > 0.25 * progress or level[-1] < 0.02 * level[0]:
        return []
    jitter = noise(loss.values[-len(loss) // 3 :])
    stuck = abs(float(np.median(level[5:8]) - np.median(level[-3:]))) < 0.01 * progress
    severity: Severity = (
        "warning" if stuck and level[-1] > 0.2 * level[0] and jitter > 0.1 * progress else "note"
    )
    first, last = int(course.steps[course.warmed]), int(course.steps[-1])
    return [
        Finding(
            kind=CARD.name,
            title=f"The rate stays at {course.peak:.3g} to the end; the last third brought {max(recent, 0) / progress:.0%} of "
            "the progress",
            severity=severity,
            confidence=0.7,
            first_step=first,
            last_step=last,
            evidence=Evidence(
                text=f"From step {first:,} to {last:,} the rate is constant. The loss fell by {progress:.3g} in all, by "
                f"{recent:.2g} in the last third, where its noise from value to value is {jitter:.2g}. How much a decay would "
                "gain can't be read from this curve alone.",
                numbers={"rate": course.peak, "progress": progress, "recent": recent, "noise": jitter},
                plot=Plot(signals=(rate.name, loss.name)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="rate"), SignalQuery(role="train loss", least=40)),
    check=check,
)
