"""equilibrium-not-reached: drift at the end of runs of about the time constant."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.equilibrium_not_reached import RULE

STEPS = np.arange(100)
DRIFTS = 3 + STEPS / 20
STILL = 3 + 2 * (1 - np.exp(-STEPS / 10))


def run(norm, rate=0.1, decay=5e-3, every=20):
    signals = {
        "rate/effective/conv.weight": rate / norm**2,
        "weight/norm/conv.weight": norm,
        "lr": np.full(100, rate),
        "hyper/weight_decay/group0": np.full(100, decay),
    }
    return view_of(signals, every=every)


def test_a_norm_that_still_moves():
    (finding,) = found(RULE, run(DRIFTS))
    assert finding.severity == "note" and finding.where == "conv.weight"
    assert abs(finding.evidence.numbers["times"] - 1) < 0.1 and finding.first_step > 1200


def test_look_alikes_stay_silent():
    assert found(RULE, run(STILL)) == []  # balanced
    assert found(RULE, run(DRIFTS, decay=0.0)) == []  # no decay: another rule
    assert found(RULE, run(DRIFTS, decay=1e-4)) == []  # far too short for it
    assert found(RULE, run(DRIFTS, every=2)) == []  # a few hundred steps
    assert found(RULE, run(DRIFTS, rate=1.0, decay=0.1)) == []  # many time constants: something else moves it


def test_without_normalized_layers_it_says_so():
    assert isinstance(RULE(view_of({"loss": np.ones(50), "lr": np.ones(50)})), NotEvaluable)


def test_odd_numbers_never_raise():
    names = ["rate/effective/a.weight", "weight/norm/a.weight", "lr", "hyper/weight_decay/group0", "loss"]
    survives(RULE, names)
    survives(RULE, names, every=50)
