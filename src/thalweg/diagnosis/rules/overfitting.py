"""The evaluation loss rises lastingly from its lowest point while the training loss goes on falling.

    rise = eval_end - min eval,        gap = min over s of the smoothed evaluation loss at s*

It counts if the rise is at least 4 times the noise of the evaluations, three or more of them follow the lowest, and the
later half of those lies above it by a third of the rise. With first the loss before training, it is a warning if the
rise is 0.12 of the progress (first - lowest) and the end above 0.3 of first, with no metric that improved since; or,
where no metric even held, if it is a fifth of the progress, or a tenth of the lowest value and 0.1. Else a note.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import MAD, centered_median, noise
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="overfitting",
    kind="rule",
    summary="The evaluation loss rises from its lowest point while the training loss falls.",
    papers=(6,),
    formula="eval_end - eval_{s*} > 4 noise, and train_end < train_{s*};  s* = argmin eval",
    symbols={
        "eval": "evaluation loss, median of three",
        "s*": "step of its lowest value",
        "noise": "robust standard deviation of neighboring evaluations about a straight line",
    },
    needs="an evaluation loss at five steps or more, and a training loss",
)
PAGE = Page(
    what="From some step on the model gets better on what it is trained on and worse on everything else. The steps after "
    "the lowest evaluation loss are lost unless its checkpoint was kept.",
    causes=(
        "more passes over the data than it bears",
        "a model large for its data, without weight decay, dropout, augmentation",
        "a rate kept high, or restarted, on data already seen",
    ),
    apart={
        "divergence": "the training loss rises as well",
        "evaluation-jump": "the evaluation is worse at once, from one evaluation to the next",
        "memorization": "the training loss is near zero and the evaluation loss never was good; it is then the cause",
        "over-confidence": "accuracy holds while the loss rises somewhat, as on memorized digits: a note",
    },
    remedy=(
        "use the checkpoint of the lowest evaluation loss, and stop there next time",
        "add data or augmentation, weight decay or dropout; or take a smaller model",
        "decay the rate so that it ends at that step",
    ),
    tried="Digits (1,000 and 4,000 of them, up to 3,000 steps), where memorized sets with a slowly rising loss and steady "
    "accuracy must stay notes, and 64 published runs of a 124M language model, none of which overfits.",
)


def check(view: RunView) -> list[Finding]:
    """One finding, at the step of the lowest evaluation loss."""
    curve, loss = view.evaluation, view.loss
    assert curve is not None and loss is not None  # required
    smooth = centered_median(curve.values, 3) if len(curve) >= 9 else curve.values
    best = int(np.argmin(smooth))
    after = curve.values[best + 1 :]
    if len(after) < 3:
        return []
    end = float(np.median(curve.values[-max(3, len(curve) // 10) :]))
    low, scale = float(smooth[best]), _noise(curve)
    rise = end - low
    first = max(float(curve.values[0]), float(np.median(loss.values[:5])))
    if low > 0.95 * first or rise < max(4 * scale, 0.02 * abs(low), 0.02 * (first - low)):
        return []
    later = after[len(after) // 2 :]
    if (later < low + rise / 3).mean() > 0.1 or not _falls(loss, int(curve.steps[best])):
        return []
    holding, improved = view.metric_since(int(curve.steps[best]))
    heavy = rise >= 0.12 * (first - low) and end >= 0.3 * first
    lost = rise >= 0.2 * (first - low) or (rise >= 0.1 and rise >= 0.1 * low)
    worse = (heavy and not improved) or (lost and not holding)
    severity: Severity = "warning" if worse else "note"
    step, last = int(curve.steps[best]), int(curve.steps[-1])
    return [
        Finding(
            kind=CARD.name,
            title=f"The evaluation loss was lowest at step {step:,} ({low:.3g}) and ends at {end:.3g}",
            severity=severity,
            confidence=0.5 if not worse else 0.8 if holding else 0.9,
            first_step=step,
            last_step=last,
            evidence=Evidence(
                text=f"Since step {step:,} the evaluation loss has risen by {rise:.3g}"
                + (f", {rise / scale:.0f} times its noise" if scale > 0 else "")
                + f", over {last - step:,} steps ({(last - step) / max(1, last):.0%} of the run), while the training loss fell "
                f"from {_near(loss, step):.3g} to {_near(loss, last):.3g}."
                + (f" {holding} did not get worse: the model grows over-confident." if holding else ""),
                numbers={
                    "best_step": step,
                    "best": low,
                    "end": end,
                    "rise": rise,
                    "steps_after": last - step,
                },
                plot=Plot(signals=(curve.name, loss.name), marks={"lowest": step}),
            ),
            remedy=f"Use the checkpoint of step {step:,}. {instruction(PAGE.remedy[1])}",
            papers=CARD.papers,
        )
    ]


def _noise(curve: Curve) -> float:
    """Noise of the evaluations: of their changes, or of the changes of these where they go one way."""
    bends = MAD * float(np.median(np.abs(np.diff(curve.values, 2)))) / float(np.sqrt(6))
    return min(noise(curve.values), bends)


def _near(loss: Curve, step: int) -> float:
    """Level of the training loss about a step: the median of a twentieth of the run."""
    half = max(3, len(loss) // 40)
    place = int(np.searchsorted(loss.steps, step))
    return float(np.median(loss.values[max(0, min(place, len(loss) - half) - half) : place + half]))


def _falls(loss: Curve, step: int) -> bool:
    """Whether the training loss is lower at the end than at a step."""
    before, end = _near(loss, step), _near(loss, int(loss.steps[-1]))
    return before - end > 0.03 * abs(before)


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="evaluation loss", least=5), SignalQuery(role="train loss")),
    check=check,
)
