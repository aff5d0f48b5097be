"""The rule of plateaus: never learned, or stuck at a rate that was not decayed."""

import numpy as np
import pytest
from made_runs import cosine, falling, heavy_tailed
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.plateau import RULE


def flat(steps, level, noise=0.02, seed=0):
    return level * (1 + noise * np.random.default_rng(seed).standard_normal(steps))


def test_a_loss_at_chance_is_critical():
    (finding,) = found(RULE, view_of({"loss": flat(400, np.log(10)), "lr": cosine(400)}))
    assert finding.severity == "critical" and finding.confidence >= 0.85
    assert (finding.first_step, finding.last_step) == (0, 399)
    assert finding.evidence.numbers["classes"] == 10 and "10 classes" in finding.evidence.text


def test_the_settings_say_how_many_classes():
    view = view_of({"loss": flat(400, np.log(37))}, config={"model": {"num_classes": 37}})
    assert found(RULE, view)[0].evidence.numbers["classes"] == 37
    assert not loud(found(RULE, view_of({"loss": flat(400, np.log(37))})))


def test_a_loss_that_never_fell_at_a_constant_rate_is_a_warning():
    (finding,) = found(RULE, view_of({"loss": flat(500, 0.9), "lr": np.full(500, 0.1)}))
    assert finding.severity == "warning" and finding.confidence < 0.7


def test_a_loss_that_creeps_far_from_done_is_a_warning():
    loss = (1.75 + 0.65 * np.exp(-np.arange(1000) / 100)) * flat(1000, 1.0, 0.03)
    (finding,) = found(RULE, view_of({"loss": loss, "lr": np.full(1000, 0.1)}))
    assert finding.severity == "warning" and 150 <= finding.first_step <= 500
    late = view_of({"loss": (np.arange(1000) + 300, loss), "lr": (np.arange(1000) + 300, np.full(1000, 0.1))})
    assert not loud(found(RULE, late))


def test_without_a_rate_it_is_a_note():
    (finding,) = found(RULE, view_of({"loss": flat(500, 0.9)}))
    assert finding.severity == "note"


def test_a_flat_last_stretch_at_a_constant_rate_is_a_note_with_its_start():
    loss = np.maximum(2.3 - 0.01 * np.arange(600), 0.8) * flat(600, 1.0)
    (finding,) = found(RULE, view_of({"loss": loss, "lr": np.full(600, 0.1)}))
    assert finding.severity == "note" and 120 <= finding.first_step <= 260
    assert finding.evidence.numbers["level"] == pytest.approx(0.8, abs=0.02)


def test_stuck_high_after_little_progress_is_a_warning():
    loss = np.maximum(2.0 - 0.001 * np.arange(2000), 1.7) * flat(2000, 1.0, 0.005)
    (finding,) = found(RULE, view_of({"loss": loss, "lr": np.full(2000, 0.1)}))
    assert finding.severity == "warning"


@pytest.mark.parametrize("seed", range(6))
def test_healthy_runs_are_silent(seed):
    slow = 2.3 - 0.0002 * np.arange(800) + 0.05 * np.random.default_rng(seed).standard_normal(800)
    for loss in (falling(600, seed, noise=0.2), heavy_tailed(2000, seed), slow, flat(600, 3.1, 0.1, seed)):
        assert not loud(found(RULE, view_of({"loss": loss, "lr": np.full(len(loss), 0.1)})))
    annealed = np.maximum(2.3 - 0.01 * np.arange(600), 0.8) * flat(600, 1.0, seed=seed)
    assert found(RULE, view_of({"loss": annealed, "lr": cosine(600)})) == []


def test_a_rise_is_no_plateau():
    assert found(RULE, view_of({"loss": np.linspace(2.2, 9, 400), "lr": np.full(400, 0.1)})) == []


def test_without_a_loss_it_says_what_it_lacks():
    assert isinstance(RULE(view_of({"lr": cosine(100)})), NotEvaluable)


def test_it_survives_hostile_curves():
    survives(RULE, ["loss", "lr"])
