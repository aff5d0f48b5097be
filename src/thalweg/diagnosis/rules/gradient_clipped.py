"""The gradient norm sits at the clipping limit.

g <- g min(1, c / ||g||). A limit that only rare steps reach is a safety belt. One that nearly every step exceeds is a
second learning rate: SGD then makes steps of the length rate times c, whatever the gradient. Where only the applied
norm was recorded, its pinned value gives the clipping away, and hides what the gradient does.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="gradient-clipped",
    kind="rule",
    summary="Nearly every step is clipped, far above the limit; or the applied norm is pinned and the raw one unknown.",
    papers=(213, 325),
    formula="g <- g min(1, c / ||g||);  share of steps with ||g|| > c above 0.9, median ||g|| / c above 10",
    symbols={"g": "gradient", "c": "limit of the norm"},
    needs="gradient norms; the raw one by watch.clip_grad_norm_",
)
PAGE = Page(
    what="Clipping is meant for rare steps with a large gradient. When nearly all steps are clipped, the limit sets the "
    "size of every SGD step, good directions and bad ones alike, and with noisy gradients the run converges to another "
    "point. Adam divides a constant factor out again, so there it costs less, but rare large gradients are no longer "
    "told from ordinary ones.",
    causes=(
        "a limit copied from another model: norms grow with the number of parameters and with the loss",
        "a loss that is summed, not averaged, over a batch or over micro-batches",
        "clipping before unscale_: under a GradScaler the norm is thousands of times larger",
    ),
    apart={
        "accumulation-not-averaged": "the raw norm is too large by the number of micro-batches",
        "gradient-exploding": "the raw norm grows during the run; here it is above the limit from the start",
        "the first steps": "gradients are large in the beginning; the first tenth isn't counted",
    },
    remedy=(
        "set the limit to two or three times the median of the raw norm, or leave clipping out and look",
        "clip with watch.clip_grad_norm_(limit) in place of torch's function: it records the norm before clipping",
        "under a GradScaler call scaler.unscale_(optimizer) before clipping",
    ),
    tried="Limits of 1 and 0.01 on small MLPs, CNNs and GPTs. A share above 0.9 with a factor between 2 and 10 is usual in "
    "training of transformers with Adam, and a note.",
    explains=("rate-low", "plateau"),
)
_HIGH_SHARE = 0.9
_HIGH_FACTOR = 10.0
_NOTED_FACTOR = 2.0
_PINNED = 2e-4  # relative distance from the limit: clipping itself rounds
_PINNED_SHARE = 0.1
_LEAST_PINNED = 10


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """The share and the factor where the raw norm is known; a pinned norm where it isn't."""
    raw, applied = view.curve("gradient norm", stage="raw"), view.curve("gradient norm")
    assert applied is not None
    if raw is not None and len(raw):
        return _clipped(view, raw, view.curve("gradient norm", stage="applied"))
    return _pinned(view, applied)


def _clipped(view: RunView, raw: Curve, applied: Curve | None) -> list[Finding]:
    limit = _limit(view, raw, applied)
    later = raw.between(raw.steps[0] + 0.1 * (raw.steps[-1] - raw.steps[0]), raw.steps[-1])
    if not limit > 0 or len(later) < 20:
        return []
    share, factor = float((later.values > limit).mean()), float(np.median(later.values)) / limit
    if share < _HIGH_SHARE or factor < _NOTED_FACTOR:
        return []
    adaptive = view.layers("hyper/beta2") is not None
    harmful = factor >= _HIGH_FACTOR and not adaptive
    return [
        Finding(
            kind=CARD.name,
            title=f"{share:.0%} of the steps are clipped; the gradient is {factor:.1f} times the limit",
            severity="warning" if harmful else "note",
            confidence=0.85 if harmful else 0.6,
            first_step=int(later.steps[np.argmax(later.values > limit)]),
            last_step=int(later.steps[-1]),
            evidence=Evidence(
                text=f"After the first tenth {share:.1%} of the steps exceed the limit of {limit:.3g}; the median norm "
                f"before clipping is {factor * limit:.3g}."
                + (" Adam divides most of that out again." if adaptive else ""),
                numbers={"share": share, "factor": factor, "limit": limit},
                plot=Plot(signals=tuple(c.name for c in (raw, applied) if c is not None)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def _limit(view: RunView, raw: Curve, applied: Curve | None) -> float:
    """The limit: the applied norm at steps where it is below the raw one; 0 if no step was clipped."""
    if applied is None or not len(applied):
        return 0.0
    before = raw.at(applied.steps)
    same = np.isin(applied.steps, raw.steps) & (before > applied.values * (1 + _PINNED))
    return float(np.median(applied.values[same])) if same.any() else 0.0


def _pinned(view: RunView, norm: Curve) -> list[Finding]:
    """A norm that never exceeds a value and often has it."""
    top = float(norm.values.max())
    at_top = norm.values >= top * (1 - _PINNED)
    near = (norm.values >= 0.95 * top) & ~at_top  # rounded numbers crowd below their largest value as well
    count, share = int(at_top.sum()), float(at_top.mean())
    if not top > 0 or count < _LEAST_PINNED or share < _PINNED_SHARE or count < 3 * int(near.sum()):
        return []
    if count == len(norm) and norm.stage != "applied":
        return []  # one constant number: more likely a setting than a norm
    return [
        Finding(
            kind=CARD.name,
            title=f"The gradient norm is pinned at {top:.3g} in {share:.0%} of the steps: log the norm before clipping",
            severity="note",
            confidence=0.9 if share > 0.3 else 0.7,
            first_step=int(norm.steps[np.argmax(at_top)]),
            last_step=int(norm.steps[len(at_top) - 1 - np.argmax(at_top[::-1])]),
            evidence=Evidence(
                text=f"{count:,} of {len(norm):,} norms are {top:.4g}, the largest there is: this is the norm after "
                "clipping. How large the gradient was, and whether it grew, can't be seen.",
                numbers={"share": share, "limit": top},
                plot=Plot(signals=(norm.name,)),
            ),
            remedy=instruction(PAGE.remedy[1]),
            papers=CARD.papers,
        )
    ]


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="gradient norm"),), check=check)
