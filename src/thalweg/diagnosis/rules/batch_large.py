"""The batch is far above the gradient noise scale: more examples an update bring next to nothing.

B_simple = tr(S) / |G|^2 is the batch at which noise and signal in the gradient are equal. Well above it the gradient is
known already, and further examples in the batch are spent for no fewer steps.
"""

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, instruction
from thalweg.diagnosis.statistics import trailing_median
from thalweg.diagnosis.view import RunView

CARD = Card(
    name="batch-large",
    kind="rule",
    summary="The batch is above ten times the gradient noise scale for half of the run or more.",
    papers=(1001,),
    formula="B > 10 B_simple;  B_simple = tr(S) / |G|^2",
    symbols={
        "B": "examples of one update",
        "S": "covariance of per-example gradients",
        "G": "the true gradient",
    },
    needs="the noise scale: gradient accumulation while watching; the count of samples",
)
PAGE = Page(
    what="The batch says the same again and again. Most of its examples, and the computation they take, bring no faster "
    "progress: the same number of smaller batches would do.",
    causes=(
        "a batch chosen to fill the device, in the beginning of training, when the noise scale is low",
        "examples that are much alike (neighboring frames, copies, one long document)",
    ),
    apart={
        "a wish for few steps": "many devices and a deadline: large batches are the price, and this is a note",
        "the first steps": "the noise scale is low there in every run; half of the run is asked for",
    },
    remedy=(
        "halve the batch, and the rate with it (as the batch for SGD, as its root for Adam), and take the same examples",
        "begin with a small batch and enlarge it as the noise scale grows",
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
    below = smooth < batch / _FACTOR
    share = float(below.sum()) / (len(scale) + len(scale.bad_steps))
    if share < _LASTING:
        return []
    typical = float(sorted(smooth[below])[int(below.sum()) // 2])
    return [
        Finding(
            kind=CARD.name,
            title=f"Batches of {batch:,.0f} examples; the gradient's noise scale is {max(typical, 0):,.1f}",
            severity="note",
            confidence=0.7,
            first_step=int(scale.steps[below.argmax()]),
            last_step=int(scale.steps[len(below) - 1 - below[::-1].argmax()]),
            evidence=Evidence(
                text=f"In {share:.0%} of the measurements the noise scale is below a tenth of the batch (median there "
                f"{typical:,.1f}): a batch of a tenth would point nearly the same way.",
                numbers={"batch": batch, "scale": typical, "share": share},
                plot=Plot(signals=(scale.name,)),
            ),
            remedy=instruction(PAGE.remedy[0]),
            papers=CARD.papers,
        )
    ]


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="noise scale", least=10),), check=check)
