"""The batch is far below the gradient noise scale: each update is mostly noise.

B_simple = tr(S) / |G|^2 is the batch at which noise and signal in the gradient are equal. Well below it, halving the
batch costs twice the steps for the same examples and nothing else; so a batch of a tenth of it saves no computation,
and wastes what a device could do in parallel.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import trailing_median
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="batch-small",
    kind="rule",
    summary="The batch is below a tenth of the gradient noise scale for half of the run or more.",
    papers=(1001,),
    formula="B < B_simple / 10;  B_simple = tr(S) / |G|^2",
    symbols={
        "B": "examples of one update",
        "S": "covariance of per-example gradients",
        "G": "the true gradient",
    },
    needs="the noise scale: gradient accumulation while watching; the count of samples",
)
PAGE = Page(
    what="The gradient of a batch is mostly noise. Larger batches would need fewer steps for the same progress, almost in "
    "proportion, so if the device isn't full, time is lost. The number of examples needed stays about the same.",
    causes=(
        "a batch limited by memory, without accumulation",
        "the noise scale grows as the loss falls: a batch that was right in the beginning is small at the end",
    ),
    apart={
        "a full device": "if a larger batch takes longer in proportion, a small batch loses nothing",
        "rate-high": "a small batch at a rate for a large one: the loss is noisy because of the rate",
    },
    remedy=(
        "if examples per second rise with the batch, enlarge it toward the noise scale, and the rate with it (as the batch "
        "for SGD, as its root for Adam)",
        "accumulate gradients only if the optimizer's step is what takes the time",
    ),
    tried="The bounds of a tenth and ten times are where the paper's trade-off (steps against examples) is within a tenth "
    "of its limits. Batches of 2 to 512 on small MLPs, CNNs and GPTs.",
)
_FACTOR = 10.0
_LASTING = 0.5  # of the measurements
_WIDTH = 5
_LEAST = 10
_SURELY = 3.0  # times the batch, of the lower bound


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """A note if it lasts."""
    scale, batch = view.curve("noise scale"), view.batch
    assert scale is not None
    if not batch > 0:
        return NotEvaluable(
            kind=CARD.name, lacked="examples of one update", record='tw.watch(..., config={"batch_size": n})'
        )
    smooth = trailing_median(scale.values, _WIDTH)
    smooth[0] = scale.values[0]
    above = smooth > _FACTOR * batch
    measured = len(scale) + len(scale.bad_steps)  # an infinite scale: no signal could be measured at all
    share = (int(above.sum()) + len(scale.bad_steps)) / measured
    half = smooth[len(smooth) // 2 :]
    if share < _LASTING or not (half > _FACTOR * batch).mean() >= _LASTING:
        return _at_least(view, batch)
    typical = float(sorted(half)[len(half) // 2])
    return [
        Finding(
            kind=CARD.name,
            title=f"Batches of {batch:,.0f} examples; the gradient's noise scale is {typical:,.0f}",
            severity="note",
            confidence=0.7,
            first_step=int(scale.steps[above.argmax()]),
            last_step=int(scale.steps[-1]),
            evidence=Evidence(
                text=f"In {share:.0%} of the measurements the noise scale is more than ten times the batch (median of the second "
                f"half {typical:,.0f}): more than nine tenths of the squared gradient are noise.",
                numbers={"batch": batch, "scale": typical, "share": share},
                plot=Plot(signals=(scale.name,)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


def _at_least(view: RunView, batch: float) -> list[Finding]:
    """By a lower bound of the scale in the last third, where the signal is too weak to be measured."""
    trace, squared = view.named("noise/trace"), view.named("noise/gradient_squared")
    if trace is None or squared is None or len(squared) < 3 * _LEAST or len(trace) < 3 * _LEAST:
        return []
    noise, signal = trace.values[-(len(trace) // 3) :], squared.values[-(len(squared) // 3) :]
    most = float(signal.mean() + 2 * signal.std() / np.sqrt(len(signal)))
    least = float(noise.mean()) / most if most > 0 else 0.0
    point = float(noise.mean() / signal.mean()) if signal.mean() > 0 else float("inf")
    if least < _SURELY * batch or point < _FACTOR * batch:
        return []
    return [
        Finding(
            kind=CARD.name,
            title=f"Batches of {batch:,.0f} examples; the gradient's noise scale is at least {least:,.0f}",
            severity="note",
            confidence=0.6,
            first_step=int(squared.steps[-(len(squared) // 3)]),
            last_step=int(squared.steps[-1]),
            evidence=Evidence(
                text=f"In the last third of the run the squared gradient is too small against its noise to be measured (at most "
                f"{most:.2g}, two standard errors above its mean), so the noise scale is {least:,.0f} or more.",
                numbers={"batch": batch, "scale": least},
                plot=Plot(signals=(squared.name, trace.name)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="noise scale", least=10),), check=check)
