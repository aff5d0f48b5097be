"""rate-high: large updates that the loss pays for, and large updates that do no harm."""

import numpy as np
from memory_runs import found, layered, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.rate_high import RULE

RANDOM = np.random.default_rng(0)
STEPS = np.arange(400)
MEASURED = np.arange(0, 400, 10)
NOISE = RANDOM.normal(size=400)
FALLING = 2.3 * np.exp(-STEPS / 80) * (1 + 0.1 * NOISE)


def run(loss, ratio, **others):
    signals = {"loss": loss, "update/ratio": (MEASURED, np.broadcast_to(ratio, 40).copy())}
    return view_of(signals | others)


def test_a_loss_that_leaps_and_stays():
    loss = np.where(STEPS < 5, 2.3 + STEPS, 2.31) + 0.05 * NOISE
    (finding,) = found(RULE, run(loss, np.geomspace(0.5, 0.01, 40)))
    assert finding.severity == "critical" and finding.first_step == 0 and finding.last_step == 399


def test_a_loss_that_overflows():
    loss = np.where(STEPS < 40, 2.3 * 1.3 ** np.minimum(STEPS, 40.0), np.nan)
    (finding,) = found(RULE, run(loss, np.where(MEASURED < 40, 0.8, np.nan)))
    assert finding.severity == "critical"


def test_weights_blown_up_by_large_steps():
    loss = 1.5 * np.exp(-STEPS / 600) + 0.3 * np.abs(NOISE)
    weight = (MEASURED, 10 * (1 + np.sqrt(MEASURED) / 2))
    (finding,) = found(RULE, run(loss, 0.02, **{"weight/norm": weight}))
    assert finding.severity == "warning" and finding.evidence.numbers["growth"] > 4


def test_labels_that_change_their_meaning_are_not_the_rate():
    loss = np.concatenate([np.geomspace(2.3, 0.1, 40)] * 10) * (1 + 0.05 * NOISE)
    weight = (MEASURED, 10 * (1 + np.sqrt(MEASURED) / 2))
    assert found(RULE, run(loss, 0.02, **{"weight/norm": weight})) == []


def test_the_layer_with_by_far_the_largest_update_is_named():
    loss = np.where(STEPS < 5, 2.3 + STEPS, 2.31)
    layers = layered(
        "update/ratio", {f"{i}.weight": (MEASURED, np.full(40, 2.0 if i == 3 else 0.1)) for i in range(5)}
    )
    (finding,) = found(RULE, run(loss, np.geomspace(0.5, 0.01, 40), **layers))
    assert finding.where == "3.weight"


def test_look_alikes_stay_silent():
    assert found(RULE, run(FALLING, 0.08)) == []  # large steps, and it learns
    assert found(RULE, run(np.full(400, 2.3) + 0.05 * NOISE, 0.002)) == []  # a plateau with ordinary steps
    spike = FALLING + 20 * (STEPS == 300)
    assert found(RULE, run(spike, 0.005)) == []
    slow = {"weight/norm": (MEASURED, 10 * (1 + MEASURED / 100))}  # weights of a small initialization
    assert found(RULE, run(FALLING, 0.002, **slow)) == []
    early = np.where((STEPS > 0) & (STEPS < 4), 5.0, FALLING)
    assert loud(found(RULE, run(early, np.geomspace(0.14, 0.01, 40)))) == []  # leaps, and learns


def test_an_initialization_too_large_is_another_finding():
    loss = np.where(STEPS < 40, 4e3 * 1.3 ** np.minimum(STEPS, 40.0), np.nan)
    layers = layered("grad/norm", {f"{i}.weight": ([0], [300.0]) for i in range(5)})
    layers |= layered("weight/norm", {f"{i}.weight": ([0], [3.0]) for i in range(5)})
    assert found(RULE, run(loss, 0.8, **layers)) == []


def test_without_updates_it_says_so():
    outcome = RULE(view_of({"loss": FALLING, "lr": np.full(400, 1e-3)}))
    assert isinstance(outcome, NotEvaluable) and "update ratio" in outcome.lacked


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "update/ratio", "weight/norm", "grad/cosine", "update/ratio/a.weight"])
