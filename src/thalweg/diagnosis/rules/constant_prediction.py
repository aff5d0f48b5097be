"""The answer is the same for every input: an evaluation metric that never changes, or losses that stay at chance.

Two signs: a metric whose last five values or more, over 60 % of the run, are equal, while the loss stands still; or a
training loss that ends within 2 % of where it stood from the first tenth on, at ln(k), with the evaluation loss there
too and no more than 4 / k of the answers right. ln(k) is what guessing among k equally frequent classes costs.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import levels, noise
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="constant-prediction",
    kind="rule",
    summary="The model answers the same to every input.",
    formula="metric_s = const; or loss_s = ln(k) in training and evaluation, to 3 %",
    symbols={"k": "number of classes, from the settings, or 2, 10, 100, 1000"},
    needs="a training loss, and an evaluation metric or loss",
)
PAGE = Page(
    what="The outputs don't depend on the inputs: always the most frequent class, or all classes alike.",
    causes=(
        "labels that are not those of the inputs (shuffled apart, shifted), or inputs that are all the same",
        "units that are all dead or saturated, so that only the last bias learns",
        "a rate so high at first that the network never came back, or classes so unequal that one answer is cheap",
    ),
    apart={
        "plateau": "the loss stands still somewhere else than at chance, or nothing was evaluated",
        "a perfect or coarse metric": "values above 0.95, or a loss that still falls: not reported",
        "gradient-vanishing": "gradients of the first layers are far smaller than those of the last: then that is the cause",
    },
    remedy=(
        "look at a batch as the model gets it, inputs beside labels",
        "print the predictions of one batch; if they are all alike, look at units/dead and at the gradient of the first layer",
        "weight the classes if they are very unequal",
    ),
    tried="Digits with shuffled labels; healthy runs of 100 to 3,000 steps must stay silent.",
    explains=("plateau",),
)


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding, from where the answers stopped changing."""
    loss = view.loss
    assert loss is not None  # required
    metrics = [curve for curve in view.curves("evaluation metric") if len(curve) >= 5]
    if not metrics and view.evaluation is None:
        lacked = "evaluation metric with 5 values or more, or evaluation loss"
        return NotEvaluable(kind=CARD.name, lacked=lacked, record='watch.log({"eval/accuracy": value})')
    return next((found for m in metrics if (found := _frozen(loss, m))), None) or _at_chance(
        view, loss, metrics
    )


def _frozen(loss: Curve, metric: Curve) -> list[Finding]:
    """A metric that has one value from some step on."""
    value = float(metric.values[-1])
    differs = np.flatnonzero(np.abs(metric.values - value) > 1e-6 * max(1e-3, abs(value)))
    begin = int(differs[-1]) + 1 if len(differs) else 0
    count = len(metric) - begin
    scale = 100.0 if metric.values.max() > 1.5 else 1.0
    start, last = int(metric.steps[begin]), int(metric.steps[-1])
    whole = last - int(loss.steps[0])
    if count < 5 or last - start < 0.6 * whole or not 0 <= value / scale < 0.95:
        return []
    part = loss.between(start, last)
    if len(part) < 5:
        return []
    third = max(1, len(part) // 3)
    before, after = float(np.median(part.values[:third])), float(np.median(part.values[-third:]))
    if abs(before - after) > 0.05 * abs(before):
        return []
    text = (
        f"The last {count} values of {metric.name}, from step {start:,} on, are all {value:.4g}; the training loss stood at "
        f"{after:.3g} meanwhile."
    )
    return [
        _finding(metric, loss, f"{metric.name} is {value:.4g} at every evaluation", 0.8, start, text, value)
    ]


def _at_chance(view: RunView, loss: Curve, metrics: list[Curve]) -> list[Finding]:
    """Losses of training and evaluation at ln(k) from nearly the start."""
    if len(loss) < 60:
        return []
    _, level = levels(loss.steps, loss.values, 10)
    rest = level[1:]
    classes = view.guessing(float(rest[-1]))
    if not classes or np.ptp(rest) > 0.02 * rest[-1]:
        return []
    error = 1.25 * noise(loss.values) / np.sqrt(0.3 * len(loss))  # of the mean of three levels
    settled = -0.003 < rest[-1] / np.log(classes) - 1 < 0.002
    if not settled and np.mean(rest[:3]) - np.mean(rest[-3:]) > 3 * error:
        return []  # it falls, however slowly
    evaluation = view.evaluation
    if evaluation is not None and view.guessing(float(np.median(evaluation.values[-3:]))) != classes:
        return []
    right = [float(np.median(m.values[-3:])) for m in metrics if "acc" in m.name.lower()]
    if any(value > 4 / classes for value in right) or (evaluation is None and not right):
        return []
    start = int(loss.steps[0])
    answered = f", and {right[0]:.0%} of the answers are right" if right else ""
    text = (
        f"The training loss stands at {rest[-1]:.4g} from the first tenth of the run on, within {np.ptp(rest):.2g}; guessing among "
        f"{classes:,} classes costs ln({classes:,}) = {np.log(classes):.4g}{answered}."
    )
    shown = metrics[0] if metrics else evaluation
    title = f"The answers don't depend on the inputs: the loss is ln({classes:,}) all along"
    return [_finding(shown, loss, title, 0.75, start, text, float(classes))]


def _finding(
    shown: Curve | None, loss: Curve, title: str, confidence: float, start: int, text: str, value: float
) -> Finding:
    return Finding(
        kind=CARD.name,
        title=title,
        severity="critical",
        confidence=confidence,
        first_step=start,
        last_step=int(loss.steps[-1]),
        evidence=Evidence(
            text=text,
            numbers={"start": start, "value": value},
            plot=Plot(signals=(loss.name, *((shown.name,) if shown else ()))),
        ),
        remedy=instruction(*PAGE.remedy[:2]),
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss"),), check=check)
