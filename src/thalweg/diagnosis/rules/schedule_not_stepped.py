"""The rate never changes although the settings name a schedule or a warm-up, or it is zero all along."""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, Severity, instruction
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="schedule-not-stepped",
    kind="rule",
    summary="The rate never changes although a schedule or warm-up is named in the settings, or it is zero all along.",
    formula="max rate = min rate, with a schedule that is not constant, or warm-up steps, in the settings; or max rate = 0",
    needs="a rate; the run's settings tell what was meant",
)
PAGE = Page(
    what="The scheduler exists but nobody steps it. The rate stays at its first value: the first one of the warm-up, which is "
    "far too small to learn, or the peak, which is never decayed.",
    causes=(
        "scheduler.step() is missing in the loop, or in a branch that is never taken",
        "the scheduler was made for another optimizer than the one that is used",
        "a checkpoint restored the rate after the scheduler had set it",
    ),
    apart={
        "rate-never-decayed": "no schedule is named: the constant rate may be meant",
        "schedule-per-epoch": "the rate does change, once an epoch",
    },
    remedy=(
        "call scheduler.step() after every optimizer.step()",
        "check that scheduler.optimizer is the optimizer that is used",
    ),
    tried="Needs no threshold; that the rate is tiny is said below a tenth of the rate in the settings.",
    explains=("rate-never-decayed", "rate-low", "plateau"),
)

_CONSTANT = ("none", "const", "fixed", "off", "no", "false", "")


def check(view: RunView) -> list[Finding]:
    """One finding for the whole run."""
    rate = view.rate
    assert rate is not None  # required
    if float(np.ptp(rate.values)) > 1e-6 * float(np.abs(rate.values).max()):
        return []
    value = float(rate.values[0])
    schedule, warmup = str(view.planned.get("schedule", "")), int(view.planned.get("warmup", 0))
    decays = not any(schedule == word or schedule.startswith("const") for word in _CONSTANT)
    warms = warmup > 1 and warmup < view.last_step
    if value != 0 and not decays and not warms:
        return []
    meant = f"schedule {schedule!r}" if decays else f"a warm-up of {warmup:,} steps" if warms else ""
    wanted = float(view.planned.get("rate", 0.0))
    tiny = value == 0 or value < 0.1 * wanted
    return [_finding(view, rate, value, meant, wanted, tiny)]


def _finding(view: RunView, rate: Curve, value: float, meant: str, wanted: float, tiny: bool) -> Finding:
    severity: Severity = "critical" if tiny else "warning"
    planned = f", although the settings name {meant}" if meant else ""
    share = (
        f" That is {value / wanted:.2g} of the rate in the settings ({wanted:.3g})."
        if tiny and wanted
        else ""
    )
    return Finding(
        kind=CARD.name,
        title=f"The rate is {value:.3g} all along{planned}",
        severity=severity,
        confidence=0.95 if value == 0 or (tiny and wanted) else 0.85,
        first_step=int(rate.steps[0]),
        last_step=max(view.last_step, int(rate.steps[-1])),
        evidence=Evidence(
            text=f"All {len(rate):,} values of {rate.name} are {value:.4g}{planned}.{share}",
            numbers={"rate": value, "planned_rate": wanted},
            plot=Plot(signals=(rate.name,)),
        ),
        remedy=instruction(*PAGE.remedy[:2]),
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="rate"),), check=check)
