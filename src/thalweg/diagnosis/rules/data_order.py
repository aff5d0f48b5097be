r"""The training loss repeats itself at a fixed distance: the data come in the same order again and again.

Of the loss, less its trend and divided by it, the autocorrelation r(lag) is taken. A period p counts if

    r(p) > max(0.3, 6 / sqrt(n)),   r(2p) > 0.6 r(p),   and r < 0.5 r(p) somewhere between,

with six periods in the run at least, and if the loss within a period is no slope: a saw tooth is what epochs of a set that
is being memorized look like, or tasks that follow one another. Ten periods, r(p) of 0.45 and a swing
of 3 % of the loss make it a warning.
"""

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, Severity, instruction
from thalweg.diagnosis.statistics import levels
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="data-order",
    kind="rule",
    summary="The training loss is periodic: the data come in the same, perhaps sorted, order.",
    formula="r(p) > max(0.3, 6 / sqrt(n)), r(2p) > 0.6 r(p);  r: autocorrelation of (loss - trend) / trend",
    symbols={"p": "period in steps", "n": "number of losses"},
    needs="a training loss at evenly spaced steps, sixty or more",
)
PAGE = Page(
    what="Every pass takes the same batches in the same order. If the order is also sorted, by class, length or source, each "
    "batch pulls the weights its own way: the gradient of one batch is no sample of that of all.",
    causes=(
        "shuffle=False, or a sampler made with the same seed for every epoch",
        "data sorted on disk, read in order, with a shuffle buffer that is too small",
        "a few long sources read by turns",
    ),
    apart={
        "loss-spike": "single rises, at no fixed distance",
        "epochs of a set that is being memorized": "a saw tooth, falling at each epoch's start: not reported",
        "an evaluation or a change of the rate every so many steps": "look whether the period is theirs",
    },
    remedy=(
        "shuffle anew for every epoch: DataLoader(..., shuffle=True), and set_epoch() on a distributed sampler",
        "make the shuffle buffer many times larger than the runs of alike examples",
    ),
    tried="Digits sorted by class against shuffled ones, small GPTs of 100 to 3,000 steps, published curves of language models.",
    explains=(
        "loss-spike",
        "divergence",
        "plateau",
        "evaluation-jump",
        "overfitting",
        "dead-units",
        "dormant-units",
    ),
)

_MOST = 1 << 18  # values looked at


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """One finding with the period."""
    loss = view.loss
    assert loss is not None  # required
    gaps = np.diff(loss.steps)
    if (gaps == np.median(gaps)).mean() < 0.95:
        return NotEvaluable(
            kind=CARD.name, lacked="train loss at evenly spaced steps", record="watch.log(loss=loss)"
        )
    part = slice(len(loss) // 10, len(loss) // 10 + _MOST)
    residual = _residual(loss.steps[part], loss.values[part])
    if residual is None:
        return []
    found = _period(residual)
    if found is None:
        return []
    lag, strength = found
    if _saw(residual, lag):
        return []
    period = round(lag * loss.spacing)
    swing = float(np.sqrt(strength) * residual.std())
    strong = strength >= 0.45 and swing >= 0.03 and len(residual) >= 10 * lag
    severity: Severity = "warning" if strong else "note"
    first = int(loss.steps[part][0])
    return [
        Finding(
            kind=CARD.name,
            title=f"The training loss repeats every {period:,} steps",
            severity=severity,
            confidence=round(min(0.9, 0.5 + 0.5 * strength), 2),
            first_step=int(loss.steps[0]),
            last_step=int(loss.steps[-1]),
            evidence=Evidence(
                text=f"About its trend, the loss at one step and {period:,} steps later correlate by {strength:.2f} "
                f"(chance gives {3 / np.sqrt(len(residual)):.2f}), with a swing of {swing:.1%}, and again at twice the distance; that is {len(residual) // lag:,} "
                f"times in the run.{_epoch(view, period)}",
                numbers={"period": period, "correlation": strength, "swing": swing},
                plot=Plot(
                    signals=(loss.name,),
                    first=first,
                    last=first + 6 * period,
                    marks={"one period": first + period},
                ),
            ),
            remedy=instruction(*PAGE.remedy[:2]),
        )
    ]


def _residual(steps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The loss about its trend, in units of the trend's noise, outliers cut; None if it is too short or constant."""
    if len(values) < 60:
        return None
    middles, trend = levels(steps, values, 8)
    floor = 1e-3 * float(np.abs(trend).max())
    about = np.interp(steps, middles, trend)
    residual = (values - about) / np.maximum(np.abs(about), floor if floor > 0 else 1.0)
    low, high = np.percentile(residual, [2, 98])
    clipped = np.clip(residual, low, high)
    centered: NDArray[np.float64] = clipped - clipped.mean()
    return centered if float(np.ptp(centered)) > 1e-9 else None


def _period(residual: NDArray[np.float64]) -> tuple[int, float] | None:
    """The shortest lag at which it repeats, and the correlation there."""
    n = len(residual)
    power = np.abs(np.fft.rfft(residual, 2 * n)) ** 2
    most = n // 3
    r = np.fft.irfft(power)[:most] / np.arange(n, n - most, -1)
    r = r / r[0]
    bar = max(0.3, 6 / np.sqrt(n))
    lags = np.arange(4, n // 6)
    peaks = lags[(r[lags] > bar) & (r[lags] >= r[lags - 1]) & (r[lags] >= r[lags + 1])]
    if not len(peaks):
        return None
    strong = peaks[r[peaks] >= 0.8 * r[peaks].max()]
    lag = int(strong[0])
    again = float(r[2 * lag - 1 : 2 * lag + 2].max())
    between = float(r[lag // 4 + 1 : lag - lag // 4].min())
    return (lag, min(1.0, float(r[lag]))) if again > 0.6 * r[lag] and between < 0.5 * r[lag] else None


def _saw(residual: NDArray[np.float64], lag: int) -> bool:
    """Whether the loss goes one way within a period and leaps back."""
    profile = residual[: len(residual) // lag * lag].reshape(-1, lag).mean(axis=0)
    leap = int(np.argmax(np.abs(np.diff(np.append(profile, profile[0])))))
    turned = np.roll(profile, -(leap + 1))
    ranks = np.argsort(np.argsort(turned))
    return bool(abs(np.corrcoef(ranks, np.arange(lag))[0, 1]) > 0.85)


def _epoch(view: RunView, period: int) -> str:
    """Whether the period is an epoch, where the log tells."""
    epoch: Curve | None = view.curve("epoch")
    if epoch is None or len(epoch) < 3 or np.ptp(epoch.values) <= 0:
        return ""
    length = float(np.ptp(epoch.steps) / np.ptp(epoch.values))
    return f" An epoch is {length:.0f} steps." if abs(period / length - 1) < 0.05 else ""


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss", least=60),), check=check)
