"""softmax-collapse: zeros that stay, and small losses that are merely small."""

import numpy as np
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.softmax_collapse import RULE

STEPS = np.arange(400)
RANDOM = np.random.default_rng(0)
FALLING = 2.3 * np.exp(-STEPS / 25)
COLLAPSES = np.where(STEPS < 240, FALLING, 0.0)


def test_a_loss_that_becomes_exactly_zero():
    signals = {"loss": COLLAPSES, "grad/norm": np.where(STEPS < 240, 1.0, 0.0)}
    signals["logits/collapsed"] = (STEPS[::5], np.where(STEPS[::5] < 240, 0.3, 1.0))
    (finding,) = found(RULE, view_of(signals))
    assert finding.severity == "warning" and finding.first_step == 240 and finding.confidence >= 0.9


def test_collapsed_rows_with_a_loss_next_to_nothing():
    rows = (STEPS[::5], np.where(STEPS[::5] < 300, 0.3, 0.97))
    (finding,) = found(RULE, view_of({"loss": FALLING, "logits/collapsed": rows}))
    assert finding.first_step == 300 and "97%" in finding.evidence.text


def test_zero_from_the_first_step_means_that_no_target_counts():
    (finding,) = found(RULE, view_of({"loss": np.zeros(100)}))
    assert finding.severity == "critical" and "mask" in finding.remedy


def test_look_alikes_stay_silent():
    assert found(RULE, view_of({"loss": FALLING + 1e-9})) == []
    single = np.where(RANDOM.random(400) < 0.4, 0.0, FALLING)  # single batches of easy examples
    assert found(RULE, view_of({"loss": single})) == []
    many = {"loss": np.full(400, 250.0), "logits/collapsed": np.ones(400)}  # diverged: sure, and wrong
    assert found(RULE, view_of(many)) == []
    some = {"loss": FALLING + 1e-4, "logits/collapsed": np.full(400, 0.44)}
    assert found(RULE, view_of(some)) == []
    assert loud(found(RULE, view_of({"loss": np.round(FALLING, 4)}))) == []  # a log with four digits


def test_without_a_loss_it_says_so():
    assert isinstance(RULE(view_of({"lr": np.ones(40)})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "logits/collapsed", "grad/norm"])
