"""Adam's epsilon is larger than the gradients: updates shrink with the gradient instead of having the rate's size.

Adam divides by sqrt(v) + epsilon, and sqrt(v) is about the gradient's root mean square. Where rms(g) / epsilon is below 1,
epsilon is the larger part, and the update is g times rate / epsilon: SGD with a rate nobody chose. Small gradients, of
large models or of embeddings, meet it first.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import centered_median, levels
from thalweg.diagnosis.view import RunView, is_matrix

CARD = Card(
    name="epsilon-dominates",
    kind="rule",
    summary="Gradients are smaller than the optimizer's epsilon in most of the run: updates shrink with them.",
    papers=(14,),
    formula="q_l = rms(g_l) / eps < 1 in more than half of the run",
    symbols={"g_l": "gradient of weight matrix l", "eps": "the optimizer's epsilon"},
    needs="an optimizer with an epsilon",
)
PAGE = Page(
    what="The layers concerned get updates smaller than the rate says, the smaller their gradient, so that different layers "
    "learn at different speeds and the rate's meaning changes in the course of the run.",
    causes=(
        "an epsilon of 1e-3 to 1 copied from a recipe for another network",
        "the default of 1e-8 with very small gradients: wide models, embeddings of rare tokens, losses scaled down",
        "a loss divided by something large (tokens, accumulation) twice",
    ),
    apart={
        "a finished run": "gradients fall below epsilon when the loss is nearly zero; only steps before that count",
        "biases": "some have gradients of rounding errors only (before a normalization, keys of attention): not counted",
        "rate-low": "updates are small although gradients are far above epsilon",
    },
    remedy=(
        "lower epsilon to 1e-8, or below the smallest rms(g) by a factor of 100 (1e-15 is used for large models)",
        "if epsilon was raised for stability, use warm-up, clipping or a lower beta2 instead",
    ),
    tried="Healthy MLPs, CNNs and GPTs with Adam's default have rms(g) / epsilon of 5,000 to 8,000,000; with an epsilon of "
    "0.01 and 0.1 they have 0.05 to 2.",
    explains=("rate-low", "plateau"),
)
_MOST = 0.5
_LEARNED = 0.01  # of the first loss: what comes after has nothing left to learn
_LEAST = 5
_POINTS = 2000  # a long curve is made short before it is smoothed


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding over the layers concerned."""
    matrix = view.layers("grad/rms_to_epsilon")
    assert matrix is not None
    rows = matrix.steps <= _end_of_learning(view)
    chosen = [i for i, layer in enumerate(matrix.layers) if is_matrix(layer)]
    values, names = matrix.values[rows][:, chosen], [matrix.layers[i] for i in chosen]
    known = np.isfinite(values) & (values > 0)
    counts = known.sum(axis=0)
    shares = ((values < 1) & known).sum(axis=0) / np.maximum(counts, 1)
    low = np.flatnonzero((shares > _MOST) & (counts >= _LEAST))
    if not len(low):
        return []
    medians = np.array([float(np.median(values[known[:, i], i])) for i in low])
    worst = int(low[np.argmin(medians)])
    column = values[:, worst]
    first = int(matrix.steps[rows][np.argmax((column < 1) & known[:, worst])])
    total = view.named("grad/rms_to_epsilon")
    layer = view.named(f"grad/rms_to_epsilon/{names[worst]}")
    return [
        Finding(
            kind=CARD.name,
            title=f"Gradients are {medians.min():.2g} times epsilon in {names[worst]}"
            + (f" and below it in {len(low) - 1} other weights" if len(low) > 1 else ""),
            severity="warning",
            confidence=0.9 if medians.min() < 0.3 else 0.75,
            first_step=first,
            last_step=view.last_step,
            where=names[worst],
            evidence=Evidence(
                text=f"The root mean square of the gradient is below the optimizer's epsilon in {shares[worst]:.0%} of the "
                f"measurements of {names[worst]} (median {medians.min():.2g} times), and mostly so in {len(low)} of {len(names)} "
                "weight matrices.",
                numbers={"ratio": float(medians.min()), "share": float(shares[worst]), "layers": len(low)},
                plot=Plot(signals=tuple(c.name for c in (layer, total) if c is not None)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def _end_of_learning(view: RunView) -> float:
    """The step at which the smoothed loss has fallen to a hundredth of the first; infinite if it never does."""
    loss = view.loss
    if loss is None or len(loss) < 10 or not loss.values[0] > 0:
        return float("inf")
    steps, values = levels(loss.steps, loss.values, _POINTS)
    done = centered_median(values, max(5, len(values) // 50)) <= _LEARNED * loss.values[0]
    return float(steps[np.argmax(done)]) if done.any() else float("inf")


RULE = Rule(
    card=CARD,
    page=PAGE,
    requires=(SignalQuery(name="grad/rms_to_epsilon", layers=True, least=_LEAST),),
    check=check,
)
