"""Softmax collapse: logits so far apart that the loss is exactly zero, and with it the gradient.

In floating point, sum_c exp(z_c - max z) rounds to 1 once all other logits lie more than about 17 (float32) below the
largest: the row's loss and its gradient are exactly zero. When nearly all rows are so, learning has stopped by rounding
and not because nothing is left to learn; scaling the logits is all that the last steps did.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import centered_median, levels
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="softmax-collapse",
    kind="rule",
    summary="Softmax rows have collapsed: loss and gradient round to zero, and learning has stopped.",
    papers=(220,),
    formula="share of rows with log sum_c exp(z_c - max_k z_k) = 0 in the working type >= 0.9, or >= 0.3 at a loss below "
    "3e-6 of the first;  or a loss of exactly 0",
    symbols={"z": "output logits of one row"},
    needs="the output's logits, or a training loss",
)
PAGE = Page(
    what="The network is so sure of every example that the loss rounds to zero. Gradients are exactly zero from then on, and "
    "nothing more is learned, also where evaluation is poor.",
    causes=(
        "a small training set learned by heart, without weight decay or label smoothing: logits grow without bound",
        "a rate so high that logits are thrown far apart early",
        "a loss of exactly zero from the start: no target counts (all masked or ignored), or NaN was replaced by 0",
    ),
    apart={
        "memorization": "the loss is small, not zero: gradients are small, not zero",
        "some collapsed rows": "easy examples of a well trained classifier; nothing is said unless the loss is next to zero",
        "divergence": "logits are as far apart, and many examples are wrong: the loss is large",
        "parameters-frozen": "gradients are zero in some layers only",
    },
    remedy=(
        "stop here, or go back to before; use weight decay or label smoothing to keep logits small",
        "for training beyond this point use a softmax that doesn't collapse (StableMax), or compute the loss in float64",
        "if the loss was zero from the start, count the targets that are not masked",
    ),
    tried="Float32 classifiers that have learned their data to a loss of 0.0003 have up to 0.44 of their rows collapsed. The "
    "paper describes it for grokking tasks.",
    explains=("plateau", "parameters-frozen", "epsilon-dominates"),
)
_COLLAPSED = 0.9
_SMALL = 1e-4  # of the first loss; diverged runs have collapsed rows that are wrong
_PARTLY = 0.3
_TINY = 3e-6  # of the first loss: some roundings of float32
_LASTING = 0.1  # of the values at the end
_LEAST = 5
_ROUNDED = 1e-5  # no smaller loss above zero in the log: zeros may come from a fixed number of digits
_POINTS = 2000  # a long curve is made short before it is smoothed


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding: by collapsed rows, or by a loss of zero."""
    loss, rows = view.loss, view.named("logits/collapsed")
    if loss is None or len(loss) < 20:
        return NotEvaluable(
            kind=CARD.name, lacked="train loss with 20 values or more", record="watch.log(loss=loss)"
        )
    zero = _lasting(loss.values == 0)
    collapsed = None if rows is None else _lasting(_nothing_left(loss, rows))
    if zero is None and collapsed is None:
        return []
    begins = [
        int(c.steps[at]) for c, at in ((loss, zero), (rows, collapsed)) if c is not None and at is not None
    ]
    first = min(begins)
    always = zero == 0
    positive = loss.values[loss.values > 0]
    rounded = collapsed is None and not always and (loss.window != 1 or float(positive.min()) >= _ROUNDED)
    share = (
        float(np.median(rows.values[collapsed:]))
        if rows is not None and collapsed is not None
        else float("nan")
    )
    norm = view.curve("gradient norm")
    late = np.empty(0) if norm is None else norm.between(first, view.last_step).values
    still = len(late) > 0 and float((late == 0).mean()) > 0.5
    text = f"From step {first:,} on "
    text += "the loss is exactly zero" if zero is not None else f"{share:.0%} of the rows have collapsed"
    text += " (perhaps rounded by who wrote the log)" if rounded else ""
    text += ", and so is the gradient's norm." if still else "."
    return [
        Finding(
            kind=CARD.name,
            title="The loss is exactly zero from the first step: no target counts"
            if always
            else f"The loss rounds to zero from step {first:,} on",
            severity="critical" if always else "note" if rounded else "warning",
            confidence=0.9 if still or (zero is not None and collapsed is not None) else 0.7,
            first_step=first,
            last_step=view.last_step,
            evidence=Evidence(
                text=text,
                numbers={"first": first, "zeros": float((loss.values == 0).mean())}
                | ({} if np.isnan(share) else {"collapsed": share}),
                plot=Plot(
                    signals=tuple(c.name for c in (loss, rows, norm) if c is not None), marks={"zero": first}
                ),
            ),
            remedy=instruction(PAGE.remedy[2] if always else PAGE.remedy[0]),
            papers=() if always else CARD.papers,
        )
    ]


def _lasting(mask: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> int | None:
    """Where a state begins that holds for most of the rest of the run, a tenth of it or more; None if it doesn't."""
    rest = np.cumsum(mask[::-1])[::-1] / np.arange(len(mask), 0, -1)  # share of the values from each one on
    places = np.flatnonzero(mask & (rest >= _COLLAPSED))
    if not len(places) or len(mask) - places[0] < max(_LEAST, _LASTING * len(mask)):
        return None
    return int(places[0])


def _nothing_left(loss: Curve, rows: Curve) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Where nearly all rows have collapsed and the loss is small, or many have and it is next to nothing."""
    steps, values = levels(loss.steps, np.abs(loss.values), _POINTS)
    level = centered_median(values, max(5, len(values) // 50))
    places = np.clip(np.searchsorted(steps, rows.steps), 0, len(level) - 1)
    left = level[places] / max(abs(loss.values[0]), 1e-30)
    out: np.ndarray[tuple[int], np.dtype[np.bool_]] = ((rows.values >= _COLLAPSED) & (left <= _SMALL)) | (
        (rows.values >= _PARTLY) & (left <= _TINY)
    )
    return out


RULE = Rule(card=CARD, page=PAGE, check=check)
