"""The training set is learned by heart: its loss is near zero while evaluation never got much better than untrained.

With first the loss before training, it counts if the training loss ends below 0.05 of first (or the training metric above
0.98) and the lowest evaluation loss is above 0.85 of first; if the training loss ends below half of first while evaluation
was never below 0.95 of it and ends above 1.2 of it; or if a training metric above 0.98 stands 0.3 above the same
evaluation metric. Fitting random labels so is what over-parameterized networks can do (Feldman, "Does Learning Require
Memorization?", 2020); a training loss of zero leaves no incentive to learn more general patterns (Bayat et al., "The
Pitfalls of Memorization", 2025).
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, Severity, instruction
from thalweg.diagnosis.statistics import median_of_five
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="memorization",
    kind="rule",
    summary="The training set is learned by heart; evaluation is about as bad as untrained.",
    papers=(181, 41),
    formula="train_end < 0.05 first and min eval > 0.85 first; or metric_train > 0.98 and metric_train - metric_eval > 0.3",
    symbols={
        "first": "loss before training",
        "train_end": "median of the last twentieth of the training loss",
    },
    needs="a training loss, and an evaluation loss or metric",
)
PAGE = Page(
    what="The network knows its training examples one by one and nothing about others. It would do so with random labels.",
    causes=(
        "labels that have nothing to do with the inputs: shuffled, shifted by one, from another file",
        "far too few examples, seen many times",
        "an evaluation set of another kind, or prepared in another way",
    ),
    apart={
        "overfitting": "evaluation had become good before it turned",
        "evaluation-jump": "evaluation is bad at once; in memorization it gets worse as the training loss falls",
        "fine-tuning": "it begins with a low loss; as long as a metric of evaluation holds, a note",
        "a run that is done": "a training loss near zero with a good evaluation is healthy",
    },
    remedy=(
        "look at twenty training examples with their labels, as the model gets them",
        "train on shuffled labels for comparison: if that goes as fast, the labels carry nothing",
        "more data or augmentation, a smaller model, weight decay",
    ),
    tried="Digits with 200 random labels against 80 to 4,000 true ones.",
    explains=("overfitting",),
)


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding, from where the training loss left what evaluation could follow."""
    loss, evaluation = view.loss, view.evaluation
    assert loss is not None  # required
    pairs = _metrics(view)
    if (evaluation is None or len(evaluation) < 4) and not pairs:
        lacked = "evaluation loss, or the same metric of training and evaluation"
        return NotEvaluable(kind=CARD.name, lacked=lacked, record='watch.log({"eval/loss": value})')
    if evaluation is not None and len(evaluation) >= 4:
        found = _by_loss(view, loss, evaluation)
        if found:
            return found
    return _by_metric(loss, pairs)


def _by_loss(view: RunView, loss: Curve, evaluation: Curve) -> list[Finding]:
    first = float(np.median(loss.values[:5]))
    worst_first = max(
        first, float(evaluation.values[0])
    )  # means over steps begin below the loss before training
    end = float(np.median(loss.values[-max(5, len(loss) // 20) :]))
    low, last = float(evaluation.values.min()), float(np.median(evaluation.values[-3:]))
    by_heart = end < 0.05 * first or (end < 0.5 * first and low > 0.95 * first and last > 1.2 * first)
    if not (end >= 0 and by_heart) or low < 0.85 * worst_first or _at_once(loss, evaluation, first):
        return []
    smooth = median_of_five(loss.values)
    start = int(loss.steps[int(np.argmax(smooth < 0.8 * low))])
    start = min(start, int(evaluation.steps[int(np.argmin(evaluation.values))]))
    untrained = low > 0.95 * first and view.guessing(first) > 0
    holding, _ = view.metric_since(int(evaluation.steps[0]))
    severity: Severity = "critical" if untrained else "note" if holding else "warning"
    text = (
        f"The training loss fell from {first:.3g} to {end:.2g}; the evaluation loss was never below {low:.3g} and ends at "
        f"{last:.3g}, {'more' if last > first else 'less'} than before training."
        + (f" {holding} did not get worse." if holding else "")
    )
    numbers = {"first": first, "train": end, "lowest": low, "evaluation": last}
    title = f"Learned by heart: training loss {end:.2g}, evaluation loss {last:.3g}"
    return [
        _finding(
            title,
            severity,
            0.85 if untrained else 0.6,
            start,
            loss,
            (loss.name, evaluation.name),
            text,
            numbers,
        )
    ]


def _at_once(loss: Curve, evaluation: Curve, first: float) -> bool:
    """Whether evaluation was as bad at its first step as at the end, with the training loss already far down."""
    at = int(evaluation.steps[0])
    known = loss.values[loss.steps <= at][-5:]
    early = float(np.median(known)) if len(known) else first
    return early < 0.5 * first and float(evaluation.values[0]) > 0.9 * float(
        np.median(evaluation.values[-3:])
    )


def _metrics(view: RunView) -> list[tuple[Curve, Curve]]:
    """Metrics of training and evaluation with the same last word of their names, for which more is better."""
    out = []
    for one in view.curves("train metric"):
        word = one.name.replace("_", "/").rpartition("/")[2].lower()
        if word not in ("acc", "accuracy", "acc1", "top1", "f1", "auc", "auroc"):
            continue
        for other in view.curves("evaluation metric"):
            if (
                other.name.replace("_", "/").rpartition("/")[2].lower() == word
                and len(one) >= 4
                and len(other) >= 4
            ):
                out.append((one, other))
    return out


def _by_metric(loss: Curve, pairs: list[tuple[Curve, Curve]]) -> list[Finding]:
    for train, evaluation in pairs:
        scale = 100.0 if float(train.values.max()) > 1.5 else 1.0
        end = float(np.median(train.values[-max(3, len(train) // 20) :])) / scale
        last = float(np.median(evaluation.values[-3:])) / scale
        if 0.98 < end <= 1.0 and end - last > 0.3:
            start = int(train.steps[int(np.argmax(train.values > 0.98 * scale))])
            text = f"{train.name} ends at {end:.1%}, {evaluation.name} at {last:.1%}."
            title = f"Learned by heart: {end:.0%} right in training, {last:.0%} in evaluation"
            numbers = {"train": end, "evaluation": last}
            return [
                _finding(title, "warning", 0.7, start, loss, (train.name, evaluation.name), text, numbers)
            ]
    return []


def _finding(
    title: str,
    severity: Severity,
    confidence: float,
    start: int,
    loss: Curve,
    signals: tuple[str, ...],
    text: str,
    numbers: dict[str, float],
) -> Finding:
    return Finding(
        kind=CARD.name,
        title=title,
        severity=severity,
        confidence=confidence,
        first_step=start,
        last_step=int(loss.steps[-1]),
        evidence=Evidence(text=text, numbers=numbers, plot=Plot(signals=signals)),
        remedy=instruction(*PAGE.remedy[:2]),
        papers=CARD.papers,
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss"),), check=check)
