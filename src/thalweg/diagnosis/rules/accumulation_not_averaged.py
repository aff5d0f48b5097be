"""Gradients of k micro-batches are summed and not averaged: they are k times too large.

Two traces of it. The logged training loss is k times the evaluation loss, at the same steps, all through the run: the
loss was summed over micro-batches. Or, with SGD, steps are k times too long: with Q = ||g_1||^2, the squared gradient of
one micro-batch as backward() left it, a first-order step of k summed gradients lowers the loss by rate * k * Q; if the
loss falls by a small part of that while updates are large, the steps overshoot.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import levels, trailing_median
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="accumulation-not-averaged",
    kind="rule",
    summary="Gradients or losses of accumulated micro-batches are summed: k times too large.",
    formula="L_train / L_eval = k throughout;  or (L_0 - L_t) / sum_t eta k Q / (1 - mu) < 0.15 with updates above 0.04 ||w||",
    symbols={
        "k": "micro-batches of an update",
        "eta": "learning rate",
        "mu": "momentum",
        "Q": "squared gradient of one micro-batch, unbiased",
    },
    needs="gradient accumulation and its number of micro-batches; an evaluation loss, or the noise scale's signals",
)
PAGE = Page(
    what="backward() adds gradients up. Without a division by the number of micro-batches the gradient is that many times the "
    "mean: SGD makes steps as many times too long, clipping clips everything, weight decay is as many times too weak. Adam "
    "divides a constant factor out again; there only the norms and the clipping are wrong.",
    causes=(
        "loss.backward() without loss / k",
        "a trainer's change of what it divides by; a custom loss that it doesn't know of",
        "the loss is logged as a sum and the gradient is right: then only the curve is wrong",
    ),
    apart={
        "rate-high": "the same harm from a rate that is too high by itself: look whether the loss is divided",
        "overfitting": "the evaluation loss is above the training loss; here it is far below",
        "dropout and augmentation": "training losses are somewhat above evaluation losses; not by a whole factor",
    },
    remedy=(
        "divide the loss by the number of micro-batches before backward(), and log the undivided one",
        "compare the first training loss with the evaluation loss of the untrained model: they should be the same",
    ),
    tried="Four and eight micro-batches on small MLPs, CNNs and GPTs. With SGD the loss falls by less than 0.15 of what summed "
    "gradients promise, and by 0.3 to 10 times that where they are averaged; under Adam the second trace is not there.",
    explains=("rate-high", "gradient-clipped", "divergence", "dead-units"),
)
_CLOSE = 0.12  # of the factor
_STEADY = 0.08  # relative scatter of the ratio
_LEAST = 5
_MOST = 500  # evaluations that are looked at
_FACTORS = (2, 4, 8, 16, 32, 64)
_PROMISED = 0.15
_LARGE_UPDATES = 0.04
_POINTS = 2000  # a long curve is made short before it is smoothed


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """By the ratio of the losses, else by what the gradients promised."""
    said = view.setting(
        "gradient_accumulation_steps", "accumulate_grad_batches", "accumulation_steps", "grad_accum_steps"
    )
    k = int(said) if isinstance(said, (int, float)) and not isinstance(said, bool) and said >= 1 else 0
    loss, evaluation, squared = view.loss, view.evaluation, view.named("noise/gradient_squared")
    if loss is None or not len(loss) or (evaluation is None and squared is None):
        return NotEvaluable(
            kind=CARD.name,
            lacked="an evaluation loss beside the train loss",
            record='watch.log({"eval/loss": value})',
        )
    if k == 1:
        return []
    found = _by_losses(view, loss, evaluation, k) if evaluation is not None else None
    if found is None and squared is not None and k:
        found = _by_promise(view, loss, squared, k)
    return [found] if found is not None else []


def _by_losses(view: RunView, loss: Curve, evaluation: Curve, k: int) -> Finding | None:
    """Training losses that are k times the evaluation losses at every evaluation."""
    width = max(1, min(25, len(loss) // (2 * max(1, len(evaluation)))))
    places = np.searchsorted(loss.steps, evaluation.steps, side="right")
    usable = np.flatnonzero((places > 0) & (evaluation.values > 0))
    usable = usable[:: max(1, len(usable) // _MOST)]
    before = np.array([np.median(loss.values[max(0, places[i] - width) : places[i]]) for i in usable])
    ratios = before / evaluation.values[usable]
    if len(ratios) < _LEAST or not (ratios > 0).all():
        return None
    ratio, scatter = float(np.median(ratios)), float(np.std(np.log(ratios)))
    fits = [f for f in ((k,) if k else _FACTORS) if abs(ratio / f - 1) <= _CLOSE]
    moved = float(np.ptp(np.log(evaluation.values[usable])))
    if not fits or scatter > _STEADY or moved < 2 * _STEADY:
        return None
    return _finding(
        view,
        f"The training loss is {ratio:.1f} times the evaluation loss: summed over {fits[0]} micro-batches",
        0.85 if k else 0.5,
        bool(k),
        int(loss.steps[0]),
        f"At {len(ratios)} evaluations the training loss is {ratio:.2f} times the evaluation loss, with a scatter of "
        f"{scatter:.0%}" + (f", and {k} micro-batches are accumulated." if k else "."),
        {"factor": ratio, "scatter": scatter},
        (loss.name, evaluation.name),
    )


def _by_promise(view: RunView, loss: Curve, squared: Curve, k: int) -> Finding | None:
    """A loss that falls by a small part of what summed gradients promise, under large updates of SGD."""
    rate, ratio = view.rate, view.curve("update ratio")
    if (
        rate is None
        or ratio is None
        or len(ratio) < 3
        or view.layers("hyper/beta2") is not None
        or len(loss) < 50
        or not len(squared)
    ):
        return None
    steps, values = levels(loss.steps, loss.values, _POINTS)
    smooth = trailing_median(np.append(values, values[-1]), max(5, len(values) // 50))[1:]
    start = float(np.median(loss.values[:3]))
    low = smooth <= start - 0.5 * (start - float(np.nanmin(smooth[1:])))
    end = max(int(steps[np.argmax(low)]), int(squared.steps[min(2, len(squared) - 1)]))
    signal = squared.between(0, end).values
    momentum = view.layers("hyper/momentum")
    kept_of_last = 0.0 if momentum is None else float(np.nan_to_num(momentum.values).max(initial=0.0))
    friction = 1.0 - min(0.99, kept_of_last)
    promised = (
        float(rate.between(0, end).values.sum()) / friction * k * float(signal.mean() if len(signal) else 0.0)
    )
    largest = float(ratio.between(0, view.last_step / 3).values.max(initial=0.0))
    if not promised > 0 or not np.isfinite(promised) or largest < _LARGE_UPDATES:
        return None
    kept = (start - float(smooth[min(int(np.searchsorted(steps, end)), len(smooth) - 1)])) / promised
    if kept >= _PROMISED:
        return None
    return _finding(
        view,
        f"The steps of {k} accumulated micro-batches overshoot: their gradients may be summed, not averaged",
        0.6,
        True,
        int(loss.steps[0]),
        f"Up to step {end:,} the loss fell by {max(kept, 0):.1%} of what the gradients of {k} micro-batches promise if they are "
        f"summed, with updates of up to {largest:.2g} of the weights.",
        {"kept": kept, "ratio": largest, "micro_batches": k},
        (loss.name, ratio.name),
    )


def _finding(
    view: RunView,
    title: str,
    confidence: float,
    harmful: bool,
    first: int,
    text: str,
    numbers: dict[str, float],
    signals: tuple[str, ...],
) -> Finding:
    return Finding(
        kind=CARD.name,
        title=title,
        severity="warning" if harmful else "note",
        confidence=confidence,
        first_step=first,
        last_step=view.last_step,
        evidence=Evidence(text=text, numbers=numbers, plot=Plot(signals=signals)),
        remedy=instruction(PAGE.remedy[0]),
    )


RULE = Rule(card=CARD, page=PAGE, check=check)
