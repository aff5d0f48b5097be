"""The loss scale of mixed precision falls and falls: gradients overflow at every scale.

A GradScaler halves its scale when a gradient overflows, skips that update, and doubles the scale after 2,000 good steps.
Overflow now and then is how it works. Where the scale falls by six or more powers of two and stays down, gradients are
infinite or NaN for another reason, no update is applied, and small gradients vanish below the smallest float16.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import Floats, Ints, RunView

CARD = Card(
    name="loss-scale-collapse",
    kind="rule",
    summary="The loss scale halves again and again, and updates are skipped: gradients overflow at any scale.",
    formula="scale fell 2^6 times or more from its peak, to 16 or below or through many skipped updates",
    needs="the loss scale: tw.watch(..., scaler=scaler)",
)
PAGE = Page(
    what="Every halving is an update that was skipped. While the scale falls, nothing is learned; once it is near 1, "
    "gradients below 6e-8 are lost to float16.",
    causes=(
        "NaN or infinity in the forward or backward pass that no scale can cure: square root of zero, division, a mask",
        "activations or a loss above 65,504: a sum over many entries, attention logits",
        "a run that diverges: weights grow until float16 overflows",
    ),
    apart={
        "the first steps": "a scaler that begins at 65,536 or 2^32 halves until it fits; then it stays",
        "a static scale": "it never changes",
        "nonfinite-gradient": "without a scaler the same trouble destroys the weights",
    },
    remedy=(
        "find the operation: run a skipped batch under torch.autograd.set_detect_anomaly(True)",
        "take the loss, normalizations and softmax out of float16 (torch.autocast does so for its own), or use bfloat16",
        "lower the rate if the loss was rising before",
    ),
    tried="A small MLP whose loss gets a square root at zero: 2^12 falls to below 1 in tens of steps. Six halvings are more "
    "than a healthy scaler makes after its first adjustment.",
    explains=("nonfinite-gradient", "plateau", "parameters-frozen", "constant-prediction"),
)
_HALVINGS = 6
_SETTLING = 0.02  # of the run, at least this many steps: the scaler's first adjustment
_LEAST_SETTLING = 30
_LOW = 16.0
_SMALLEST = 2.0**-149  # of float32
_SKIPPED = 0.1


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding if the scale fell far after its first adjustment."""
    scale = view.curve("loss scale")
    assert scale is not None
    steps, values = scale.steps, np.maximum(np.abs(scale.values), _SMALLEST)  # it may underflow to 0
    start = _settled(steps)
    peaks = np.maximum.accumulate(values[start:])
    fallen = np.log2(peaks / values[start:])
    deepest = int(np.argmax(fallen))
    if fallen[deepest] < _HALVINGS:
        return []
    peak, lowest, last = float(peaks[deepest]), float(values[start + deepest]), float(values[-1])
    skipped = _skipped_share(view, values[start:], int(steps[start]))
    if lowest > _LOW and skipped < _SKIPPED:
        return []
    at_peak = start + int(np.flatnonzero(values[start : start + deepest + 1] == peak)[-1])
    lasting = last <= max(_LOW, lowest * 4)
    return [
        Finding(
            kind=CARD.name,
            title=f"The loss scale fell from {peak:,.0f} to {lowest:.3g}"
            + (", and stays there" if lasting else ", and recovered"),
            severity="critical" if lasting and lowest <= 1 else "warning",
            confidence=0.93 if lowest <= _LOW else 0.75,
            first_step=int(steps[min(at_peak + 1, len(steps) - 1)]),
            last_step=int(steps[-1]) if lasting else int(steps[start + deepest]),
            evidence=Evidence(
                text=f"The scale was halved {fallen[deepest]:.0f} times after step {int(steps[at_peak]):,}; {skipped:.0%} of the steps "
                "after the first adjustment were skipped.",
                numbers={
                    "peak": peak,
                    "lowest": lowest,
                    "halvings": float(fallen[deepest]),
                    "skipped": skipped,
                },
                plot=Plot(
                    signals=tuple(c.name for c in (scale, view.loss) if c is not None),
                    marks={"begins to fall": int(steps[at_peak])},
                ),
            ),
            remedy=instruction(PAGE.remedy[0]),
        )
    ]


def _settled(steps: Ints) -> int:
    """Place after the scaler's first adjustment: falls in the first steps don't count."""
    end = steps[0] + max(_LEAST_SETTLING, _SETTLING * float(steps[-1] - steps[0]))
    place = int(np.searchsorted(steps, end))
    return place if place < len(steps) - 1 else 0


def _skipped_share(view: RunView, scales: Floats, first: int) -> float:
    """Share of skipped updates from a step on, by their count or else by how often the scale fell."""
    count = view.curve("skipped updates")
    if count is not None and len(count):
        skipped = float(count.values[-1] - np.nan_to_num(count.at(first)))
    else:
        skipped = float((np.diff(scales) < 0).sum())
    return max(0.0, skipped) / max(1.0, skipped + view.last_step - first)


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="loss scale", least=10),), check=check)
