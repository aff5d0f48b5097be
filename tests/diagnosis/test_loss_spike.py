"""The rule of loss spikes: where, how high, what came first, and what is no spike."""

import numpy as np
import pytest
from made_runs import cosine, falling, heavy_tailed
from memory_runs import found, layered, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.loss_spike import RULE


def spiked(steps=1000, at=600, length=40, height=1.5, seed=0):
    loss = falling(steps, seed, noise=0.05)
    loss[at : at + length] += height * np.exp(-np.arange(length) / (length / 3))
    return loss


def steady(steps, seed, level=1.0):
    return level * np.random.default_rng(seed).lognormal(0, 0.1, steps)


def test_a_spike_is_found_with_its_place_height_and_cost():
    (finding,) = found(RULE, view_of({"loss": spiked()}))
    numbers = finding.evidence.numbers
    assert finding.kind == "loss-spike" and finding.severity == "warning"
    assert abs(finding.first_step - 600) <= 2 and 600 <= numbers["peak"] <= 606
    assert numbers["height"] == pytest.approx(1.5, abs=0.35)
    assert 15 <= numbers["cost"] <= 45 and numbers["count"] == 1
    assert "did not" not in finding.title and finding.where == ""


def test_of_several_the_worst_is_told_and_all_are_counted():
    loss = spiked(3000, 900, 40, 0.6) + spiked(3000, 2000, 60, 2.0) - falling(3000, 0, noise=0.05)
    (finding,) = found(RULE, view_of({"loss": loss}))
    assert abs(finding.first_step - 2000) <= 2 and finding.evidence.numbers["count"] == 2
    assert finding.title.startswith("2 spikes")


def test_a_rise_that_stays_is_critical():
    loss = falling(1000, noise=0.05)
    loss[700:] += 1.5
    (finding,) = found(RULE, view_of({"loss": loss}))
    assert finding.severity == "critical" and finding.last_step == 999 and "did not recover" in finding.title


def test_update_before_loss_before_gradient_is_the_second_moment_and_names_the_layer():
    update, gradient, layer = steady(1000, 1, 0.01), steady(1000, 2), steady(1000, 4, 0.002)
    update[595:630] *= 4
    layer[594:630] *= 9
    gradient[602:630] *= 5
    signals = {"loss": spiked(), "update/norm": update, "grad/norm": gradient}
    signals |= layered("update/norm", {"embed.weight": layer, "head.weight": steady(1000, 5, 0.003)})
    (finding,) = found(RULE, view_of(signals, config={"optimizer": "AdamW"}))
    numbers = finding.evidence.numbers
    assert (numbers["update_onset"], numbers["gradient_onset"]) == (595, 602)
    assert numbers["update_factor"] == pytest.approx(4, rel=0.4)
    assert finding.where == "embed.weight" and numbers["layer_onset"] == 594
    assert "beta2 = 0.95" in finding.remedy and 1010 in finding.papers and finding.confidence >= 0.85


def test_gradient_before_loss():
    gradient = steady(1000, 2)
    gradient[596:620] *= 14
    signals = {"loss": spiked(), "update/norm": steady(1000, 1, 0.01), "grad/norm": gradient}
    (finding,) = found(RULE, view_of(signals))
    assert (
        finding.evidence.numbers["gradient_onset"] == 596 and "update_onset" not in finding.evidence.numbers
    )
    assert (
        finding.remedy.startswith("Clip the gradient norm")
        and "4 steps before the loss" in finding.evidence.text
    )


def test_the_same_order_under_plain_sgd_is_not_blamed_on_a_second_moment():
    update, gradient = steady(1000, 1, 0.01), steady(1000, 2)
    update[595:630] *= 4
    gradient[602:630] *= 5
    signals = {"loss": spiked(), "update/norm": update, "grad/norm": gradient}
    (finding,) = found(RULE, view_of(signals, config={"optimizer": "SGD"}))
    assert "beta2" not in finding.remedy


def test_a_norm_pinned_by_clipping_says_so():
    signals = {"loss": spiked(), "grad/norm": np.ones(1000)}
    (finding,) = found(RULE, view_of(signals))
    assert "clip_grad_norm_" in finding.remedy and "pinned" in finding.evidence.text


def test_a_raised_rate_makes_it_a_note():
    rate = np.where(np.arange(1000) < 599, 1e-4, 1e-3)
    (finding,) = found(RULE, view_of({"loss": spiked(), "lr": rate}))
    assert finding.severity == "note" and finding.evidence.numbers["rate_factor"] == pytest.approx(
        10, rel=0.01
    )


def test_one_bad_batch_is_a_note_only():
    loss, gradient = falling(1000, noise=0.05), steady(1000, 2)
    loss[500] += 3
    gradient[500] *= 20
    (finding,) = found(RULE, view_of({"loss": loss, "grad/norm": gradient}))
    assert finding.severity == "note" and finding.first_step == 500 and "batch" in finding.evidence.text


def test_one_point_that_is_a_mean_of_many_steps_counts():
    loss = falling(300, noise=0.01)
    loss[200] += 1.0
    (finding,) = found(RULE, view_of({"loss": loss}, every=50, window=50))
    assert finding.severity == "warning" and finding.first_step == 200 * 50
    assert "means of 50 steps" in finding.evidence.text
    assert not loud(found(RULE, view_of({"loss": loss}, every=50)))


@pytest.mark.parametrize("seed", range(8))
def test_healthy_losses_are_silent(seed):
    random = np.random.default_rng(seed)
    slow = 3 + 0.1 * np.sin(np.arange(1000) / 40) + random.normal(0, 0.1, 1000)
    for loss in (
        falling(1000, seed, noise=0.2),
        heavy_tailed(2000, seed),
        slow,
        random.exponential(0.2, 800),
        falling(60, seed, noise=0.3),
        random.normal(0, 1, 500),
    ):
        assert not loud(found(RULE, view_of({"loss": loss, "lr": cosine(len(loss))})))


def test_rises_at_a_fixed_distance_are_a_note():
    loss = falling(2000, noise=0.05)
    for at in range(400, 2000, 300):
        loss[at : at + 40] += 2 * np.exp(-np.arange(40) / 15)
    (finding,) = found(RULE, view_of({"loss": loss}))
    assert finding.severity == "note" and "every 300 steps" in finding.evidence.text


def test_a_mean_of_few_steps_does_not_count_alone():
    loss = heavy_tailed(2000).reshape(400, 5).mean(axis=1)
    loss[300] += 1.0
    assert not loud(found(RULE, view_of({"loss": loss}, every=5, window=5)))


def test_a_slow_rise_is_no_spike():
    loss = falling(1000, noise=0.05)
    loss[500:] += np.linspace(0, 0.8, 500)
    assert not loud(found(RULE, view_of({"loss": loss})))


def test_without_a_loss_it_says_what_it_lacks():
    outcome = RULE(view_of({"lr": cosine(100)}))
    assert isinstance(outcome, NotEvaluable) and outcome.lacked == "train loss"


def test_it_survives_hostile_curves():
    survives(RULE, ["loss", "grad/norm", "update/norm", "lr"])


def test_a_million_values():
    (finding,) = found(RULE, view_of({"loss": spiked(1_000_000, 600_000, 5000, 1.5)}))
    assert abs(finding.first_step - 600_000) < 200


def test_a_rise_during_which_evaluation_gets_better_is_a_note():
    loss = falling(1000, noise=0.05)
    loss[500:] += 2.0 * np.exp(-np.arange(500) / 60)
    at = np.arange(9, 1000, 10)
    signals = {"loss": loss, "eval/loss": (at, 0.3 + 3 * np.exp(-at / 300))}
    (alone,) = found(RULE, view_of(signals))
    assert alone.severity == "note" and "Evaluation got no worse" in alone.evidence.text
    shared = signals | {"eval/loss": (at, np.interp(at, np.arange(1000), loss))}
    assert [f.severity for f in found(RULE, view_of(shared))] == ["warning"]
