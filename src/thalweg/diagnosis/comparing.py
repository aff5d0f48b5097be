"""Two runs that should be the same and are not: the first signal and step at which they part, with the layer.

All signals that both recorded are compared exactly, at the steps that both have. Of the differences the one at the
earliest step counts; of several at one step, the one that comes first on the way of a step: rate and data, activations,
loss, gradients (backwards, so the last layer first), updates, weights. What depends on the clock (times, throughput, memory)
is left out. A first difference below 1e-5 of the value is rounding: sums in another order, which then grows by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, Severity
from thalweg.diagnosis.view import RunView
from thalweg.record import Run, Series
from thalweg.record.signals import Role

CARD = Card(
    name="runs-differ",
    kind="rule",
    summary="Two runs that should be the same part at some step.",
    formula="s* = min over signals of min {s : a_s != b_s}",
    symbols={"a, b": "a signal in the two runs", "s": "steps at which both have it"},
    needs="a second run: thalweg diagnose A --against B",
)
PAGE = Page(
    what="Two runs with the same code, data, seed and machine should give the same numbers to the last bit. Where they first "
    "differ, and in what, says what was not the same.",
    causes=(
        "other data or order: a seed that was not set, loader workers with random states of their own",
        "another setting, version or machine",
        "operations whose sums have no fixed order (atomic additions on GPUs), or another number of ranks",
        "state that was not restored on one side",
    ),
    apart={
        "rounding": "the first difference is below 1e-5 of the value and grows from there: a note",
        "what depends on the clock": "times, throughput and memory are not compared",
        "a run that is shorter": "only steps that both have are compared",
    },
    remedy=(
        "set all seeds, and torch.use_deterministic_algorithms(True); give loader workers a seeded generator",
        "compare the settings and versions that differ, listed with the finding",
    ),
    tried="Exact comparison; 1e-5 stands between the rounding of float32 sums (1e-7 to 1e-6) and another batch.",
)

_CLOCKED = ("time/", "throughput/", "memory/", "watch/", "perf/", "system/")
_CLOCK_ROLES = ("wall time", "step time", "memory", "cost")
_WAY = ("lr", "hyper", "samples", "tokens", "epoch", "act", "units", "logits", "loss", "amp", "noise", "grad")
_AFTER = ("momentum", "update", "rate", "weight")
_PAIRED: tuple[Role, ...] = ("train loss", "rate", "evaluation loss", "gradient norm")
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Difference:
    """The first difference in one signal."""

    name: str
    layer: str
    step: int
    mine: float
    theirs: float
    relative: float
    largest: float  # relative difference anywhere
    place: tuple[int, int]  # on the way of a step


def part_ways(run: Run, other: Run) -> list[Finding]:
    """The finding "runs-differ", at the first step at which the two runs part; [] where all that both have is equal."""
    pairs = list(_pairs(run, other))
    compared = [(a, _differs(a, b, number)) for number, (a, b) in enumerate(pairs)]
    found = sorted((d for _, d in compared if d is not None), key=lambda d: (d.step, d.place))
    if not any(len(np.intersect1d(a.steps, b.steps)) for a, b in pairs):
        return [_nothing_to_compare(run, other)]
    return [_finding(run, other, found, len(pairs))] if found else []


def _pairs(run: Run, other: Run) -> Iterator[tuple[Series, Series]]:
    """Signals that both have, by name; the main ones by role where the names differ."""
    theirs = {spec.name for spec in other.signals}
    shared: set[str] = set()
    for spec in run.signals:
        clocked = spec.role in _CLOCK_ROLES or spec.name.rpartition(":")[2].startswith(_CLOCKED)
        if spec.name in theirs and not spec.shape and not clocked:
            shared.add(spec.role)
            yield run[spec.name], other[spec.name]
    for role in _PAIRED:
        mine, others = run.all_by_role(role), other.all_by_role(role)
        if role not in shared and mine and others:
            yield mine[0], others[0]


def _differs(a: Series, b: Series, number: int) -> Difference | None:
    steps, left, right = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    x, y = a.values[left].astype(np.float64), b.values[right].astype(np.float64)
    unlike = np.flatnonzero((x != y) & ~(np.isnan(x) & np.isnan(y)))
    if not len(unlike):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        relative = np.abs(x - y)[unlike] / np.maximum(np.maximum(np.abs(x), np.abs(y))[unlike], 1e-300)
    relative = np.where(np.isfinite(relative), relative, 1.0)
    at = int(unlike[0])
    rank = _rank(a.name)
    order = -number if _group(a.name) == "grad" else number  # gradients come from the last layer
    return Difference(
        a.name,
        _layer(a),
        int(steps[at]),
        float(x[at]),
        float(y[at]),
        float(relative[0]),
        float(relative.max()),
        (rank, order),
    )


def _group(name: str) -> str:
    return name.rpartition(":")[2].partition("/")[0]


def _rank(name: str) -> int:
    group = _group(name)
    if group in _WAY:
        return _WAY.index(group)
    return len(_WAY) + (1 + _AFTER.index(group) if group in _AFTER else 20)


def _layer(series: Series) -> str:
    parts = series.name.split("/", 2)
    return series.spec.layer or (parts[2] if len(parts) == 3 else "")


def _finding(run: Run, other: Run, found: list[Difference], compared: int) -> Finding:
    first = found[0]
    layers = [d for d in found if d.layer and d.step == first.step]
    where = first.layer or (layers[0].layer if layers else "")
    rounding = first.relative < _ROUNDING
    settings = _unlike(run.config, other.config) + _unlike(run.environment, other.environment, "environment ")
    severity: Severity = "note" if rounding else "warning"
    seen = [d for d in found if d.step == first.step]
    text = (
        f"{len(found)} of {compared} signals differ. The first is {first.name} at step {first.step:,}: {first.mine:.9g} and "
        f"{first.theirs:.9g}, {first.relative:.2g} of the value"
        + (f", with {len(seen) - 1} others at that step" if len(seen) > 1 else "")
        + (
            f". That is rounding; it grows to {max(d.largest for d in found if d.name == first.name):.2g}."
            if rounding
            else ". That is more than rounding."
        )
    )
    if not where and (later := next((d for d in found if d.layer), None)) is not None:
        text += f" Layers differ in what was recorded from step {later.step:,} on, first {later.layer}."
    text += f" Settings that differ: {'; '.join(settings[:8])}." if settings else " No setting differs."
    rest = {d.step for d in found} - {first.step}
    return Finding(
        kind=CARD.name,
        title=f"The runs part at step {first.step:,}, first in {first.name}"
        + (" (rounding)" if rounding else ""),
        severity=severity,
        confidence=0.95,
        first_step=first.step,
        last_step=max(rest, default=first.step),
        where=where,
        evidence=Evidence(
            text=text,
            numbers={
                "step": first.step,
                "mine": first.mine,
                "theirs": first.theirs,
                "relative": first.relative,
                "signals": len(found),
                "settings": len(settings),
            },
            plot=Plot(signals=(first.name,), marks={"part": first.step}),
        ),
        remedy=_remedy(first, rounding, settings),
    )


def _remedy(first: Difference, rounding: bool, settings: list[str]) -> str:
    if settings:
        return f"Make the settings equal first: {'; '.join(settings[:4])}."
    if rounding:
        return "For equal bits, set torch.use_deterministic_algorithms(True), the same machine and number of threads and ranks."
    if _rank(first.name) <= _WAY.index("loss"):
        return "The forward differs first: compare the batches of that step, seeds of loader workers, and the weights before it."
    return "The forward was still the same: look at what follows it there, the backward of that layer or the optimizer's state."


def _unlike(mine: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, as "name: a, b"."""
    a, b = dict(_flat(mine)), dict(_flat(theirs))
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return [f"{prefix}{name}: {a.get(name, 'none')}, {b.get(name, 'none')}" for name in names]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nothing_to_compare(run: Run, other: Run) -> Finding:
    return Finding(
        kind=CARD.name,
        title="The two runs have no signal in common at any step",
        severity="note",
        confidence=1.0,
        first_step=0,
        last_step=0,
        evidence=Evidence(
            text=f"{run.name} has {len(run.signals)} signals, {other.name} has {len(other.signals)}; nothing was compared."
        ),
        remedy="Name what means the same: --map loss=train/my_loss.",
    )


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """A single run can't be judged."""
    return NotEvaluable(kind=CARD.name, lacked="a second run that should be the same (--against)")


RULE = Rule(card=CARD, page=PAGE, check=check)
