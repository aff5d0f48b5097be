"""Evaluation is far worse than training, at once: the model is evaluated in another state than it is trained in.

Two forms. A leap: between two neighboring evaluations the level rises by half of the progress or more and by 5 times the
noise of the evaluations, while the training loss changes by less than a fifth of that. A gap: while the training loss is
between 0.1 and 0.6 of its first value, evaluations are above it by half of it and by 0.17 of the first value, from nearly
the first of them on, twice at least, the gap shrinks later or is there four times, and evaluation does not rise to the end. A gap
that comes of learning by heart opens late and grows; batch normalization with statistics that lag, inputs that are prepared
differently, or evaluation on batches of one class show it from the start. Two look-alikes are told apart: evaluations that
are the same multiple of the training loss throughout are in other units, and a gap that is below a tenth of the first loss
in the whole later half of the run has healed: a note.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import median_of_five, noise
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="evaluation-jump",
    kind="rule",
    summary="Evaluation is far worse than training at once, while training goes on as before.",
    formula="eval_j - eval_{j-1} > max(progress / 2, 5 noise); or eval - train > max(train / 2, 0.17 first) early, and no rise later",
    symbols={
        "eval": "evaluation loss",
        "train": "median of the last training losses before the evaluation",
        "first": "first training loss",
        "progress": "first - lowest evaluation loss",
        "noise": "robust standard deviation of what changes between neighboring evaluations",
    },
    needs="an evaluation loss at four steps or more, and a training loss",
)
PAGE = Page(
    what="The number that decisions are made by is not that of the model being trained. Training itself may be fine.",
    causes=(
        "model.eval() or model.train() is missing, so that dropout or batch statistics are those of the other mode",
        "running statistics of BatchNorm that lag (tiny momentum) or come of other data, frozen or not synchronized",
        "inputs prepared differently: normalization, tokenization, padding",
        "evaluation on sorted batches in training mode: each batch is normalized by its own class",
    ),
    apart={
        "overfitting": "the gap opens late and grows, evaluation had been as good as training",
        "memorization": "evaluation gets worse as the training loss goes to zero",
        "a harder evaluation set": "looks the same from the start: evaluate on training examples to tell",
        "averaged weights": "an EMA of weights lags behind in the beginning and catches up: a note",
        "other units": "a loss that is summed in evaluation is the same multiple of the training loss throughout: not reported",
    },
    remedy=(
        "evaluate on the training batches of the last steps, in the same way: the loss must be about that of training",
        "call model.eval() before and model.train() after; raise the momentum of BatchNorm or recompute its statistics",
    ),
    tried="Small convolutional networks with BatchNorm on digits, and 64 published runs of a language model. Statistics that lag "
    "only a little, so that evaluation catches up within the first tenth of a run, are not seen.",
    explains=("overfitting",),
)
_SAME_MULTIPLE = 0.1  # scatter of the logarithm of evaluation by training
_HEALED = 0.1  # of the first loss


def check(view: RunView) -> list[Finding]:
    """One finding: a leap, or a gap from the start."""
    evaluation, loss = view.evaluation, view.loss
    assert evaluation is not None and loss is not None  # required
    smooth = median_of_five(loss.values)
    places = np.searchsorted(loss.steps, evaluation.steps, side="right") - 1
    few = max(2, min(10, len(loss) // 100))
    train = np.array(
        [np.median(loss.values[max(0, p - few) : p + 1]) if p >= 0 else smooth[0] for p in places]
    )
    first = float(np.median(loss.values[:3]))
    return _leap(evaluation, loss, train) or _gap(evaluation, loss, train, first)


def _leap(
    evaluation: Curve, loss: Curve, train: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> list[Finding]:
    """A rise from one evaluation to the next that training doesn't share, and that lasts three evaluations."""
    x = evaluation.values
    if len(x) < 8:
        return []
    rises = np.diff(x)
    at = int(np.argmax(rises)) + 1
    before, after = float(np.median(x[max(0, at - 3) : at])), float(np.median(x[at : at + 3]))
    rise = after - before
    progress = float(x[0]) - float(x[:at].min())
    shared = float(np.median(train[at : at + 3]) - np.median(train[max(0, at - 3) : at]))
    scale = max(noise(x), 1e-9 * abs(before))
    usual = float(np.sort(np.abs(rises))[-2])
    if (
        at < 3
        or at + 3 > len(x)
        or rise < max(0.5 * progress, 5 * scale, 0.2 * abs(before), 0.7 * rises[at - 1])
    ):
        return []
    if shared > 0.2 * rise or rises[at - 1] < 3 * usual:
        return []
    step = int(evaluation.steps[at])
    text = (
        f"From step {int(evaluation.steps[at - 1]):,} to {step:,} the evaluation loss went from {before:.3g} to {after:.3g}, "
        f"{rise / scale:.0f} times its noise, while the training loss moved by {shared:+.2g}."
    )
    title = f"The evaluation loss leaps from {before:.3g} to {after:.3g} at step {step:,}, training does not"
    numbers = {"step": step, "before": before, "after": after, "train_change": shared}
    return [_finding(evaluation, loss, title, text, step, 0.8, numbers)]


def _gap(
    evaluation: Curve, loss: Curve, train: "np.ndarray[tuple[int], np.dtype[np.float64]]", first: float
) -> list[Finding]:
    """An evaluation loss that is far above training from the start on, and comes nearer later."""
    x = evaluation.values
    early = np.flatnonzero((train < 0.6 * first) & (train > 0.1 * first))
    start = max(first, float(loss.values[0]))  # means over many steps fall fast at first
    wide = early[x[early] - train[early] > np.maximum(0.5 * train[early], 0.17 * start)]
    if len(wide) < 2 or first <= 0 or wide[0] > early[0] + 2 or early[0] > len(x) // 3:
        return []
    if (x > 0).all() and float(np.std(np.log(x / np.maximum(train, 1e-30)))) < _SAME_MULTIPLE:
        return []
    gaps = x - train
    opened, last = float(np.max(gaps[wide[:2]])), float(np.median(gaps[-3:]))
    rises = float(np.median(x[-3:])) > 1.1 * float(x.min())
    stays = int((gaps > 0.17 * first).sum()) >= 4
    if rises or (last > 0.8 * opened and not stays):
        return []
    step = int(evaluation.steps[wide[0]])
    text = (
        f"At step {step:,} the training loss had fallen to {train[wide[0]]:.3g} of {first:.3g} and evaluation stood at "
        f"{x[wide[0]]:.3g}, in {len(wide)} evaluations of that time; at the end the gap is {last:.2g}. Evaluation does not rise, as it "
        "does where examples are learned by heart."
    )
    later = gaps[evaluation.steps > (loss.steps[0] + loss.steps[-1]) / 2]
    healed = len(later) >= 3 and float(later.max()) < _HEALED * first
    title = f"The evaluation loss is {opened:.2g} above the training loss from the start on, first at step {step:,}"
    title += ", and catches up by half of the run" if healed else ""
    numbers = {"step": step, "gap": opened, "last_gap": last}
    return [_finding(evaluation, loss, title, text, step, 0.55, numbers, "note" if healed else "warning")]


def _finding(
    evaluation: Curve,
    loss: Curve,
    title: str,
    text: str,
    step: int,
    confidence: float,
    numbers: dict[str, float],
    severity: Severity = "warning",
) -> Finding:
    return Finding(
        kind=CARD.name,
        title=title,
        severity=severity,
        confidence=confidence,
        first_step=step,
        last_step=int(evaluation.steps[-1]),
        evidence=Evidence(
            text=text,
            numbers=numbers,
            plot=Plot(signals=(evaluation.name, loss.name), marks={"apart": step}),
        ),
        remedy=instruction(*PAGE.remedy[:2]),
    )


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="evaluation loss", least=4), SignalQuery(role="train loss")),
    check=check,
)
