"""rate-low: tiny updates and a loss that creeps."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.rate_low import RULE

STEPS = np.arange(400)
MEASURED = np.arange(0, 400, 10)
NOISE = np.random.default_rng(0).normal(size=400)
CREEPS = 2.3 - 0.08 * STEPS / 400 + 0.01 * NOISE
FLATTENS = 1.2 - 0.1 * (1 - np.exp(-STEPS / 30)) + 0.01 * NOISE


def run(loss, ratio, cosine=0.1, rate=1e-6):
    return view_of(
        {
            "loss": loss,
            "lr": np.full(400, rate),
            "update/ratio": (MEASURED, np.broadcast_to(ratio, 40).copy()),
            "grad/cosine": (MEASURED, np.full(40, cosine)),
        }
    )


def test_a_loss_that_hardly_moves():
    (finding,) = found(RULE, run(CREEPS, 1e-5))
    assert finding.severity == "warning" and finding.first_step == 0 and finding.last_step == 399
    assert finding.evidence.numbers["fall"] < 0.05


def test_gradients_that_agree_or_a_straight_line_allow_more():
    assert found(RULE, run(CREEPS, 2e-4))  # straight
    assert found(RULE, run(FLATTENS, 2e-4, cosine=0.8))  # agreeing
    assert found(RULE, run(FLATTENS, 2e-4)) == []  # fine-tuning: falls first, then flattens


def test_look_alikes_stay_silent():
    assert found(RULE, run(2.3 * np.exp(-STEPS / 100), 5e-5)) == []  # it learns
    assert found(RULE, run(CREEPS, 1e-3)) == []  # a plateau with ordinary steps
    assert found(RULE, run(CREEPS, np.geomspace(1e-3, 1e-9, 40))) == []  # a finished run
    assert found(RULE, run(CREEPS, 0.0)) == []  # nothing moves: another rule
    assert found(RULE, run(0.01 * NOISE, 1e-5)) == []  # a loss around zero needn't fall
    assert found(RULE, run(CREEPS, 1e-5, rate=0.0)) == []  # the schedule is at zero


def test_without_updates_it_says_so():
    assert isinstance(RULE(view_of({"loss": CREEPS})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "lr", "update/ratio", "grad/cosine"])
