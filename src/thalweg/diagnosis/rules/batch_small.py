"""The batch is far below the gradient noise scale: each update is mostly noise.

B_simple = tr(S) / |G|^2 is the batch at which noise and signal in the gradient are equal. Well below it, halving the
batch costs twice the steps for the same examples and nothing else; so a batch of a tenth of it saves no computation,
and wastes what a device could do in parallel.
"""

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot
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
        return []
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
            remedy=PAGE.remedy[0],
            papers=CARD.papers,
        )
    ]


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="noise scale", least=10),), check=check)
