"""The rules of evaluation that jumps, of steps that wait, and of memory that grows."""

import numpy as np
import pytest
from made_runs import cosine
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules import data_loading_bound, evaluation_jump, memory_growth

N = 600
T = np.arange(N)
AT = np.arange(25, N, 25)
RANDOM = np.random.default_rng(0)
LOSS = 2.3 * np.exp(-T / 80) * RANDOM.lognormal(0, 0.1, N) + 0.05


def evaluated(values, loss=LOSS):
    return view_of({"loss": loss, "eval/loss": (AT, values)})


@pytest.mark.parametrize("rule", [evaluation_jump, data_loading_bound, memory_growth])
def test_they_survive_hostile_curves_and_say_what_they_lack(rule):
    survives(rule.RULE, ["loss", "eval/loss", "time/step", "time/data", "memory/peak"])
    outcome = rule.RULE(view_of({"lr": cosine(100)}))
    assert isinstance(outcome, NotEvaluable) and outcome.lacked and outcome.record


# -- evaluation ----------------------------------------------------------------------------------------

GOOD = 2.3 * np.exp(-AT / 80) + 0.1


def test_a_leap_of_evaluation_alone():
    (finding,) = found(evaluation_jump.RULE, evaluated(GOOD + 2.0 * (AT >= 400)))
    assert finding.severity == "warning" and finding.first_step == 400 and finding.confidence >= 0.75
    assert finding.evidence.numbers["after"] == pytest.approx(2.1, abs=0.05)


def test_a_gap_from_the_start_that_shrinks():
    (finding,) = found(evaluation_jump.RULE, evaluated(2.3 * np.exp(-AT / 250) + 0.1))
    assert finding.severity == "warning" and finding.first_step <= 100
    assert finding.evidence.numbers["gap"] > finding.evidence.numbers["last_gap"]


def test_a_gap_from_the_start_that_stays():
    (finding,) = found(evaluation_jump.RULE, evaluated(np.maximum(2.3 * np.exp(-AT / 120), 1.1)))
    assert finding.first_step <= 150 and finding.evidence.numbers["last_gap"] > 0.9


@pytest.mark.parametrize(
    "values",
    [
        GOOD,
        GOOD + np.clip(AT - 200, 0, None) / 400,
        2.35 + 5 * AT / N,
        np.maximum(GOOD, 0.5),
        GOOD + 0.3 * np.random.default_rng(1).random(len(AT)),
    ],
    ids=["healthy", "overfitting", "learned by heart", "fewer data", "noisy"],
)
def test_other_evaluations_are_silent(values):
    assert found(evaluation_jump.RULE, evaluated(values)) == []


def test_weights_averaged_over_time_lag_and_catch_up_which_is_a_note():
    (finding,) = found(evaluation_jump.RULE, evaluated(2.3 * np.exp(-np.clip(AT - 80, 0, None) / 80) + 0.05))
    assert finding.severity == "note" and "catches up" in finding.title


def test_evaluations_in_other_units_and_a_run_that_began_trained_are_silent():
    train = np.interp(AT, T, 2.3 * np.exp(-T / 80) + 0.05)
    assert found(evaluation_jump.RULE, evaluated(6.25 * train)) == []
    tuned = np.where(T < 300, 0.088, 0.05) * np.random.default_rng(2).lognormal(0, 0.1, N)
    assert found(evaluation_jump.RULE, evaluated(np.full(len(AT), 0.103), tuned)) == []


def test_a_loss_that_fell_within_its_first_means_is_judged_by_the_first_of_them():
    means = np.concatenate([[2.3, 0.35, 0.1], np.full(37, 0.09)])
    signals = {
        "loss": (np.arange(9, 400, 10), means),
        "eval/loss": (np.arange(19, 400, 20), np.full(20, 0.16)),
    }
    assert found(evaluation_jump.RULE, view_of(signals)) == []


def test_a_leap_that_training_shares_is_silent():
    loss = LOSS + 2.0 * (T >= 395)
    assert found(evaluation_jump.RULE, evaluated(GOOD + 2.0 * (AT >= 400), loss)) == []


# -- time ----------------------------------------------------------------------------------------------


def steps_of(slow):
    return 0.02 * RANDOM.lognormal(0, 0.1, N) + slow


def test_the_logged_time_of_data():
    view = view_of({"time/step": steps_of(0.03), "time/data": np.full(N, 0.03)})
    (finding,) = found(data_loading_bound.RULE, view)
    assert finding.severity == "warning" and finding.confidence >= 0.85
    assert finding.evidence.numbers["share"] == pytest.approx(0.6, abs=0.03)


def test_every_eighth_step_is_slow():
    (finding,) = found(data_loading_bound.RULE, view_of({"time/step": steps_of(0.3 * (T % 8 == 0))}))
    assert finding.evidence.numbers["every"] == 8 and finding.confidence < 0.8


@pytest.mark.parametrize(
    "signals",
    [
        {"time/step": steps_of(0)},
        {"time/step": steps_of(0.3 * (RANDOM.random(N) < 0.15))},
        {"time/step": steps_of(2.0 * (T % 25 == 0)), "eval/loss": (AT, GOOD)},
        {"time/step": steps_of(0.3 * (T % 10 == 0)), "update/norm": (T[::10], np.ones(N // 10))},
        {"time/step": steps_of(0), "time/data": np.full(N, 0.001)},
        {"time/step": steps_of(0) / 20 * (1 + 9 * (T % 8 == 0))},
    ],
    ids=["even", "a busy machine", "evaluations", "measurements", "little data time", "a millisecond"],
)
def test_other_step_times_are_silent(signals):
    assert found(data_loading_bound.RULE, view_of(signals)) == []


# -- memory --------------------------------------------------------------------------------------------


def test_memory_that_grows_to_the_end():
    memory = 4e8 + 1.5e5 * np.maximum(0, T - 100) + 1e5 * RANDOM.random(N)
    (finding,) = found(memory_growth.RULE, view_of({"memory/peak": np.maximum.accumulate(memory)}))
    assert finding.severity == "warning" and 80 <= finding.first_step <= 130
    assert finding.evidence.numbers["per_step"] == pytest.approx(1.5e5, rel=0.05)


@pytest.mark.parametrize(
    "memory",
    [
        np.full(N, 4e8),
        4e8 + 1e8 * (1 - np.exp(-T / 100)),
        4e8 + 5e7 * (T > 400),
        4e8 + 1e7 * RANDOM.standard_normal(N),
        4e8 + 1e3 * T,
    ],
    ids=["flat", "a warm start", "one leap", "noise", "a trifle"],
)
def test_other_memory_is_silent(memory):
    assert found(memory_growth.RULE, view_of({"memory/peak": memory})) == []
