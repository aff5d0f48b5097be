"""The rule of overfitting: evaluation turns while training goes on, told from noise, jumps and divergence."""

import numpy as np
import pytest
from made_runs import falling
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.overfitting import RULE

AT = np.arange(50, 1001, 50)


def turned(lowest=400, low=0.8, end=1.6, noise=0.01, seed=0):
    left = low + (2.2 - low) * np.clip((lowest - AT) / lowest, 0, 1) ** 2
    right = (end - low) * np.clip((AT - lowest) / (1000 - lowest), 0, 1)
    return left + right + noise * np.random.default_rng(seed).standard_normal(len(AT))


def run(evaluation, **more):
    return view_of({"loss": falling(1001, last=0.02), "eval/loss": (AT, evaluation), **more})


def test_the_turn_is_found_at_its_step():
    (finding,) = found(RULE, run(turned()))
    assert finding.severity == "warning" and finding.confidence >= 0.8
    assert abs(finding.first_step - 400) <= 50 and finding.last_step == 1000
    assert finding.evidence.numbers["rise"] == pytest.approx(0.75, abs=0.1)
    assert f"step {finding.first_step:,}" in finding.remedy


def test_a_small_rise_with_steady_accuracy_is_a_note():
    accuracy = np.minimum(0.95, 0.5 + AT / 1000)
    (finding,) = found(RULE, run(turned(low=0.2, end=0.45), **{"eval/accuracy": (AT, accuracy)}))
    assert finding.severity == "note" and "over-confident" in finding.evidence.text
    heavy = run(turned(), **{"eval/accuracy": (AT, accuracy)})
    assert found(RULE, heavy)[0].severity == "note"  # accuracy improved all the while
    held = run(turned(), **{"eval/accuracy": (AT, np.minimum(0.7, AT / 500))})
    assert found(RULE, held)[0].severity == "warning"
    (worse,) = found(RULE, run(turned(low=0.2, end=0.45), **{"eval/accuracy": (AT, 0.95 - 0.3 * (AT > 400))}))
    assert worse.severity == "warning"


def test_five_evaluations_that_rise_from_the_first():
    signals = {
        "loss": falling(1001, first=0.9, last=0.001),
        "eval/loss": (AT[3::4], [0.31, 0.36, 0.42, 0.45, 0.47]),
    }
    (finding,) = found(RULE, view_of(signals))
    assert finding.severity == "warning" and finding.first_step == 200


@pytest.mark.parametrize("seed", range(6))
def test_healthy_evaluations_are_silent(seed):
    random = np.random.default_rng(seed)
    down = 0.4 + 1.8 * np.exp(-AT / 200)
    for evaluation in (
        down + 0.05 * random.standard_normal(len(AT)),
        down + 0.02 * (AT > 900),
        np.full(len(AT), 2.3) + 0.01 * random.standard_normal(len(AT)),
        turned(end=0.82, noise=0.03, seed=seed),
    ):
        assert not loud(found(RULE, run(evaluation)))


def test_a_training_loss_that_rises_too_is_no_overfitting():
    loss = falling(1001) + np.linspace(0, 3, 1001)
    assert found(RULE, view_of({"loss": loss, "eval/loss": (AT, turned())})) == []


def test_evaluation_that_never_was_good_is_no_overfitting():
    assert found(RULE, run(2.3 + 2 * AT / 1000)) == []


def test_it_says_what_it_lacks():
    outcome = RULE(view_of({"loss": falling(300)}))
    assert isinstance(outcome, NotEvaluable)
    assert outcome.lacked == "evaluation loss" and "eval/loss" in outcome.record


def test_it_survives_hostile_curves():
    survives(RULE, ["loss", "eval/loss", "eval/accuracy"])
