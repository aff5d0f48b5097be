"""The loss became NaN or infinite.

From the first such value on nothing is learned: a NaN in one weight reaches all of them in a step. A single one that
the run survives (an update skipped under mixed precision, a loop that skips bad batches) is worth a warning only.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="nonfinite-loss",
    kind="rule",
    summary="The training loss became NaN or infinite.",
    formula="s* = min{s : loss_s is not finite}",
    symbols={"s": "step", "loss_s": "training loss after s updates"},
    needs="a training loss",
)
PAGE = Page(
    what="The training loss is NaN or infinite from some step on. Every weight that the gradient reaches is lost with "
    "the next update; what comes after is wasted, and a checkpoint saved there is empty.",
    causes=(
        "a learning rate too high for the moment: the loss grows for a few steps and overflows",
        "overflow of float16 where no loss scale guards it",
        "a division by zero, logarithm of zero or square root of zero in the loss or in a normalization",
        "a batch with NaN, or without any example that counts, whose mean is 0/0",
    ),
    apart={
        "divergence": "the loss is finite there, however large; often it comes just before",
        "nonfinite-gradient": "the gradient went bad first, and names the layer: this is its symptom then",
        "loss-scale-collapse": "the scaler skips such updates: the loss recovers, and the scale falls",
    },
    remedy=(
        "go back to the last checkpoint before the first such step",
        "look at the loss in the steps before: growing means the rate is too high, or warm-up too short; sudden means a "
        "batch or an operation: run that batch under torch.autograd.set_detect_anomaly(True)",
        "average only over examples that count, and add an epsilon inside square roots and logarithms",
    ),
    tried="Needs no threshold.",
)


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding, at the first value that is not finite."""
    loss = view.loss
    if loss is None:
        return NotEvaluable(kind=CARD.name, lacked="train loss", record="watch.log(loss=loss)")
    if not len(loss.bad_steps):
        return []
    first = int(loss.bad_steps[0])
    after = loss.steps > first
    lasting = not after.any()
    last = max(view.last_step, int(loss.bad_steps[-1])) if lasting else int(loss.bad_steps[-1])
    count = len(loss.bad_steps)
    went = _before(loss, first)
    return [
        Finding(
            kind=CARD.name,
            title=f"The loss is not finite from step {first:,} on"
            if lasting
            else f"{count} losses were not finite",
            severity="critical" if lasting else "warning",
            confidence=1.0,
            first_step=first,
            last_step=last,
            evidence=Evidence(
                text=f"{count:,} of {count + len(loss):,} values are NaN or infinite, the first at step {first:,}. {went}",
                numbers={"first": first, "count": count},
                plot=Plot(
                    signals=(loss.name,), first=_start(loss, first), last=last, marks={"not finite": first}
                ),
            ),
            remedy=instruction(*PAGE.remedy[:2]) if lasting else instruction(PAGE.remedy[2]),
        )
    ]


def _before(loss: Curve, first: int) -> str:
    """How the loss came there: grown, or sudden."""
    past = loss.values[loss.steps < first][-10:]
    if len(past) < 4:
        return "It happened in the first steps."
    factor = float(past[-1] / max(1e-30, abs(np.median(past[:-2]))))
    if factor > 1.5:
        return f"The loss had grown to {past[-1]:.3g} just before, {factor:.1f} times what it was."
    return f"The step before it was ordinary ({past[-1]:.3g}): look at the batch and the operations, not at the rate."


def _start(loss: Curve, first: int) -> int:
    past = loss.steps[loss.steps < first]
    return int(past[-50]) if len(past) >= 50 else int(past[0]) if len(past) else first


RULE = Rule(card=CARD, page=PAGE, check=check)
