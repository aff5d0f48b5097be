"""Gradients shrink from the output to the input by a factor a layer.

With r_l = ||g_l|| / ||w_l|| over the weight matrices in the order of the network, log10 r_l rises along a line from
the input to the output: each layer passes on a constant share of the gradient, and the first ones get next to
nothing. Relative to the weights, the layers of a healthy network lie within two decades and follow no trend.
"""

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import column_medians, slope
from thalweg.diagnosis.view import RunView, is_matrix

CARD = Card(
    name="gradient-vanishing",
    kind="rule",
    summary="Gradients shrink by a factor a layer from the output to the input; the first layers hardly learn.",
    papers=(213,),
    formula="r_l = ||g_l|| / ||w_l||;  log10 r_L - log10 r_1 >= 3 along a rising line over the layers l",
    symbols={"g_l": "gradient of weight matrix l", "w_l": "that matrix", "L": "number of matrices"},
    needs="gradient norms by layer, of four matrices or more",
)
PAGE = Page(
    what="The layers near the input get gradients thousands of times smaller than those near the output, relative to "
    "their weights. They stay as they were initialized, and what they lose can't be made good by the later ones. Adam "
    "hides it in part: it steps all layers alike, the small gradients mostly in the direction of their noise.",
    causes=(
        "many layers with sigmoid or tanh, whose derivatives are below 1",
        "an initialization too small for the width, or for the activation function",
        "many layers without residual connections and normalization; long recurrences",
    ),
    apart={
        "parameters-frozen": "the gradient is exactly zero in some layers, without a trend over the others",
        "dead-units": "one layer blocks: gradients before it drop at once, not by a factor a layer",
        "rate-low": "updates are small in all layers alike",
        "embeddings": "a first layer alone may be far below the others; a trend over all is asked for",
    },
    remedy=(
        "put residual connections around blocks of layers, and a normalization into them",
        "use ReLU or GELU in place of sigmoid and tanh, with the initialization that belongs to it (He)",
        "for recurrent networks use gates (LSTM, GRU) or shorter sequences",
    ),
    tried="MLPs of 8 layers with sigmoids span 4 to 7 decades; healthy MLPs, CNNs and GPTs of up to 12 matrices span at "
    "most 2, without a trend.",
    explains=("rate-low", "plateau", "parameters-frozen", "constant-prediction", "epsilon-dominates"),
)
LEAST_LAYERS = 4
DECADES = 3.0
_CRITICAL = 5.0
_TREND = 0.7  # correlation of log r with the layer's place
_EARLY = 0.2  # of the run: a network may leave such a state on its own


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding if the trend is there for most of the run after its beginning."""
    depth = relative_gradients(view)
    if depth is None:
        return NotEvaluable(
            kind=CARD.name,
            lacked=f"gradients of {LEAST_LAYERS} weight matrices or more",
            record="watch = tw.watch(model, optimizer)",
        )
    names, steps, logs, silent = depth
    begin = steps[0] + _EARLY * (steps[-1] - steps[0])
    fall, trend = trend_over_layers(column_medians(logs[steps >= begin]), silent)
    if fall < DECADES or trend < _TREND:
        return []
    prefix = f"{view.key}:" if view.key else ""
    per_layer = fall / (len(names) - 1)
    return [
        Finding(
            kind=CARD.name,
            title=f"Gradients shrink by {fall:.1f} decades from the last layer to the first",
            severity="critical" if fall >= _CRITICAL else "warning",
            confidence=0.9 if fall >= DECADES + 1 else 0.75,
            first_step=int(steps[0]),
            last_step=int(steps[-1]),
            where=names[0],
            evidence=Evidence(
                text=f"Over {len(names)} weight matrices the gradient relative to the weight falls toward the input by a "
                f"factor of {10**per_layer:.1f} a layer (correlation with the layer's place {trend:.2f}), for the whole "
                "run after its first fifth.",
                numbers={"decades": fall, "trend": trend, "layers": len(names)},
                plot=Plot(signals=tuple(f"{prefix}grad/norm/{name}" for name in (names[0], names[-1]))),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def relative_gradients(
    view: RunView,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64], int] | None:
    """Weight matrices from input to output, steps [n], log10 ||g|| / ||w|| [n, layers], and how many lead without any.

    Layers at the input whose gradient was always exactly zero are counted and their columns left NaN; None if fewer
    than four matrices have a gradient.
    """
    gradient, weight = view.layers("grad/norm"), view.layers("weight/norm")
    if gradient is None:
        return None
    sizes = {} if weight is None else dict(zip(weight.layers, column_medians(weight.values), strict=True))
    chosen = [i for i, layer in enumerate(gradient.layers) if is_matrix(layer)]
    names = [gradient.layers[i] for i in chosen]
    size = np.array([sizes.get(name, 1.0) for name in names])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(gradient.values[:, chosen].astype(np.float64) / size)
    logs[~np.isfinite(logs)] = np.nan
    there = np.isfinite(logs).any(axis=0)
    leading = int(np.argmax(there)) if there.any() else len(names)
    if there.sum() < LEAST_LAYERS:
        return None
    kept = there | (np.arange(len(names)) < leading)
    return [n for n, k in zip(names, kept, strict=True) if k], gradient.steps, logs[:, kept], leading


def trend_over_layers(logs: NDArray[np.float64], silent: int) -> tuple[float, float]:
    """Decades by which r rises from the first layer to the last along a line, and the correlation with the place.

    Layers without any gradient at the input count by the line through the others.
    """
    places = np.flatnonzero(np.isfinite(logs))
    y = logs[places]
    if len(places) < LEAST_LAYERS or np.ptp(y) == 0:
        return 0.0, 0.0
    line, _ = slope(places, y)
    across = line * (len(logs) - 1)
    third = max(1, len(y) // 3)
    seen = float(np.median(y[-third:]) - np.median(y[:third]))
    total = across if silent else np.sign(across) * min(abs(across), abs(seen) * 1.5)
    return float(total), float(np.corrcoef(places, y)[0, 1])


RULE = Rule(
    card=CARD, page=PAGE, requires=(SignalQuery(name="grad/norm", layers=True, least=5),), check=check
)
