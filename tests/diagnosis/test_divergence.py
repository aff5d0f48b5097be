"""The rule of divergence: a loss that rises and stays, told from those that come back or may rise."""

import numpy as np
import pytest
from made_runs import cosine, falling, heavy_tailed
from memory_runs import found, layered, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.divergence import RULE


def diverged(steps=800, at=500, end=6.0):
    loss = falling(steps, noise=0.05)
    return loss + np.where(np.arange(steps) > at, 1, 0) * end * (1 - np.exp(-(np.arange(steps) - at) / 60))


def test_a_loss_that_rises_and_stays_is_critical_from_where_it_left():
    (finding,) = found(RULE, view_of({"loss": diverged(), "lr": np.full(800, 0.1)}))
    assert finding.severity == "critical" and finding.confidence >= 0.9
    assert 490 <= finding.first_step <= 510 and finding.last_step == 799
    assert finding.evidence.numbers["end"] == pytest.approx(6.3, rel=0.1)
    assert "100% of its peak" in finding.evidence.text


def test_half_of_the_progress_lost_is_a_warning():
    (finding,) = found(RULE, view_of({"loss": diverged(end=1.0)}))
    assert finding.severity == "warning"


def test_from_the_start():
    loss = 2.3 * np.exp(np.arange(300) / 60) * np.random.default_rng(0).lognormal(0, 0.05, 300)
    (finding,) = found(RULE, view_of({"loss": loss}))
    assert finding.severity == "critical" and finding.first_step < 40


def test_the_layer_whose_gradient_rose_first():
    random = np.random.default_rng(0)
    first, second = (random.lognormal(0, 0.1, 800) for _ in range(2))
    first[503:] *= 6
    second[512:] *= 6
    layers = layered("grad/norm", {"blocks.0": first, "blocks.1": second})
    (finding,) = found(RULE, view_of({"loss": diverged(), **layers}))
    assert finding.where == "blocks.0" and finding.evidence.numbers["layer_onset"] == 503


def test_a_change_of_the_data_and_an_objective_that_may_rise_are_notes():
    loss = falling(900, noise=0.05)
    loss[450:] += 1.8 * np.exp(-np.arange(450) / 500)
    for one in (loss, np.linspace(0, 0.3, 500) ** 2, -1 + np.linspace(0, 0.9, 500)):
        assert not loud(found(RULE, view_of({"loss": one})))


def test_a_rise_that_evaluation_does_not_share_is_a_note():
    at = np.arange(24, 800, 25)
    good, bad = 0.3 + 2 * np.exp(-at / 200), 0.3 + 3.0 * (at > 500)
    (harder,) = found(RULE, view_of({"loss": diverged(end=1.2), "eval/loss": (at, good)}))
    assert harder.severity == "note" and "Evaluation does not share" in harder.evidence.text
    (shared,) = found(RULE, view_of({"loss": diverged(), "eval/loss": (at, bad)}))
    assert shared.severity == "critical"


@pytest.mark.parametrize("seed", range(6))
def test_healthy_losses_and_spikes_that_recover_are_silent(seed):
    spiked = falling(1000, seed)
    spiked[600:640] += 3
    late = falling(400, seed)
    late[-3:] += 1.5
    random = np.random.default_rng(seed)
    for loss in (
        falling(500, seed, noise=0.3),
        heavy_tailed(3000, seed),
        spiked,
        late,
        random.normal(3, 0.3, 500),
    ):
        assert found(RULE, view_of({"loss": loss, "lr": cosine(len(loss))})) == []


def test_an_evaluation_loss_that_rises_is_not_its_business():
    assert found(RULE, view_of({"loss": falling(500), "eval/loss": np.linspace(1, 3, 500)})) == []


def test_without_a_loss_it_says_what_it_lacks():
    outcome = RULE(view_of({"lr": cosine(100)}))
    assert isinstance(outcome, NotEvaluable) and "train loss" in outcome.lacked


def test_it_survives_hostile_curves():
    survives(RULE, ["loss", "lr", "grad/norm/a"])
