"""Attention logits grow until the softmax of attention is one-hot.

max_ij q_i . k_j / sqrt(d) grows with the norms of the query and key weights. Once it is in the hundreds and thousands,
attention attends to one place only, its gradient vanishes, and training becomes unstable. No instrument records these
logits (fused attention never has them in memory): the rule judges what the user logs.
"""

import re

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, Severity, instruction
from thalweg.diagnosis.statistics import stretches
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="attention-logits-growth",
    kind="rule",
    summary="The largest attention logits grow into the hundreds and go on growing: attention becomes one-hot.",
    papers=(14,),
    formula="max_ij q_i . k_j / sqrt(d) above 100 and more than doubled, still growing",
    symbols={"q": "queries", "k": "keys", "d": "dimensions of a head"},
    needs='a signal that the user logs: "attention/largest_logit"',
)
PAGE = Page(
    what="Attention scores grow without bound until each query attends to one key. The loss then falls slowly, or diverges "
    "slowly; the larger the rate, the sooner.",
    causes=(
        "a rate too high for the query and key weights; it shows in small models at high rates as in large ones",
        "no normalization of queries and keys, no weight decay on them",
        "a missing division by the root of the head's dimension",
    ),
    apart={
        "a constant scale": "large logits that don't grow are a matter of units (unscaled, or in base 2)",
        "gradient-exploding": "gradients grow; here they vanish in the query and key weights",
    },
    remedy=(
        "normalize queries and keys before their product (qk-layernorm), or cap the logits",
        "lower the rate or lengthen the warm-up; decay the query and key weights",
    ),
    tried="Common practice: logits of 100 are where implementations begin to clip, and some thousand went before divergence in "
    "published large runs. Tried on synthetic curves only.",
    explains=("divergence", "loss-spike", "plateau"),
)
_NAME = re.compile(r"(?:attn|attention|qk).*(?:logit|score)|(?:logit|score).*(?:attn|attention|qk)")
_LARGE = 100.0
_VERY_LARGE = 1000.0
_GROWN = 2.0
_STRETCHES = 10


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding: the signal with the largest logits."""
    names = [name for name in view.specs if _NAME.search(name.lower())]
    curves = [c for name in names if (c := view.named(name)) is not None and len(c) >= _STRETCHES]
    if not curves:
        return NotEvaluable(
            kind=CARD.name,
            lacked="attention logits",
            record='watch.log({"attention/largest_logit": (q @ k.mT / d**0.5).max()})',
        )
    judged = [(found, curve) for curve in curves if (found := _growth(curve)) is not None]
    if not judged:
        return []
    (begin, end, first), worst = max(judged, key=lambda pair: pair[0][1])
    severity: Severity = "warning" if end >= _VERY_LARGE else "note"
    return [
        Finding(
            kind=CARD.name,
            title=f"Attention logits grew from {begin:.3g} to {end:,.0f}",
            severity=severity,
            confidence=0.8 if end >= _VERY_LARGE else 0.6,
            first_step=first,
            last_step=int(worst.steps[-1]),
            where=_layer(view, worst),
            evidence=Evidence(
                text=f"{worst.name} was {begin:.3g} in the first tenth of the run and {end:.4g} in the last, and is still growing; "
                f"it passed {_LARGE:.0f} at step {first:,}. {len(judged)} of {len(curves)} such signals grew so.",
                numbers={"first": begin, "last": end, "signals": len(judged)},
                plot=Plot(signals=(worst.name,), marks={"above 100": first}),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def _growth(curve: Curve) -> tuple[float, float, int] | None:
    """Size in the first and the last tenth and the step at which it passed the bound; None if it didn't grow."""
    size = np.abs(curve.values)
    _, means, _ = stretches(curve.steps, size, _STRETCHES)
    begin, end = float(means[0]), float(means[-1])
    growing = end >= 1.05 * float(means[len(means) * 2 // 3])
    if end < _LARGE or end < _GROWN * begin or not growing:
        return None
    return begin, end, int(curve.steps[np.argmax(size >= _LARGE)])


def _layer(view: RunView, curve: Curve) -> str:
    """The layer that the signal's name ends with, if it has more than a group and a quantity."""
    name = curve.name.removeprefix(f"{view.key}:")
    return name.split("/", 2)[2] if name.count("/") >= 2 else ""


RULE = Rule(card=CARD, page=PAGE, check=check)
