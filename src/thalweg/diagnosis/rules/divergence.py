"""The training loss rose and stayed there: the run ends well above the best it had reached.

With best the lowest level of the loss (median of a fiftieth of the run), end its median over the last values, and

    rise = end - best,        progress = first level - best,

a run diverged if the rise is at least 5 times the noise of the loss and 0.3 of the progress (or, where it never made any,
a tenth of the first level), and every level since the rise began to matter is at least half of it above the best.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity
from thalweg.diagnosis.statistics import MAD, median_of_five
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="divergence",
    kind="rule",
    summary="The training loss rose and stayed far above the best it had reached.",
    formula="end - best > max(5 noise, 0.3 (first - best), 0.1 |best|), to the end of the run",
    symbols={
        "first": "median of the first five losses",
        "best": "lowest level of the loss, a level being the median of a fiftieth of the run",
        "end": "median of the last fiftieth, of five values at least",
        "noise": "robust standard deviation of the loss about its levels",
    },
    needs="a training loss",
)
PAGE = Page(
    what="The loss rises and does not come back. What the run had learned is lost, and every step after the turn is wasted.",
    causes=(
        "a learning rate above what the curvature allows, from the start or once it has been warmed up",
        "a spike from which the optimizer's state did not recover",
        "growing attention or output logits, or weights without decay",
        "gradients that are not zeroed, or a sum where a mean was meant",
    ),
    apart={
        "loss-spike": "the loss comes back",
        "overfitting": "only the evaluation loss rises, the training loss goes on falling",
        "resume-jump": "the rise is at the first step of a resumed segment",
        "a change of the data": "the loss leaps within a few values and then falls steadily: a note",
        "harder examples": "more noise or augmentation by design: the evaluation loss doesn't share the rise; a note",
        "an objective that is no error": "losses of policies and penalties may rise, begin at zero or be negative: a note",
    },
    remedy=(
        "go back to the last checkpoint before the rise, and go on with a third to a tenth of the rate",
        "lengthen the warm-up, and clip the gradient norm at a few times its usual value",
        "record layers (watch = tw.watch(model, optimizer)) to see where it begins",
    ),
    tried="The thresholds were tried on digits and small GPTs of 100 to 3,000 steps and on published curves of language "
    "models of 25M to 124M parameters, none of which diverged.",
    explains=("loss-spike", "nonfinite-loss", "nonfinite-gradient", "gradient-exploding", "plateau"),
)


@dataclass(frozen=True)
class Shape:
    """The course of a loss that ends above its best."""

    first: float
    best: float
    end: float
    noise: float
    onset: int  # place at which it leaves the best level
    peak: float

    @property
    def rise(self) -> float:
        """How far it ends above its best."""
        return self.end - self.best

    @property
    def progress(self) -> float:
        """How far it had fallen."""
        return max(self.first - self.best, 0.0)


def check(view: RunView) -> list[Finding]:
    """One finding, at the step where the loss left its best level."""
    curve = view.loss
    assert curve is not None  # required
    shape = _shape(curve)
    if shape is None:
        return []
    severity, confidence, doubt = _judge(view, curve, shape)
    onset, last = int(curve.steps[shape.onset]), int(curve.steps[-1])
    reach = max(20, round(20 * curve.spacing))
    layer = view.first_layer("grad/norm", onset, onset + reach, reach)
    return [
        Finding(
            kind=CARD.name,
            title=f"The loss rose from {shape.best:.3g} to {shape.end:.3g} after step {onset:,} and stayed there",
            severity=severity,
            confidence=confidence,
            first_step=onset,
            last_step=last,
            where=layer[0] if layer else "",
            evidence=Evidence(
                text=_text(view, shape, onset, doubt),
                numbers={
                    "onset": onset,
                    "first": shape.first,
                    "best": shape.best,
                    "end": shape.end,
                    "rise": shape.rise,
                    "noise": shape.noise,
                    **({"layer_onset": layer[1], "layer_factor": layer[2]} if layer else {}),
                },
                plot=Plot(signals=(curve.name,), marks={"rises": onset}),
            ),
            remedy=f"Go back to a checkpoint before step {onset:,} and go on with a third to a tenth of the rate; lengthen the "
            "warm-up, and clip the gradient norm at a few times its usual value.",
        )
    ]


def _shape(curve: Curve) -> Shape | None:
    """The course of the loss if it ends far above its best."""
    x = curve.values
    n = len(x)
    width = max(5, n // 50)
    if n < 4 * width:
        return None
    count = n // width
    groups = x[n - count * width :].reshape(count, width)
    levels = np.median(groups, axis=1)
    lowest = int(np.argmin(levels))
    best, end = float(levels[lowest]), float(levels[-1])
    spread = np.abs(groups - levels[:, None])[max(0, lowest - 2) : lowest + 3]
    tail = float(np.percentile(spread, 90)) / 1.645
    noise = max(MAD * float(np.median(spread)), tail)
    shape = Shape(float(np.median(x[:5])), best, end, noise, 0, float(levels[lowest:].max()))
    bar = max(5 * noise, 0.3 * shape.progress, 0.1 * abs(best))
    if lowest == count - 1 or shape.rise <= bar or (levels[-2:] < best + 0.5 * shape.rise).any():
        return None
    smooth = median_of_five(x)
    slack = min(0.1 * shape.rise, max(0.2 * abs(best), 0.1 * shape.progress))
    offset = n - count * width
    calm = np.flatnonzero(smooth[: n - width] <= best + max(3 * noise, slack))
    onset = int(calm[-1]) if len(calm) else offset + lowest * width
    return Shape(shape.first, best, end, noise, onset, shape.peak)


def _judge(view: RunView, curve: Curve, shape: Shape) -> tuple[Severity, float, str]:
    """Severity, confidence, and what else it may be."""
    if (curve.values < 0).mean() > 0.01 or (abs(shape.first) < 0.02 * shape.end and shape.end < 1):
        return (
            "note",
            0.4,
            "It is negative at times or begins at zero: objectives of policies and penalties may rise.",
        )
    shared = view.evaluation_rise(int(curve.steps[shape.onset]), int(curve.steps[-1]))
    if shared is not None and shared < 0.1 * shape.rise:
        return (
            "note",
            0.4,
            "Evaluation does not share the rise: the examples trained on may have become harder, the model not worse.",
        )
    after = median_of_five(curve.values[shape.onset :])
    leap = float(after[:12].max()) - shape.best
    if leap >= 0.8 * (shape.peak - shape.best) and shape.peak - shape.end > 0.3 * (shape.peak - shape.best):
        return (
            "note",
            0.4,
            "It leapt within a few values and has been falling since: the data may have changed.",
        )
    lost = shape.rise >= 0.8 * shape.progress
    if shape.progress < 5 * shape.noise:
        return "critical", 0.85, ""
    return ("critical" if lost else "warning"), (0.95 if lost else 0.8), ""


def _text(view: RunView, shape: Shape, onset: int, doubt: str) -> str:
    text = f"The loss stood at {shape.best:.4g} until step {onset:,} and ends at {shape.end:.4g}"
    if shape.noise > 0:
        text += f", {shape.rise / shape.noise:.0f} times its noise above"
    if shape.end > shape.first:
        text += f"; that is more than it began with ({shape.first:.4g})"
    elif shape.progress > 0:
        text += f"; {shape.rise / shape.progress:.0%} of what had been learned is lost"
    text += "."
    rate = view.rate
    if rate is not None and len(rate):
        at, top = float(rate.at(np.array([onset]))[0]), float(rate.values.max())
        if np.isfinite(at) and top > 0:
            text += f" The rate was {at:.3g} there, {at / top:.0%} of its peak."
    return f"{text} {doubt}".rstrip()


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss", least=20),), check=check)
