"""The rules of the rate's course: never decayed, decayed early, a high floor, no warm-up, and schedules stepped wrongly."""

import numpy as np
import pytest
from made_runs import cosine, falling, heavy_tailed
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules import (
    rate_decayed_early,
    rate_floor_high,
    rate_never_decayed,
    schedule_not_stepped,
    schedule_per_epoch,
    schedule_stepped_twice,
    warmup_short,
)

ALL = (
    rate_decayed_early.RULE,
    rate_floor_high.RULE,
    rate_never_decayed.RULE,
    schedule_not_stepped.RULE,
    schedule_per_epoch.RULE,
    schedule_stepped_twice.RULE,
    warmup_short.RULE,
)
N = 600
T = np.arange(N)


def wsd(steps=N, warmup=30):
    share = np.minimum(
        (np.arange(steps) + 1) / warmup, np.minimum(1, (steps - np.arange(steps)) / (0.2 * steps))
    )
    return 1e-3 * share


HEALTHY = {
    "constant": np.full(N, 0.1),
    "cosine": cosine(N, warmup=30),
    "wsd": wsd(),
    "linear": 1e-3 * (1 - T / N),
    "cosine to a tenth": 0.9 * cosine(N) + 1e-4,
    "inverse root": 1e-3 / np.sqrt(1 + T / 50),
    "cosine by epoch": cosine(N)[T // 30 * 30],
    "warm restarts": 1e-3 * 0.5 * (1 + np.cos(np.pi * (T % 200) / 200)),
    "one cycle": np.interp(T, [0, 200, 600], [1e-4, 1e-3, 1e-6]),
    "milestones": 0.1 * 0.1 ** (T // 200),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.card.name)
def test_healthy_schedules_are_never_above_a_note(rule, name):
    schedule = {"constant": "constant", "cosine by epoch": "cosine"}.get(name, name)
    for config in ({}, {"schedule": schedule, "lr": float(HEALTHY[name].max())}):
        for loss in (falling(N, noise=0.2), heavy_tailed(N)):
            assert not loud(found(rule, view_of({"loss": loss, "lr": HEALTHY[name]}, config=config)))


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.card.name)
def test_they_survive_hostile_curves_and_say_what_they_lack(rule):
    survives(rule, ["loss", "lr"], config={"schedule": "cosine", "warmup_steps": 10})
    outcome = rule(view_of({"eval/loss": falling(50)}))
    assert isinstance(outcome, NotEvaluable) and outcome.lacked and outcome.record


# -- never decayed, decayed early, floor ---------------------------------------------------------------


def test_never_decayed_is_a_note_with_what_the_last_third_brought():
    rate = np.minimum(0.1, 0.1 * (T + 1) / 20)
    (finding,) = found(rate_never_decayed.RULE, view_of({"loss": falling(N), "lr": rate}))
    assert finding.severity == "note" and finding.first_step == 19 and finding.last_step == N - 1
    assert finding.evidence.numbers["recent"] < 0.25 * finding.evidence.numbers["progress"]
    assert 24 in finding.papers


def test_a_noisy_floor_that_no_longer_falls_is_a_warning():
    loss = np.maximum(2.3 - 0.02 * T, 1.0) + 0.25 * np.random.default_rng(0).standard_normal(N)
    (finding,) = found(rate_never_decayed.RULE, view_of({"loss": loss, "lr": np.full(N, 0.1)}))
    assert finding.severity == "warning"


def test_a_loss_that_still_falls_fast_or_is_near_zero_needs_no_decay():
    for loss in (2.3 - 0.003 * T, heavy_tailed(3000)):
        assert found(rate_never_decayed.RULE, view_of({"loss": loss, "lr": np.full(len(loss), 0.1)})) == []


def test_decayed_early():
    rate = np.where(T < 75, 0.02, 0.0004)
    loss = np.where(T < 75, 2.3 - 0.012 * T, 1.35 - 0.0001 * (T - 75)) * falling(
        N, first=1, last=1, noise=0.03
    )
    (finding,) = found(rate_decayed_early.RULE, view_of({"loss": loss, "lr": rate}))
    assert finding.severity == "warning" and finding.first_step == 75
    assert finding.evidence.numbers["share"] == pytest.approx(0.875, abs=0.01)
    assert finding.evidence.numbers["ratio"] == pytest.approx(0.02)


def test_a_loss_that_had_stopped_before_the_decay_is_no_early_decay():
    rate = np.where(T < 300, 0.02, 0.0002)
    loss = np.maximum(2.3 - 0.05 * T, 0.9) * falling(N, first=1, last=1, noise=0.02)
    assert found(rate_decayed_early.RULE, view_of({"loss": loss, "lr": rate})) == []


def test_a_cosine_that_is_cut_at_half_is_a_warning_unless_the_run_is_not_over():
    rate = cosine(2 * N)[:N]
    (finding,) = found(rate_floor_high.RULE, view_of({"loss": falling(N), "lr": rate}))
    assert finding.severity == "warning" and finding.evidence.numbers["share"] == pytest.approx(0.5, abs=0.01)
    assert (
        found(rate_floor_high.RULE, view_of({"loss": falling(N), "lr": rate}, config={"max_steps": 1200}))
        == []
    )


def test_a_floor_at_six_tenths_is_a_note():
    rate = 0.6e-3 + 0.4 * cosine(N)
    (finding,) = found(rate_floor_high.RULE, view_of({"loss": falling(N), "lr": rate}))
    assert finding.severity == "note" and finding.title == "The rate ends at 60% of its peak"


# -- warm-up -------------------------------------------------------------------------------------------


def leaping(height, length):
    return falling(N, noise=0.03) + np.where(length > T, height * np.sin(np.pi * T / length), 0)


def test_a_leap_in_the_first_steps_without_warm_up():
    (finding,) = found(warmup_short.RULE, view_of({"loss": leaping(4, 40), "lr": cosine(N)}))
    assert finding.severity == "warning" and finding.first_step == 0
    assert 10 <= finding.evidence.numbers["peak_step"] <= 30 and "missing" in finding.title
    assert {26, 136} == set(finding.papers)


@pytest.mark.parametrize(
    ("loss", "rate"),
    [
        (leaping(4, 40), cosine(N, warmup=100)),
        (leaping(0.3, 12), cosine(N)),
        (leaping(4, 5), cosine(N)),
        (falling(N), cosine(N)),
        (falling(N) + 3 * (T > 300), cosine(N)),
    ],
    ids=["warmed", "overshoot", "short", "none", "later"],
)
def test_no_leap_or_a_warm_up_is_silent(loss, rate):
    assert found(warmup_short.RULE, view_of({"loss": loss, "lr": rate})) == []


def test_a_first_update_that_throws_the_weights_off_for_good():
    loss = falling(N, first=4.6, last=3.4, noise=0.02)
    loss = np.where(T < 15, loss, 3.35 * np.random.default_rng(0).lognormal(0, 0.02, N))
    ratio = 0.09 * np.exp(-T[::10] / 15) + 0.0015
    signals = {"loss": loss, "lr": cosine(N), "update/ratio": (T[::10], ratio)}
    (finding,) = found(warmup_short.RULE, view_of(signals))
    assert finding.severity == "warning" and finding.evidence.numbers["ratio"] == pytest.approx(0.0915)
    assert found(warmup_short.RULE, view_of(signals | {"loss": falling(N)})) == []
    assert found(warmup_short.RULE, view_of(signals | {"lr": cosine(N, warmup=60)})) == []


# -- schedules that are stepped wrongly ------------------------------------------------------------------


def test_not_stepped():
    settings = {"schedule": "cosine", "warmup_steps": 20, "lr": 0.1}
    (tiny,) = found(
        schedule_not_stepped.RULE, view_of({"loss": falling(N), "lr": np.full(N, 0.005)}, config=settings)
    )
    assert tiny.severity == "critical" and tiny.confidence >= 0.9
    assert (tiny.first_step, tiny.last_step) == (0, N - 1)
    (peak,) = found(
        schedule_not_stepped.RULE, view_of({"loss": falling(N), "lr": np.full(N, 0.1)}, config=settings)
    )
    assert peak.severity == "warning" and "'cosine'" in peak.title
    (zero,) = found(schedule_not_stepped.RULE, view_of({"loss": falling(N), "lr": np.zeros(N)}))
    assert zero.severity == "critical"


def test_a_constant_rate_that_was_meant_is_silent():
    for settings in ({}, {"schedule": "constant"}, {"lr_scheduler_type": "constant"}, {"warmup_steps": 0}):
        view = view_of({"loss": falling(N), "lr": np.full(N, 0.1)}, config=settings)
        assert found(schedule_not_stepped.RULE, view) == []


def doubled(steps=N, warmup=20, floor=0.01):
    fast = floor * 1e-3 + (1 - floor) * cosine(steps, warmup=warmup)
    return np.concatenate([fast[::2], np.full(steps - len(fast[::2]), fast[-1])])


def test_stepped_twice_is_over_at_half():
    settings = {"schedule": "cosine", "warmup_steps": 20}
    (finding,) = found(schedule_stepped_twice.RULE, view_of({"lr": doubled()}, config=settings))
    assert finding.severity == "warning" and finding.confidence >= 0.9
    assert finding.evidence.numbers["factor"] == 2 and abs(finding.evidence.numbers["step"] - 300) <= 15
    (unsure,) = found(schedule_stepped_twice.RULE, view_of({"lr": doubled()}))
    assert unsure.confidence <= 0.6


def test_a_cosine_followed_beyond_its_end():
    rate = 1e-3 * 0.5 * (1 + np.cos(2 * np.pi * T / N))
    (finding,) = found(schedule_stepped_twice.RULE, view_of({"lr": rate}))
    assert "climbs again" in finding.title and abs(finding.evidence.numbers["step"] - 300) <= 2


def test_several_cycles_are_at_most_a_note():
    rate = 1e-3 * 0.5 * (1 + np.cos(6 * np.pi * T / N))
    assert not loud(found(schedule_stepped_twice.RULE, view_of({"lr": rate})))


def test_a_decay_that_ends_at_no_simple_part_is_silent():
    rate = np.maximum(1e-3 * (1 - T / 400), 0)
    assert found(schedule_stepped_twice.RULE, view_of({"lr": rate})) == []


def test_stepped_per_epoch():
    rate = 0.1 * np.minimum(1, (T // 20 + 1) / 5)
    settings = {"schedule": "cosine", "warmup_steps": 5}
    rate -= 1e-6 * np.maximum(0, T // 20 - 5)  # the first stair after the warm-up is as high as its last
    (finding,) = found(schedule_per_epoch.RULE, view_of({"lr": rate}, config=settings))
    assert finding.severity == "warning" and finding.evidence.numbers["epoch"] == 20
    assert finding.evidence.numbers["rises"] == 4 and finding.confidence == 0.9
