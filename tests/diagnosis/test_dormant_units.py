"""dormant-units: a share that grows, and does harm."""

import numpy as np
from memory_runs import found, layered, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.dormant_units import RULE

FALLING = {"loss": (np.arange(400), np.geomspace(2.3, 0.1, 400))}
STALLED = {"loss": (np.arange(400), np.maximum(np.geomspace(2.3, 0.1, 400), 1.2))}
GROWING = np.linspace(0.1, 0.8, 40)


def run(shares, loss=STALLED, dead=None):
    signals = layered("units/dormant", shares) | layered("units/dead", dead or {})
    return view_of({**signals, **loss}, every=10)


def test_a_growing_share_with_a_loss_that_stalls():
    (finding,) = found(RULE, run({"a": np.full(40, 0.2), "b": GROWING}))
    assert finding.severity == "warning" and finding.where == "b" and 100 <= finding.first_step <= 250


def test_while_the_loss_falls_it_is_a_note():
    (finding,) = found(RULE, run({"b": GROWING}, FALLING))
    assert finding.severity == "note"


def test_look_alikes_stay_silent():
    assert found(RULE, run({"b": GROWING}, dead={"b": GROWING})) == []  # they are dead: the other rule
    assert found(RULE, run({"b": np.full(40, 0.7)})) == []  # from the start
    assert found(RULE, run({"b": GROWING[::-1]})) == []  # waking up
    assert found(RULE, run({"b": GROWING / 2})) == []  # still below a half


def test_without_units_it_says_so():
    assert isinstance(RULE(view_of(FALLING)), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "units/dormant/a", "units/dormant/b", "units/dead/a"])
