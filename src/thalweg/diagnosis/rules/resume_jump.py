"""The loss jumps where the run was resumed.

At each resumption the first losses are compared with the last ones before it (the earlier process's own, also those that
were replaced). It counts if the medians of ten and twenty values differ by 2.5 times the noise and a tenth of all progress,
or if the median of five rises among the first twenty by 5 times the noise and a twentieth of the progress. Where the loss is
too noisy for that, an update norm that begins at 1.8 times its last level, and 1.3 times the highest of the last eight.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import MAD, median_of_five
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="resume-jump",
    kind="rule",
    summary="The loss jumps where the run was resumed.",
    formula="|med10(after) - med20(before)| > max(2.5 noise, 0.1 progress), or a rise of max(5 noise, 0.05 progress)",
    symbols={
        "before, after": "losses on both sides of the resumption",
        "noise": "the larger of 1.4826 MAD and (95th percentile - median) / 1.645 of the last values before",
        "progress": "first level of the loss - lowest",
    },
    needs="a training loss on both sides of a resumption",
)
PAGE = Page(
    what="A resumed run should go on as if nothing had happened. If the loss jumps, something was not restored: the run "
    "is another one from there on, and comparisons across the place are void.",
    causes=(
        "the optimizer's state was not loaded: the loss rises and comes back",
        "the data loader began anew: examples seen before come again, the loss drops (or easy ones come first)",
        "the scheduler or the scaler was not restored: the rate jumps",
        "weights of another step or of an average were loaded",
    ),
    apart={
        "loss-spike": "it doesn't begin at a resumption",
        "overlap": "a process resumed from an earlier checkpoint repeats steps: compared with those it replaced",
        "a new task": "a run that was resumed on other data jumps as it should",
    },
    remedy=(
        "save and load all of it: model, optimizer, scheduler, scaler, random state and the place in the data",
        "compare the first loss after loading with the one of the same batch before saving: they must be equal",
    ),
    tried="Digits resumed without Adam's state (seen in the update norm only) or with a restarted loader, and synthetic faithful "
    "resumptions.",
    explains=("loss-spike", "divergence", "plateau", "evaluation-jump"),
)


@dataclass(frozen=True)
class Seam:
    """Losses on both sides of a resumption."""

    step: int
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    steps: NDArray[np.int64]
    repeated: float  # what the earlier process had at the first steps after; NaN if it never came there

    @property
    def noise(self) -> float:
        """Of the losses before."""
        middle = float(np.median(self.before))
        tail = (float(np.percentile(self.before, 95)) - middle) / 1.645
        return max(MAD * float(np.median(np.abs(self.before - middle))), tail, 1e-9 * abs(middle))

    @property
    def shift(self) -> float:
        """Change of the level."""
        return float(np.median(self.after[:10]) - np.median(self.before))

    @property
    def rise(self) -> float:
        """Highest median of five among the first twenty, above the level before."""
        return float(median_of_five(self.after[:20]).max() - np.median(self.before))


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding for the largest jump, which counts the others."""
    loss = view.loss
    assert loss is not None  # required
    if not view.resumptions:
        return []
    seams = [seam for step in view.resumptions if (seam := _seam(view, step)) is not None]
    if not seams:
        lacked = "train loss with 8 values or more on both sides of a resumption"
        return NotEvaluable(kind=CARD.name, lacked=lacked, record="watch.log(loss=loss)")
    smooth = median_of_five(loss.values)
    progress = float(np.median(loss.values[:5])) - float(smooth.min())
    jumps = [s for s in seams if _jumps(s, progress)]
    if not jumps:
        return next((found for seam in seams if (found := _updates_leap(view, seam.step))), [])
    worst = max(jumps, key=lambda s: max(abs(s.shift), s.rise))
    return [_finding(view, loss.name, worst, len(jumps))]


def _seam(view: RunView, step: int) -> Seam | None:
    loss = view.loss
    assert loss is not None
    name = loss.name.removeprefix(f"{view.key}:") if view.key else loss.name
    part = min((p.id for p in view.run.segments if p.id > 0 and p.first_step == step), default=0)
    earlier, later = view.whole(name, part - 1), view.whole(name, part)
    if not part or earlier is None or later is None:
        return None
    before, again = earlier.values[earlier.steps < step][-20:], earlier.values[earlier.steps >= step][:10]
    if len(before) < 8 or len(later) < 8:
        return None
    repeated = float(np.median(again)) if len(again) >= 5 else float("nan")
    return Seam(step, before, later.values[:40], later.steps[:40], repeated)


def _jumps(seam: Seam, progress: float) -> bool:
    level = abs(seam.shift) > max(2.5 * seam.noise, 0.1 * progress, 0.05 * abs(float(np.median(seam.before))))
    return level or seam.rise > max(5 * seam.noise, 0.05 * progress)


def _finding(view: RunView, name: str, seam: Seam, count: int) -> Finding:
    up = seam.rise > -seam.shift
    change = seam.rise if up else seam.shift
    level = float(np.median(seam.before))
    back = np.flatnonzero(seam.after <= level + 2 * seam.noise)
    returned = up and len(back) > 0 and abs(float(np.median(seam.after[-8:])) - level) <= 2 * seam.noise
    if up and returned:
        guess = "it came back: state of the optimizer that was not restored does that"
    elif up:
        guess = "it has not come back soon: other weights, another rate, or other data"
    else:
        guess = "it is lower than before: data that were seen already, or easier ones, as when a loader begins anew"
    text = (
        f"The loss stood at {level:.4g} before the resumption at step {seam.step:,} and "
        f"{'rose' if up else 'fell'} by {abs(change):.3g} ({abs(change) / seam.noise:.0f} times its noise) in the first steps after; {guess}."
    )
    if np.isfinite(seam.repeated):
        text += f" The earlier process had {seam.repeated:.4g} at those steps."
    text += _rate(view, seam.step)
    more = f" (the largest of {count})" if count > 1 else ""
    return Finding(
        kind=CARD.name,
        title=f"The loss {'rises' if up else 'falls'} by {abs(change):.3g} where the run was resumed, at step {seam.step:,}{more}",
        severity="warning",
        confidence=0.85,
        first_step=seam.step,
        last_step=int(seam.steps[-1]),
        evidence=Evidence(
            text=text,
            numbers={
                "step": seam.step,
                "before": level,
                "change": change,
                "noise": seam.noise,
                "count": count,
            },
            plot=Plot(
                signals=(name,),
                first=max(0, seam.step - 3 * (int(seam.steps[-1]) - seam.step)),
                last=int(seam.steps[-1]),
                marks={"resumed": seam.step},
            ),
        ),
        remedy=instruction(*PAGE.remedy[:2]),
    )


def _updates_leap(view: RunView, step: int) -> list[Finding]:
    """An update norm that begins far above all of the last ones: Adam's first updates have full size."""
    curve = view.curve("update norm")
    if curve is None:
        return []
    before, after = curve.values[curve.steps < step][-8:], curve.values[curve.steps >= step][:3]
    if (
        len(before) < 5
        or not len(after)
        or float(after.max()) < max(1.8 * np.median(before), 1.3 * before.max())
    ):
        return []
    at = int(curve.steps[curve.steps >= step][int(np.argmax(after))])
    factor = float(after.max() / np.median(before))
    return [
        Finding(
            kind=CARD.name,
            title=f"The update norm is {factor:.1f} times its level after the resumption at step {step:,}",
            severity="warning",
            confidence=0.82 if factor >= 2 else 0.65,
            first_step=step,
            last_step=at,
            evidence=Evidence(
                text=f"The last {len(before)} update norms before the resumption at step {step:,} had a median of "
                f"{np.median(before):.3g} and were at most {before.max():.3g}; at step {at:,} it is {after.max():.3g}. The loss shows "
                "no clear jump. Optimizer state that was not restored does that.",
                numbers={"step": step, "factor": factor},
                plot=Plot(
                    signals=(curve.name,),
                    first=int(curve.steps[curve.steps < step][-8:][0]),
                    last=at + 5 * (at - step + 1),
                    marks={"resumed": step},
                ),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
        )
    ]


def _rate(view: RunView, step: int) -> str:
    """What the rate did there, if it jumped."""
    rate = view.rate
    if rate is None or not len(rate):
        return ""
    place = int(np.searchsorted(rate.steps, step))
    if not 0 < place < len(rate):
        return ""
    old, new = float(rate.values[place - 1]), float(rate.values[place])
    return (
        f" The rate went from {old:.3g} to {new:.3g} there." if old > 0 and not 0.8 < new / old < 1.25 else ""
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss"),), check=check)
