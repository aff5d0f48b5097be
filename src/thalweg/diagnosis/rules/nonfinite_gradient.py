"""The gradient became NaN or infinite, and in which layer first.

A backward pass goes from the output to the input, and carries a bad entry along: all layers before the place where it
arose are bad, those after it are clean. So the last bad layer, in the order of the forward pass, is where to look. If
every layer is bad, the loss itself was, or the head. Under a GradScaler such updates are skipped, which is how the
scaler finds its scale: a few of them are no trouble.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="nonfinite-gradient",
    kind="rule",
    summary="The gradient became NaN or infinite; the layer where it arose.",
    formula="t* = min{t : ||g_t|| is not finite};  layer: the last l with n_l(t*) > 0 entries that are not finite",
    symbols={"g_t": "gradient at step t", "n_l": "entries of layer l that are not finite"},
    needs="gradient norms",
)
PAGE = Page(
    what="A gradient that isn't finite, applied once, makes every weight it reaches NaN. If the update was skipped, only "
    "that step is lost.",
    causes=(
        "square root, division, logarithm or norm at zero: the value is finite, its derivative isn't",
        "overflow of float16 in the backward pass, without a GradScaler or with a scale too high",
        "weights that diverged before: the loss overflows a few steps later",
        "a row of attention that is masked out entirely: its softmax is 0/0",
    ),
    apart={
        "nonfinite-loss": "where the loss is bad first, every gradient is: then that is the finding",
        "loss-scale-collapse": "the scaler meets overflow at every scale; a few skipped updates are normal",
        "gradient-exploding": "the norm is finite and grows; here it jumps",
    },
    remedy=(
        "go back to the checkpoint before it, and run the batch of that step under "
        "torch.autograd.set_detect_anomaly(True): it names the operation",
        "add an epsilon inside square roots and norms, and clamp before logarithms and divisions",
        "with float16 use torch.amp.GradScaler, and clip after unscale_; or train in bfloat16",
    ),
    tried="Needs no threshold. That skipped updates are at most a note while they are below a twentieth of the steps is "
    "common practice: a scaler doubles its scale every 2,000 steps until one overflows.",
    explains=("nonfinite-loss",),
)
_SKIPPED_SHARE = 0.05


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding, at the first bad gradient."""
    norms = [c for c in view.curves("gradient norm") if len(c) or len(c.bad_steps)]
    counts = view.named("grad/nonfinite")
    bad = _bad_steps(norms, counts)
    if not len(bad):
        return []
    measured = max((len(c) + len(c.bad_steps) for c in norms), default=len(bad))
    first, last = int(bad[0]), int(bad[-1])
    finite_later = any((c.steps > last).any() for c in norms)
    scaled = view.curve("loss scale") is not None
    if scaled and finite_later and len(bad) < max(3, _SKIPPED_SHARE * measured):
        return []  # the scaler found its scale
    where, told = _origin(view, first)
    loss = view.loss
    if not where and loss is not None and len(loss.bad_steps) and loss.bad_steps[0] <= first:
        return []  # the loss was bad before, and says all there is to say
    return [
        Finding(
            kind=CARD.name,
            title=f"The gradient is not finite from step {first:,} on"
            if not finite_later
            else f"{len(bad)} gradients were not finite, the first at step {first:,}",
            severity="warning" if finite_later else "critical",
            confidence=0.98,
            first_step=first,
            last_step=last if finite_later else max(last, view.last_step),
            where=where,
            evidence=Evidence(
                text=f"{len(bad):,} of {measured:,} measured gradients have NaN or infinite entries. {told}",
                numbers={"first": first, "count": len(bad)},
                plot=Plot(
                    signals=tuple(c.name for c in (*norms[:1], view.loss) if c is not None),
                    first=max(0, first - 100),
                    last=first + 20,
                    marks={"not finite": first},
                ),
            ),
            remedy=instruction(PAGE.remedy[2] if scaled else PAGE.remedy[0]),
        )
    ]


def _bad_steps(norms: list[Curve], counts: Curve | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Steps with a norm that is not finite, or with entries counted that are not and no norm that contradicts."""
    steps = [c.bad_steps for c in norms]
    if counts is not None:
        good = np.concatenate([np.empty(0, np.int64), *(c.steps for c in norms)])
        steps.append(np.setdiff1d(counts.steps[counts.values > 0], good))
    return np.unique(np.concatenate([np.empty(0, np.int64), *steps]))


def _origin(view: RunView, first: int) -> tuple[str, str]:
    """Layer where it arose, "" if that can't be told, and why."""
    counts = view.layers("grad/nonfinite")
    if counts is None:
        return "", "Entries were not counted by layer, so the place is unknown."
    bad = counts.values > 0
    rows = np.flatnonzero(bad.any(axis=1) & (counts.steps >= first))
    if not len(rows):
        return "", "No layer's count belongs to that step."
    row = int(rows[0])
    layers = [layer for i, layer in enumerate(counts.layers) if bad[row, i]]
    known = int(np.isfinite(counts.values[row]).sum())
    if len(layers) == known:
        return "", "Every layer has bad entries: they came in with the loss, or with the last layer."
    return (
        layers[-1],
        f"{len(layers)} of {known} parameters have bad entries; {layers[-1]} is the last of them, and "
        "what comes after it is clean.",
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="gradient norm", least=0),), check=check)
