"""epsilon-dominates: most of a run, in weights that still learn."""

import numpy as np
from memory_runs import found, layered, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.epsilon_dominates import RULE

STEPS = np.arange(40)
LOSS = {"loss": (np.arange(800), np.geomspace(2.3, 0.3, 800))}


def run(columns, loss=LOSS):
    return view_of({**layered("grad/rms_to_epsilon", columns), **loss}, every=20)


def test_the_smallest_of_the_weights_is_named():
    columns = {"a.weight": np.full(40, 0.8), "b.weight": np.full(40, 0.1), "c.weight": np.full(40, 50.0)}
    (finding,) = found(RULE, run(columns))
    assert finding.where == "b.weight" and finding.evidence.numbers["layers"] == 2
    assert finding.severity == "warning" and finding.first_step == 0


def test_look_alikes_stay_silent():
    assert found(RULE, run({"a.weight": np.full(40, 1e4)})) == []
    assert found(RULE, run({"a.weight": np.where(STEPS % 3, 1e4, 0.1)})) == []  # single batches
    assert found(RULE, run({"a.bias": np.full(40, 1e-6), "norm.weight": np.full(40, 0.1)})) == []
    learned = {"loss": (np.arange(800), np.geomspace(2.3, 1e-6, 800))}
    assert found(RULE, run({"a.weight": np.where(STEPS < 14, 100.0, 0.01)}, learned)) == []  # a finished run
    assert found(RULE, run({"a.weight": np.zeros(40)})) == []  # no gradient: another rule


def test_without_ratios_it_says_so():
    assert isinstance(RULE(view_of(LOSS)), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "grad/rms_to_epsilon/a.weight", "grad/rms_to_epsilon/b.weight"])
