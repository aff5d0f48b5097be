"""The loss rose suddenly above its trailing level and stood there for a while.

With base the median of the trailing window and scale its noise (the larger of 1.4826 MAD and (q95 - median) / 1.645, so
that losses with heavy tails are not taken for spikes), a spike is a stretch in which the median of five neighbors exceeds

    base + max(5 scale, progress so far / 10),        progress so far = first level - base.

It has recovered where that median is back at base + 2 scale. Outliers of one or two values are at most a note, unless
the values are means over many steps: of means over w steps, 5 / sqrt(w) must be high, by 8 scales. What rose before the loss is looked for in the steps before: the update norm
while the gradient norm was calm (Adam's second moment lags behind: loss spikes came 1 to 8 updates after it was
under-estimated in Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023),
the gradient norm itself (Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset", 2025), or the rate.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.statistics import MAD, first_rise, median_of_five
from thalweg.diagnosis.view import Curve, Ints, RunView

CARD = Card(
    name="loss-spike",
    kind="rule",
    summary="The training loss rose suddenly above its level, with what rose before it and what it cost.",
    papers=(1010, 227),
    formula="spike: med5(loss) > base + max(5 scale, progress / 10); recovered: med5(loss) <= base + 2 scale",
    symbols={
        "med5": "median of five neighboring values",
        "base": "median of the trailing window, a twentieth of the run, 10 to 100 values",
        "scale": "noise in that window: the larger of 1.4826 MAD and (95th percentile - median) / 1.645",
        "progress": "first level of the loss - base",
    },
    needs="a training loss; for its cause the gradient norm, update norm and rate of the same steps",
)
_LAGS = "use beta2 = 0.95 instead of 0.999, clip the update (StableAdamW) or lengthen the warm-up"
_GRADIENT = "clip the gradient norm at a few times its usual value, and look at the batches of those steps"
_UNKNOWN = "go back to the checkpoint before the spike and skip its batches, or lower the rate"
PAGE = Page(
    what="The loss leaps up within a few steps and needs many to come back. The steps in between are lost; some spikes "
    "leave the run on a worse path, and a series of them often ends in divergence.",
    causes=(
        "the second moment of Adam lags behind gradients that grow again after a calm time: the update is too large "
        "although the gradient is not (large beta2, such as 0.999)",
        "a rate at the edge of stability, or raised too fast",
        "a batch of broken or very unlike data",
        "attention or output logits that have grown too large",
    ),
    apart={
        "divergence": "the loss doesn't come back",
        "resume-jump": "the rise is at the first step of a resumed segment",
        "data-order": "the loss repeats itself at a fixed distance",
        "tasks that follow one another": "four rises or more at a fixed distance: a note",
        "a single hard batch": "one or two values are high, the next are ordinary: a note at most",
        "other data": "the evaluation loss got no worse while it lasted: a note",
        "a warm restart": "the rate was raised at that very step: a note",
    },
    remedy=(
        f"if the update norm rose first: {_LAGS}",
        f"if the gradient norm rose first: {_GRADIENT}",
        f"if it is not known which rose first: {_UNKNOWN}; record both: watch = tw.watch(model, optimizer)",
    ),
    tried="5 scales of the run's own noise and a tenth of its progress were tried on digits and small GPTs of 100 to 3,000 "
    "steps and on published curves of language models of 25M to 124M parameters.",
    explains=("nonfinite-loss", "nonfinite-gradient"),
)

_GROUPS = 8000  # more values than this are looked at in groups
_ADAM = ("adam", "lamb", "nadam", "radam", "adan")


@dataclass(frozen=True)
class Spike:
    """One rise: places in the curve, and its measures."""

    start: int
    peak: int
    end: int | None  # where it had recovered
    base: float
    scale: float
    progress: float
    sustained: bool

    def height(self, curve: Curve) -> float:
        """How far the peak is above the level before."""
        return float(curve.values[self.peak]) - self.base


@dataclass
class Precursor:
    """What rose before or with the loss."""

    cause: str = "unknown"
    text: str = "Neither gradient nor update norm was recorded closely enough to say what rose first."
    remedy: str = instruction(_UNKNOWN, "record both: watch = tw.watch(model, optimizer)")
    sureness: float = 0.0
    where: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()


def check(view: RunView) -> list[Finding]:
    """One finding for the worst spike, which counts the others."""
    curve = view.loss
    assert curve is not None  # required
    found = spikes(curve)
    if not found:
        return []
    worst = max(found, key=lambda s: (s.sustained, s.height(curve)))
    return [_finding(view, curve, worst, [s for s in found if s.sustained == worst.sustained])]


def spikes(curve: Curve) -> list[Spike]:
    """All rises in the order of time: lasting ones, and outliers that are far out."""
    if len(curve) < 30:
        return []
    calm = _Calm(curve)
    lasting = calm.lasting()
    return sorted(lasting + calm.outliers(lasting), key=lambda s: s.start)


class _Calm:
    """The level and noise of the trailing window, at every group of values."""

    def __init__(self, curve: Curve) -> None:
        n = len(curve)
        self.curve, self.size = curve, -(-n // _GROUPS)
        self.count = n // self.size
        self.single = curve.window == 1
        self.least = int(np.ceil(5 / np.sqrt(curve.window or 10)))  # high values that make a rise
        self.smooth = median_of_five(curve.values) if self.single else curve.values
        groups = self._grouped(curve.values)
        middle = np.median(groups, axis=1)
        spread = np.percentile(groups, 95, axis=1) - middle
        self.width = int(np.clip(self.count // 20, 10, 100))
        windows = sliding_window_view(middle, self.width)[:-1]
        base = np.median(windows, axis=1)
        mad = MAD * np.median(np.abs(windows - base[:, None]), axis=1)
        tail = (np.percentile(windows, 95, axis=1) - base) / 1.645
        inner = np.median(sliding_window_view(spread, self.width)[:-1], axis=1) / 1.645
        self.base = base
        self.scale = np.maximum.reduce([mad, tail, inner, 1e-9 * np.abs(base) + 1e-30])
        self.first = float(np.median(curve.values[:5]))
        self.progress = np.maximum(self.first - base, 0.0)
        many = 5 if self.single else 8  # a mean of many steps counts alone, so it must stand out more
        self.bar = np.maximum.reduce([many * self.scale, 0.1 * self.progress, 0.02 * np.abs(base)])

    def _grouped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[: self.count * self.size].reshape(self.count, self.size)

    def lasting(self) -> list[Spike]:
        """Rises of the median of five (of single values where they are means) that are far beyond the others."""
        top = self._grouped(self.smooth).max(axis=1)[self.width :]
        excess = (top - self.base) / self.bar
        usual = float(np.percentile(excess, 90))
        found: list[Spike] = []
        place = 0
        for candidate in np.flatnonzero(excess > max(1.0, 2 * usual)):
            if candidate < place:
                continue
            spike, place = self._follow(int(candidate), top)
            if spike is not None:
                found.append(spike)
        return found

    def _follow(self, at: int, top: NDArray[np.float64]) -> tuple[Spike | None, int]:
        base, scale = float(self.base[at]), float(self.scale[at])
        low = base + 2 * scale
        begin = at
        while begin > 0 and top[begin - 1] > low and at - begin < self.width:
            begin -= 1
        calm = np.flatnonzero(top[at:] <= low)
        stop = at + int(calm[0]) if len(calm) else len(top)
        first = max(0, (begin + self.width) * self.size - 2)
        last = min(len(self.curve), (stop + self.width) * self.size)
        values = self.curve.values[first:last]
        high = np.flatnonzero(values > low)
        if len(high) < self.least:
            return None, stop + 1
        start = first + int(high[0])
        peak = first + int(np.argmax(self.smooth[first:last]))
        end = min(last, len(self.curve) - 1) if len(calm) else None
        return Spike(start, max(peak, start), end, base, scale, float(self.progress[at]), True), stop + 1

    def outliers(self, lasting: list[Spike]) -> list[Spike]:
        """One or two values that are far out, also compared with the other outliers."""
        if not self.single:
            return []
        values = self._grouped(self.curve.values).max(axis=1)[self.width :]
        over = values - self.base
        usual = float(np.percentile(over / self.scale, 99))
        limit = np.maximum(max(10.0, 3 * usual) * self.scale, 0.5 * self.progress)
        found = []
        for at in np.flatnonzero(over > limit):
            low = int(at + self.width) * self.size
            place = low + int(np.argmax(self.curve.values[low : low + self.size]))
            if any(s.start - 5 <= place <= (len(self.curve) if s.end is None else s.end) for s in lasting):
                continue
            base, scale = float(self.base[at]), float(self.scale[at])
            found.append(Spike(place, place, place + 1, base, scale, float(self.progress[at]), False))
        return found


def _finding(view: RunView, curve: Curve, spike: Spike, alike: list[Spike]) -> Finding:
    step = curve.steps
    start, peak, final = int(step[spike.start]), int(step[spike.peak]), int(step[-1])
    end = None if spike.end is None else int(step[min(spike.end, len(step) - 1)])
    height = spike.height(curve)
    cost = (final if end is None else end) - start
    before = _precursor(view, curve, spike)
    severity, doubt = _severity(curve, spike, before)
    shared = view.evaluation_rise(start, final if end is None else end)
    alone = spike.sustained and shared is not None and shared <= (0.1 * height if end is None else 0.0)
    rhythm = _rhythm([int(step[s.start]) for s in alike])
    if alone or (rhythm and severity == "warning"):
        severity, doubt = "note", 0.2
    sure = 0.7 if spike.sustained or severity == "warning" else 0.5
    numbers = {
        "start": start,
        "peak": peak,
        "height": height,
        "base": spike.base,
        "scales": height / spike.scale,
        "cost": cost,
        "count": len(alike),
        **({} if end is None else {"recovered": end}),
        **before.numbers,
    }
    return Finding(
        kind=CARD.name,
        title=_title(spike, start, peak, height, cost, len(alike)),
        severity=severity,
        confidence=round(min(0.95, sure + before.sureness - doubt), 2),
        first_step=start,
        last_step=final if end is None else end,
        where=before.where,
        evidence=Evidence(
            text=_text(curve, spike, height, end, cost, alike, step)
            + (
                " Evaluation got no worse meanwhile: the examples may have changed, not the model."
                if alone
                else ""
            )
            + (f" They come every {rhythm:,} steps, as tasks or data that change do." if rhythm else "")
            + f" {before.text}",
            numbers=numbers,
            plot=_plot(curve, spike, start, peak, end, before),
        ),
        remedy=before.remedy,
        papers=CARD.papers if before.cause in ("second moment", "gradient") else (),
    )


def _rhythm(starts: list[int]) -> int:
    """The distance of four rises or more that are evenly spaced; 0 if they aren't."""
    gaps = np.diff(starts)
    if len(gaps) < 3 or np.abs(gaps - np.median(gaps)).max() > 0.1 * np.median(gaps):
        return 0
    return round(float(np.median(gaps)))


def _severity(curve: Curve, spike: Spike, before: Precursor) -> tuple[Severity, float]:
    """How bad it is, and how much less sure that makes."""
    if not spike.sustained:
        huge = spike.progress > 0 and spike.height(curve) > max(3 * spike.progress, 20 * spike.scale)
        return ("warning" if huge else "note"), 0.0
    if before.cause == "rate":
        return "note", 0.1
    if spike.end is None:
        left = float(np.median(curve.values[-max(5, len(curve) // 50) :])) - spike.base
        lost = left > 0.5 * spike.height(curve) and left > 0.3 * spike.progress
        return ("critical" if lost else "warning"), 0.1
    return "warning", 0.0 if curve.window == 1 else 0.1


def _title(spike: Spike, start: int, peak: int, height: float, cost: int, count: int) -> str:
    rise = f"{spike.base:.3g} to {spike.base + height:.3g}"
    others = (
        f"{count} {'spikes' if spike.sustained else 'outliers'} of the loss, the worst " if count > 1 else ""
    )
    if not spike.sustained:
        return f"{others or 'One outlier of the loss '}at step {peak:,} ({rise})"
    after = "it did not recover" if spike.end is None else f"{cost:,} steps lost"
    return f"{others or 'Loss spike '}at step {start:,}: {rise}, {after}"


def _text(
    curve: Curve, spike: Spike, height: float, end: int | None, cost: int, alike: list[Spike], step: Ints
) -> str:
    share = f", {height / spike.progress:.0%} of the progress made by then" if spike.progress > 0 else ""
    text = (
        f"From step {step[spike.start]:,} the loss rose by {height:.3g} over its trailing level of {spike.base:.4g} "
        f"({height / spike.scale:.0f} times the noise{share}), with its peak at step {step[spike.peak]:,}."
    )
    if spike.sustained:
        text += (
            f" It was back after {cost:,} steps."
            if end is not None
            else " It was not back by the end of the run."
        )
    if curve.averaged:
        text += (
            f" The log holds {curve.averaged}: the peak of single steps was higher, and the start is coarse."
        )
    if len(alike) > 1:
        places = ", ".join(f"{step[s.start]:,}" for s in alike[:6])
        text += f" There are {len(alike)}, at steps {places}{' and later' if len(alike) > 6 else ''}."
    return text


def _plot(curve: Curve, spike: Spike, start: int, peak: int, end: int | None, before: Precursor) -> Plot:
    first = int(curve.steps[max(0, spike.start - 60)])
    after = len(curve) - 1 if spike.end is None else spike.end
    last = int(curve.steps[min(len(curve) - 1, after + 60)])
    marks = {"start": start, "peak": peak} | ({} if end is None else {"recovered": end})
    return Plot(signals=(curve.name, *before.signals), first=first, last=last, marks=marks)


def _precursor(view: RunView, curve: Curve, spike: Spike) -> Precursor:
    """What rose in the steps before the peak, and in which order."""
    start, peak = int(curve.steps[spike.start]), int(curve.steps[spike.peak])
    reach = int(20 * max(1.0, curve.spacing))
    rate, update = view.rate, view.curve("update norm") or view.curve("update ratio")
    raw, applied = view.curve("gradient norm", "raw"), view.curve("gradient norm")
    gradient = raw or applied
    changed = _onset(rate, start, start, reach, factor=1.2)
    until = peak + reach // 4  # what rose after the peak is told as well
    risen = _onset(update, start, until, reach)
    grown = _onset(gradient, start, until, reach)
    found = Precursor()
    for name, onset in (("rate", changed), ("update", risen), ("gradient", grown)):
        if onset is not None:
            found.numbers |= {f"{name}_onset": onset[0], f"{name}_factor": onset[1]}
    found.signals = tuple(c.name for c in (gradient, update) if c is not None)
    if changed is not None and rate is not None and changed[1] >= 1.2 and _sudden(rate, changed[0]):
        found.cause, found.sureness = "rate", 0.15
        found.text = f"The rate was raised {changed[1]:.3g} times at step {changed[0]:,}."
        found.remedy = "If the rise of the rate was meant (a warm restart) there is nothing to do; else raise it over more steps."
        found.signals = (rate.name, *found.signals)
    elif not spike.sustained and grown is not None and abs(grown[0] - start) <= curve.spacing:
        found.cause, found.sureness = "batch", 0.2
        found.text = f"The gradient norm rose {grown[1]:.3g} times at that step alone: a batch, not the state of the run."
        found.remedy = f"Look at the batch of step {start:,}; clip the gradient if there are more of them."
    elif risen is not None and risen[0] < start and (grown is None or grown[0] >= start) and _adam_like(view):
        found.cause, found.sureness, found.remedy = "second moment", 0.2 if grown else 0.1, instruction(_LAGS)
        later = (
            f"the gradient norm only at step {grown[0]:,}"
            if grown
            else "the gradient norm did not double at all"
        )
        found.text = (
            f"The {'update norm' if update and 'ratio' not in update.name else 'update ratio'} was at {risen[1]:.3g} times "
            f"its level, from step {risen[0]:,}, {start - risen[0]} steps before the loss; {later}: Adam's second moment "
            "lagged behind."
        )
    elif grown is not None:
        early = grown[0] < start
        found.cause, found.sureness, found.remedy = (
            "gradient",
            0.15 if early else 0.05,
            instruction(_GRADIENT),
        )
        when = f"{start - grown[0]} steps before the loss" if early else "with the loss"
        found.text = f"The gradient norm rose {grown[1]:.3g} times from step {grown[0]:,}, {when}."
    elif raw is None and applied is not None and _pinned(applied, start, reach):
        found.cause = "clipped"
        found.text = "The gradient norm is pinned by clipping, so it can't show what came first."
        found.remedy = (
            f"{instruction(_UNKNOWN)} Record the norm before clipping: watch.clip_grad_norm_(max_norm)."
        )
    elif gradient is not None or update is not None:
        at = start - curve.spacing, peak + curve.spacing
        seen = [c.name for c in (gradient, update) if c is not None and len(c.between(*at))]
        if seen:
            found.text = f"Nothing twofold was seen in {' and '.join(seen)} before the peak."
    by_update = found.cause == "second moment"
    first = view.first_layer("update/norm" if by_update else "grad/norm", start, peak, reach)
    if first is not None:
        found.where = first[0]
        found.numbers |= {"layer_onset": first[1], "layer_factor": first[2]}
        found.text += f" First in {first[0]}, at step {first[1]:,} ({first[2]:.3g} times its level)."
    return found


def _onset(
    curve: Curve | None, start: int, peak: int, reach: int, factor: float = 2.0
) -> tuple[int, float] | None:
    return None if curve is None else first_rise(curve.steps, curve.values, start, peak, reach, factor)


def _sudden(rate: Curve, step: int) -> bool:
    """Whether the rate rose in one step there, not in a warm-up."""
    place = int(np.searchsorted(rate.steps, step))
    return place > 0 and rate.values[place] >= 1.2 * rate.values[place - 1] > 0


def _adam_like(view: RunView) -> bool:
    """Whether the optimizer divides by a second moment; yes where nothing says what it is."""
    if any(name.startswith("hyper/beta2/") for name in view.specs):
        return True
    named = str(view.setting("optimizer", "optim", "opt", "name") or "").lower()
    return not named or any(word in named for word in _ADAM)


def _pinned(curve: Curve, start: int, reach: int) -> bool:
    values = curve.between(start - 6 * reach, start).values
    return len(values) >= 5 and float(np.mean(values >= 0.999 * values.max())) > 0.5


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="train loss", least=30),), check=check)
