"""weight-norm-growth: growth without balance."""

import numpy as np
from memory_runs import found, layered, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.weight_norm_growth import RULE

STEPS = np.arange(100)
ROOT = 3 * np.sqrt(1 + STEPS)
NORMAL = {"rate/effective/conv.weight": np.geomspace(1, 1e-4, 100)}


def run(curve, **others):
    signals = {"weight/norm": np.full(100, 10.0), "weight/norm/conv.weight": curve, **NORMAL, **others}
    return view_of(signals, every=10)


def test_weights_before_a_normalization():
    (finding,) = found(RULE, run(ROOT))
    assert finding.severity == "warning" and finding.where == "conv.weight"
    assert abs(finding.evidence.numbers["exponent"] - 0.5) < 0.1 and 60 <= finding.first_step <= 120


def test_all_weights_of_a_foreign_log():
    (finding,) = found(RULE, view_of({"param_norm": ROOT, "loss": np.ones(100)}))
    assert finding.where == "" and finding.evidence.numbers["factor"] > 8


def test_with_weight_decay_it_is_a_note():
    decay = {"hyper/weight_decay/group0": np.full(20, 0.01)}
    assert loud(found(RULE, run(ROOT, **decay))) == []


def test_look_alikes_stay_silent():
    assert found(RULE, run(3 * np.minimum(np.sqrt(1 + STEPS), 6))) == []  # levelled off
    assert found(RULE, run(3 + STEPS / 30)) == []  # twice
    embedding = layered("weight/norm", {"tokens.weight": ROOT}) | {"weight/norm": np.linspace(10, 30, 100)}
    assert found(RULE, view_of(embedding)) == []  # a small initialization of one layer


def test_without_norms_it_says_so():
    assert isinstance(RULE(view_of({"loss": np.ones(100)})), NotEvaluable)


def test_odd_numbers_never_raise():
    names = ["weight/norm", "weight/norm/a.weight", "rate/effective/a.weight", "hyper/weight_decay/group0"]
    survives(RULE, ["loss", *names])
