"""Evaluation is far worse than training, at once: the model is evaluated in another state than it is trained in.

Two forms. A leap: between two neighboring evaluations the level rises by half of the progress or more and by 5 times the
noise of the evaluations, while the training loss changes by less than a fifth of that. A gap: while the training loss is
between 0.1 and 0.6 of its first value, evaluations are above it by half of it and by 0.17 of the first value, twice at
least, and that gap shrinks afterwards. A gap that comes of learning by heart opens late and grows; batch normalization
with statistics that lag, or evaluation on batches of one class, shows it from the start.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot
from thalweg.diagnosis.statistics import median_of_five, noise
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="evaluation-jump",
    kind="rule",
    summary="Evaluation is far worse than training at once, while training goes on as before.",
    formula="eval_j - eval_{j-1} > max(progress / 2, 5 noise); or eval - train > max(train / 2, 0.17 first) early, then less",
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
    },
    remedy=(
        "evaluate on the training batches of the last steps, in the same way: the loss must be about that of training",
        "call model.eval() before and model.train() after; raise the momentum of BatchNorm or recompute its statistics",
    ),
    tried="Small convolutional networks with BatchNorm on digits, and 64 published runs of a language model. Statistics that lag "
    "only a little, so that evaluation catches up within the first tenth of a run, are not seen.",
    explains=("overfitting",),
)


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
    wide = early[x[early] - train[early] > np.maximum(0.5 * train[early], 0.17 * first)]
    if len(wide) < 2 or first <= 0 or len(x) < 4:
        return []
    gaps = x - train
    opened, last = float(np.max(gaps[wide[:2]])), float(np.median(gaps[-3:]))
    begins_good = early[0] > 0 and float((gaps[: early[0]] < 0.05 * first).mean()) > 0.5
    soon = wide[0] <= early[0] + 1 and (not begins_good or wide[0] == early[0])
    if last > 0.8 * opened or float(np.median(x[-3:])) > 1.1 * float(x.min()) or not soon:
        return []
    step = int(evaluation.steps[wide[0]])
    text = (
        f"At step {step:,} the training loss had fallen to {train[wide[0]]:.3g} of {first:.3g} and evaluation stood at "
        f"{x[wide[0]]:.3g}; the gap has shrunk from {opened:.3g} to {last:.2g} since, while one that comes of learning by heart "
        "would have grown."
    )
    title = f"Evaluation is {opened:.2g} worse than training from the start, at step {step:,}"
    numbers = {"step": step, "gap": opened, "last_gap": last}
    return [_finding(evaluation, loss, title, text, step, 0.55, numbers)]


def _finding(
    evaluation: Curve,
    loss: Curve,
    title: str,
    text: str,
    step: int,
    confidence: float,
    numbers: dict[str, float],
) -> Finding:
    return Finding(
        kind=CARD.name,
        title=title,
        severity="warning",
        confidence=confidence,
        first_step=step,
        last_step=int(evaluation.steps[-1]),
        evidence=Evidence(
            text=text,
            numbers=numbers,
            plot=Plot(signals=(evaluation.name, loss.name), marks={"apart": step}),
        ),
        remedy=f"{PAGE.remedy[0].capitalize()}. {PAGE.remedy[1].capitalize()}.",
    )


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(role="evaluation loss", least=4), SignalQuery(role="train loss")),
    check=check,
)
