"""Units that are exactly zero for every example of a batch: they pass nothing on, and get no gradient.

A ReLU whose input is negative for all data has no gradient that could bring it back. Some such units are usual. A
layer of which most are dead blocks what comes before it, and a layer that is dead entirely cuts the network in two.
"""

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="dead-units",
    kind="rule",
    summary="Most units of a layer are zero for every example: nothing passes, and no gradient can bring them back.",
    papers=(183,),
    formula="share of units i of a layer with E_x |h_i(x)| = 0;  above 0.5 and grown, or above 0.8",
    symbols={"h_i": "activation of unit i", "x": "examples of one batch"},
    needs="a forward through the watched model; batches of 16 examples or more",
)
PAGE = Page(
    what="Units that are zero for all inputs do not take part: they pass on no signal and get no gradient. Where a whole "
    "layer is dead, everything before it stops learning and the output no longer depends on the input.",
    causes=(
        "a rate too high: one large update pushes biases so far down that no input brings the unit above zero",
        "a missing warm-up, or a spike of the gradient",
        "inputs that aren't centered and scaled, or a bias initialized far below zero",
    ),
    apart={
        "sparse activations": "units that are zero for most examples, not for all; a batch too small can't tell, so below "
        "16 examples only a layer that is dead almost entirely counts",
        "dormant-units": "activations are small against their layer, not zero; those may recover",
        "units to spare": "a share below four fifths is at most a note: what the network lacks may have another cause",
    },
    remedy=(
        "lower the peak rate by a factor of 3 to 10 or lengthen the warm-up, and restart from before the units died",
        "normalize inputs, and layers before the activation",
        "use an activation with a gradient on both sides (GELU, SiLU, leaky ReLU)",
    ),
    tried="Healthy MLPs, CNNs and GPTs with 8 to 128 units a layer and batches of 8 to 512: at most 0.35 of a layer's units "
    "are dead. The definition is that of dormant neurons with a threshold of zero.",
    explains=(
        "dormant-units",
        "divergence",
        "plateau",
        "constant-prediction",
        "parameters-frozen",
        "rate-low",
        "gradient-vanishing",
    ),
)
_WHOLE = 0.98
_MOST = 0.8
_HALF = 0.5
_GROWN = 0.2
_FEW_EXAMPLES = 16
_FEW_SHARE = 0.95
_LEAST = 4


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding: the layers with most dead units, where it began."""
    matrix = view.layers("units/dead")
    assert matrix is not None
    shares = {layer: _known(matrix.steps, matrix.values[:, i]) for i, layer in enumerate(matrix.layers)}
    shares = {layer: curve for layer, curve in shares.items() if len(curve[0]) >= _LEAST}
    small = 0 < view.batch < _FEW_EXAMPLES
    high = {layer: c for layer, c in shares.items() if _is_high(c[1], small) and c[1].max() <= 1}
    if not high:
        return []
    onset = {layer: int(s[np.argmax(v >= _final(v) - 0.5 * _GROWN)]) for layer, (s, v) in high.items()}
    where = min(high, key=lambda layer: (onset[layer], list(shares).index(layer)))
    steps, values = high[where]
    end, begin = _final(values), float(values[0])
    worst = max(_final(v) for _, v in high.values())
    learned = _learned(view, onset[where])
    harmless = worst < _MOST  # enough are left, and what they lack may be a symptom
    return [
        Finding(
            kind=CARD.name,
            title=f"{end:.0%} of the units that {where} reads are dead",
            severity="note" if harmless else "critical" if worst >= _WHOLE and not learned else "warning",
            confidence=0.5 if harmless else 0.92 if worst >= _WHOLE else 0.75,
            first_step=onset[where],
            last_step=int(steps[-1]),
            where=where,
            evidence=Evidence(
                text=f"{end:.0%} of the inputs of {where} are exactly zero for every example of the batch "
                f"({begin:.0%} at step {int(steps[0]):,}); {len(high)} of {len(shares)} layers read mostly dead units.",
                numbers={"share": end, "first_share": begin, "layers": len(high)},
                plot=Plot(
                    signals=_drawn(view, where),
                    marks={"dead": onset[where]},
                ),
            ),
            remedy=instruction(PAGE.remedy[0] if end - begin >= _GROWN else PAGE.remedy[1]),
            papers=CARD.papers,
        )
    ]


def _known(
    steps: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    there = np.isfinite(values)
    return steps[there], values[there].astype(np.float64)


def _final(values: NDArray[np.float64]) -> float:
    """Median share of the last quarter."""
    return float(np.median(values[-max(_LEAST, len(values) // 4) :]))


def _is_high(values: NDArray[np.float64], small: bool) -> bool:
    end = _final(values)
    if small:
        return end >= _FEW_SHARE
    return end >= _MOST or (end >= _HALF and end - float(values[0]) >= _GROWN)


def _learned(view: RunView, since: int) -> bool:
    """Whether the loss fell by a tenth or more after a step."""
    loss = view.loss
    if loss is None:
        return False
    after = loss.values[loss.steps >= since]
    if len(after) < 10:
        return False
    tenth = max(3, len(after) // 10)
    return float(np.median(after[-tenth:])) < 0.9 * float(np.median(after[:tenth]))


def _drawn(view: RunView, where: str) -> tuple[str, ...]:
    curves = (view.named(f"units/dead/{where}"), view.loss)
    return tuple(curve.name for curve in curves if curve is not None)


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(name="units/dead", layers=True, least=_LEAST),),
    check=check,
)
