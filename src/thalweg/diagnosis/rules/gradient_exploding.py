"""Gradients grow: a factor a layer from the output to the input, or hundredfold in the course of the run.

Over depth, log10 ||g_l|| / ||w_l|| falls along a line from the input to the output, by three decades or more. In time,
the smoothed norm rises to a hundred times its usual value while the loss rises with it. From the start, gradients are
tens of times larger than the weights they belong to: activations grow through the layers.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.rules.gradient_vanishing import (
    DECADES,
    relative_gradients,
    trend_over_layers,
)
from thalweg.diagnosis.statistics import centered_median, column_medians
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="gradient-exploding",
    kind="rule",
    summary="Gradients grow by a factor a layer toward the input, or a hundredfold in the course of the run.",
    papers=(213,),
    formula="log10 r_1 - log10 r_L >= 3 along a line, 1.5 if it is a clean one;  or median_l r_l >= 30;  or ||g|| >= 100 x usual while the loss "
    "rises;  r_l = ||g_l|| / ||w_l||",
    symbols={"g_l": "gradient of weight matrix l", "w_l": "that matrix"},
    needs="gradient norms",
)
PAGE = Page(
    what="Each layer, or each step, multiplies the gradient by more than one. Updates become too large for the layers "
    "that get most of it; the loss jumps or diverges, and the rate that would be safe is too small for the rest.",
    causes=(
        "an initialization too large for the width",
        "long recurrences, or many layers without normalization",
        "a rate too high: weights grow, and gradients with them",
        "a loss that is summed over a large batch or a long sequence, not averaged",
    ),
    apart={
        "gradients-accumulate": "gradients of single steps don't grow; their sum does, and it hardly turns",
        "loss-spike": "the norm returns within some steps",
        "accumulation-not-averaged": "a constant factor of the number of micro-batches",
        "leaving a plateau": "the norm grows a thousandfold while the loss falls: nothing is wrong",
    },
    remedy=(
        "clip the norm with watch.clip_grad_norm_(1.0), and lower the rate or lengthen the warm-up",
        "use the initialization that belongs to the activation function, scaled down in residual branches",
        "normalize between layers; average the loss over examples",
    ),
    tried="Tanh networks of 14 layers with weights 3.5 times too large grow 1.5 times a layer. Healthy MLPs, CNNs and GPTs have gradients of 0.01 to 1 times their weights, within 2 decades over the layers; "
    "MLPs of 8 layers with weights 6 times too large start at 120.",
    explains=("gradient-clipped", "dead-units", "plateau"),
)
_TREND = -0.8
_STEADY_TREND = -0.95  # a trend as clean as this is one at fewer decades
_STEADY_DECADES = 1.5
_STEADY_LAYERS = 6
_LEVEL = 1.5  # decades above the weights
_FACTOR = 100.0
_WIDTH = 9
_LONGEST = 20_000


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """The most telling of: over depth, from the start, in time."""
    found = _over_layers(view) or _from_the_start(view) or _in_time(view)
    return [found] if found is not None else []


def _over_layers(view: RunView) -> Finding | None:
    depth = relative_gradients(view)
    if depth is None:
        return None
    names, steps, logs, silent = depth
    early = column_medians(logs[: max(3, len(logs) // 10)])
    fall, trend = trend_over_layers(early, silent)
    level = max((float(np.nanmedian(row)) for row in logs[:3] if np.isfinite(row).any()), default=0.0)
    inner, line = trend_over_layers(early[:-1], silent)  # the last layer has another width
    steady = len(names) > _STEADY_LAYERS and inner <= -_STEADY_DECADES and line <= _STEADY_TREND
    largest = names[int(np.nanargmax(early))] if np.isfinite(early).any() else ""
    if steady:
        fall, trend = inner, line
    if steady or (fall <= -DECADES and trend <= _TREND):
        return _finding(
            view,
            f"Gradients grow {10 ** (-fall / (len(names) - 1)):.2g} times a layer toward the input, {10**-fall:,.0f} times in all",
            0.85,
            int(steps[0]),
            largest,
            f"Over {len(names)} weight matrices the gradient relative to the weight grows toward the input along a line "
            f"(correlation with the layer's place {trend:.2f}).",
            {"decades": -fall, "trend": trend},
        )
    if level >= _LEVEL:
        return _too_large(view, 10**level, int(steps[0]), largest)
    return None


def _from_the_start(view: RunView) -> Finding | None:
    """The whole gradient before clipping against all weights: layers show it after clipping."""
    norm, weight = view.curve("gradient norm", stage="raw"), view.curve("weight norm")
    if norm is None or weight is None or len(norm) < 3 or not len(weight) or not weight.values[0] > 0:
        return None
    level = float(np.median(norm.values[:3]) / weight.values[0])
    return _too_large(view, level, int(norm.steps[0]), "") if np.log10(max(level, 1e-30)) >= _LEVEL else None


def _too_large(view: RunView, level: float, first: int, where: str) -> Finding:
    return _finding(
        view,
        f"Gradients are {level:,.0f} times larger than the weights from the start",
        0.8,
        first,
        where,
        f"The gradient before clipping is {level:.3g} times the weights in the first measurements; 0.01 to 1 is usual. "
        "Activations grow through the layers, or the loss is a sum.",
        {"level": level},
    )


def _in_time(view: RunView) -> Finding | None:
    """A norm that rose to a hundred times its usual value and stayed, with the loss."""
    norm, loss = view.curve("gradient norm", stage="raw") or view.curve("gradient norm"), view.loss
    if norm is None or loss is None or len(norm) < 40 or len(loss) < 20:
        return None
    places = np.unique(np.linspace(0, len(norm) - 1, _LONGEST).astype(int))
    steps, smooth = norm.steps[places], centered_median(norm.values[places], _WIDTH)
    usual = float(np.median(smooth[len(smooth) // 20 : max(len(smooth) // 4, len(smooth) // 20 + 5)]))
    high = smooth >= _FACTOR * usual
    if not usual > 0 or high.sum() < _WIDTH or high.mean() < 0.02:
        return None
    first = int(steps[np.argmax(high)])
    before, after = _level(loss, steps[0], first), _level(loss, first, steps[-1])
    lowest = float(centered_median(loss.values, _WIDTH).min())
    if not after > before + 0.1 * abs(before - lowest) or not after > 1.1 * lowest:
        return None
    factor = float(smooth[high].max()) / usual
    return _finding(
        view,
        f"The gradient norm grew to {factor:,.0f} times its usual value from step {first:,} on",
        0.8,
        first,
        "",
        f"The smoothed norm was {usual:.3g} in the first quarter and reached {factor * usual:.3g}; the loss rose from "
        f"{before:.3g} to {after:.3g}.",
        {"factor": factor, "usual": usual},
    )


def _level(loss: Curve, first: float, last: float) -> float:
    """Median loss in the last half of a stretch before a step, or over the stretch after it."""
    part = loss.between(first, last).values
    return float(np.median(part[len(part) // 2 :])) if len(part) else float("nan")


def _finding(
    view: RunView, title: str, confidence: float, first: int, where: str, text: str, numbers: dict[str, float]
) -> Finding:
    norm = view.named(f"grad/norm/{where}") if where else view.curve("gradient norm")
    drawn = tuple(c.name for c in (norm, view.loss) if c is not None)
    return Finding(
        kind=CARD.name,
        title=title,
        severity="warning",
        confidence=confidence,
        first_step=first,
        last_step=view.last_step,
        where=where,
        evidence=Evidence(text=text, numbers=numbers, plot=Plot(signals=drawn, marks={"begins": first})),
        remedy=instruction(PAGE.remedy[0] if not where else PAGE.remedy[1]),
        papers=CARD.papers,
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="gradient norm", least=1),), check=check)
