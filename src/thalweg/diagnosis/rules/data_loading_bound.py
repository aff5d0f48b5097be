"""Steps wait for data: by the time that is recorded for it, or by slow steps that come back like clockwork.

Where the time to get a batch is logged, its share of the step is what counts. Where only step times are, slow steps are
those above three times the median and 10 ms above it. Workers that can't keep up make every k-th step slow: it counts if
three quarters of the slow steps fall on one rhythm of three steps or more, three quarters of the steps of that rhythm are
slow, three tenths of all time is lost in them, and they are not the steps of evaluations or measurements. Irregular slow
steps may be anything else on the machine: they are not reported.
"""

import re

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="data-loading-bound",
    kind="rule",
    summary="A large part of the time of a step is spent waiting for data.",
    formula="sum time_data / sum time_step > 0.3; or sum over slow steps > 0.3 of all, every k-th step",
    symbols={"slow": "a step longer than three times the median, by 10 ms at least"},
    needs="the time of a step; better, the time to get a batch (watch.log({'time/data': seconds}))",
)
PAGE = Page(
    what="The accelerator stands idle while the next batch is read, decoded or copied. The run costs its time and learns nothing "
    "more for it.",
    causes=(
        "too few loader workers, or none: the batch is made in the loop",
        "decoding and augmentation heavier than the step itself",
        "a network file system, small files, a cold cache",
    ),
    apart={
        "evaluation or checkpoints": "their steps are slow too: left out where they are recorded",
        "the measurement itself": "steps at which instruments run are left out",
        "other work on the machine": "slow steps at no fixed distance: not reported",
    },
    remedy=(
        "log the time to get a batch: watch.log({'time/data': seconds}), to be sure",
        "more workers (num_workers, prefetch_factor, persistent_workers), pinned memory, data on a local disk or packed",
        "move decoding and augmentation to the accelerator, or do them once beforehand",
    ),
    tried="Small networks on a machine that was busy with other work, whose steps have long tails; loaders that sleep.",
    explains=(),
)

_DATA = re.compile(r"(?:^|[/_.\-])(?:data|dataload|dataloader|loader|loading|fetch)(?:$|[/_.\-])")
_LEAST_EXCESS = 0.01  # seconds that a slow step must lose for a person to care


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding, for the whole run."""
    step = view.curve("step time")
    data = next(
        (
            c
            for n in view.specs
            if ("time" in n or "_s" in n) and _DATA.search(n.lower()) and (c := view.named(n))
        ),
        None,
    )
    if step is None or len(step) < 40:
        return NotEvaluable(
            kind=CARD.name,
            lacked="step time at 40 steps or more",
            record="watch = tw.watch(model, optimizer)",
        )
    if data is not None and len(data) >= 20:
        return _by_data(step, data)
    return _by_tails(view, step)


def _by_data(step: Curve, data: Curve) -> list[Finding]:
    waits, takes = float(data.values.mean()), float(step.values.mean())
    share = waits / takes if takes > 0 else 0.0
    if not 0.3 < share <= 1.2:
        return []
    text = f"A step took {takes:.3g} on average, of which {waits:.3g} to get the batch ({data.name})."
    title = f"{min(share, 1.0):.0%} of the time is spent waiting for data"
    return [_finding(step, (step.name, data.name), title, text, 0.9, {"share": share, "wait": waits})]


def _by_tails(view: RunView, step: Curve) -> list[Finding]:
    x = step.values
    usual = float(np.median(x))
    unit = 1.0 if usual < 10 else 1000.0  # seconds, or milliseconds
    mask = x > np.maximum(3 * usual, usual + _LEAST_EXCESS * unit)
    mask[: max(3, len(x) // 50)] = False  # the first steps compile, allocate and fill caches
    slow = step.steps[mask]
    if len(slow) < 8 or _explained(view, slow):
        return []
    distances, counts = np.unique(np.diff(slow), return_counts=True)
    every = int(distances[np.argmax(counts)])
    places, counts = np.unique(slow % every, return_counts=True)
    beat = step.steps % every == places[np.argmax(counts)]
    lost = float((x[mask & beat] - usual).sum() / x.sum())
    steady = min(float((mask & beat).sum() / max(1, part.sum())) for part in (mask, beat))
    if every < 3 * step.spacing or steady < 0.75 or lost < 0.3:
        return []
    text = (
        f"{len(slow):,} of {len(x):,} steps took more than three times the median ({usual:.3g}), most of them every {every} steps; {lost:.0%} of "
        "all time was lost in them. Batches that are not ready do that; nothing recorded here says so directly."
    )
    title = f"{lost:.0%} of the time goes into slow steps, every {every} steps"
    numbers = {"share": lost, "every": every, "slow": len(slow)}
    return [_finding(step, (step.name,), title, text, 0.65, numbers)]


def _explained(view: RunView, slow: NDArray[np.int64]) -> bool:
    """Whether most slow steps are those of evaluations or of measurements that are taken now and then."""
    for name in view.specs:
        if (
            not name.startswith(("update/norm", "weight/norm", "grad/norm", "eval", "memory/"))
            or name.count("/") > 1
        ):
            continue
        curve = view.named(name)
        if curve is None or len(curve) < 3 or curve.spacing < 2:
            continue
        near = np.searchsorted(curve.steps, slow)
        low, high = curve.steps[np.maximum(near - 1, 0)], curve.steps[np.minimum(near, len(curve) - 1)]
        if float((np.minimum(np.abs(slow - low), np.abs(high - slow)) <= 1).mean()) > max(
            0.6, 4 / curve.spacing
        ):
            return True
    return False


def _finding(
    step: Curve,
    signals: tuple[str, ...],
    title: str,
    text: str,
    confidence: float,
    numbers: dict[str, float],
) -> Finding:
    return Finding(
        kind=CARD.name,
        title=title,
        severity="warning",
        confidence=confidence,
        first_step=int(step.steps[0]),
        last_step=int(step.steps[-1]),
        evidence=Evidence(text=text, numbers=numbers, plot=Plot(signals=signals)),
        remedy=instruction(PAGE.remedy[1])
        if len(signals) > 1
        else instruction(PAGE.remedy[0], f"then {PAGE.remedy[1]}"),
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="step time"),), check=check)
