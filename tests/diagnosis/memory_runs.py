"""Runs put together in memory, as a watch would have recorded them, for rules to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.diagnosis.contracts import Rule
from thalweg.diagnosis.findings import Finding, NotEvaluable
from thalweg.diagnosis.view import RunView
from thalweg.record import Run
from thalweg.record.importing.memory import MemorySource, Table
from thalweg.record.roles import guess_role
from thalweg.record.signals import SignalSpec
from thalweg.record.sources import Event, Segment

STAGES = {"grad/norm": "applied", "grad/norm_raw": "raw"}


def run_of(
    signals: Mapping[str, Any],
    *,
    every: int = 1,
    config: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    window: int = 1,
) -> Run:
    """A run of these signals: name -> values at steps 0, ``every``, ..., or -> (steps, values)."""
    table: Table = {}
    specs = {}
    for name, given in signals.items():
        steps, values = given if isinstance(given, tuple) else (np.arange(len(given)) * every, given)
        steps, values = np.asarray(steps, np.int64), np.asarray(values, np.float64)
        table[name] = (steps, values, steps * 1_000_000)
        role = "" if name.count("/") > 1 else guess_role(name)
        specs[name] = SignalSpec(name=name, role=role, stage=STAGES.get(name, ""), window=window)  # type: ignore[arg-type]
    segment = Segment(
        id=0,
        rank=0,
        world=1,
        first_step=0,
        started=0.0,
        ended=1.0,
        reason="",
        path=Path("memory"),
        live=False,
    )
    notes = {} if parameters is None else {"key": "", "frozen": [], "outside": [], **parameters}
    events = [Event("parameters", 0, 0.0, "", "watch", "updates", 0, notes)] if notes else []
    source = MemorySource(
        Path("memory"),
        "0" * 32,
        {"name": "memory", "config": dict(config or {})},
        specs,
        [(segment, table)],
        events=events,
        warnings=[],
        changed=lambda: False,
    )
    return Run(Path("memory"), lambda path: [source])


def view_of(signals: Mapping[str, Any], **options: Any) -> RunView:
    """The same as rules see it."""
    return RunView(run_of(signals, **options))


def layered(quantity: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Signals of a quantity by layer: {"0.weight": values} -> {"grad/norm/0.weight": values}."""
    return {f"{quantity}/{layer}": values for layer, values in columns.items()}


def found(rule: Rule, view: RunView) -> list[Finding]:
    """What a rule finds; it must be able to judge the run."""
    outcome = rule(view)
    assert not isinstance(outcome, NotEvaluable), outcome
    return outcome


def loud(findings: Sequence[Finding]) -> list[Finding]:
    """Those above "note"."""
    return [finding for finding in findings if finding.severity != "note"]


HOSTILE: Mapping[str, Any] = {
    "three": [1.0, 2.0, 3.0],
    "constant": np.full(200, 0.5),
    "nan": np.full(200, np.nan),
    "zeros": np.zeros(200),
    "huge": np.geomspace(1e-30, 1e38, 200),
    "infinite": np.where(np.arange(200) % 3, np.inf, 1.0),
    "gappy": (np.cumsum(np.arange(200) ** 2), np.random.default_rng(0).lognormal(size=200)),
}


def survives(rule: Rule, names: Sequence[str], **options: Any) -> None:
    """The rule raises on none of the hostile curves, whichever of its signals has them."""
    healthy = np.linspace(2, 1, 200)
    for curve in HOSTILE.values():
        rule(view_of(dict.fromkeys(names, curve), **options))
        for name in names:
            rule(view_of({**dict.fromkeys(names, healthy), name: curve}, **options))
    rule(view_of({"loss": healthy}, **options))
