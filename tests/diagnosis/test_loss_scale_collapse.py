"""loss-scale-collapse: a scale that falls and stays, against a scaler at work."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.loss_scale_collapse import RULE

STEPS = np.arange(400)


def run(scale, **others):
    return view_of({"amp/scale": scale, "loss": np.full(400, 1.0), **others})


def test_halving_at_every_step():
    scale = np.where(STEPS < 150, 4096.0, 4096.0 * 0.5 ** np.minimum(STEPS - 149.0, 40))
    (finding,) = found(RULE, run(scale))
    assert finding.severity == "critical" and finding.first_step == 150 and finding.last_step == 399


def test_skipped_updates_don_t_advance_the_step():
    steps = np.arange(151)  # the last value at a step is what the record keeps
    scale, skipped = np.where(steps < 150, 4096.0, 1e-20), np.where(steps < 150, 0.0, 80.0)
    view = view_of({"amp/scale": scale, "amp/skipped": skipped, "loss": np.ones(151)})
    (finding,) = found(RULE, view)
    assert finding.severity == "critical" and finding.first_step == 150
    assert finding.evidence.numbers["skipped"] > 0.3


def test_one_that_recovers_is_a_warning():
    scale = np.where((STEPS > 150) & (STEPS < 200), 2.0, 4096.0)
    (finding,) = found(RULE, run(scale))
    assert finding.severity == "warning" and finding.last_step < 200


def test_look_alikes_stay_silent():
    assert found(RULE, run(np.full(400, 1.0))) == []  # static
    assert found(RULE, run(2.0 ** np.maximum(32 - STEPS, 13))) == []  # the first adjustment
    breathing = 65536.0 * np.where(STEPS % 100 < 3, 1, 0.5)
    assert found(RULE, run(breathing)) == []
    assert found(RULE, run(np.where(STEPS < 200, 65536.0, 512.0))) == []  # far down, and none skipped after


def test_without_a_scale_it_says_so():
    outcome = RULE(view_of({"loss": np.ones(40)}))
    assert isinstance(outcome, NotEvaluable) and "scaler=" in outcome.record


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "amp/scale", "amp/skipped"])
