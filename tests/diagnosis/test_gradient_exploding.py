"""gradient-exploding: over depth, from the start, and in time."""

import numpy as np
from memory_runs import found, layered, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.gradient_exploding import RULE

RANDOM = np.random.default_rng(0)
NAMES = [f"layers.{i}.weight" for i in range(8)]
STEPS = np.arange(400)
SCATTER = RANDOM.lognormal(sigma=0.3, size=400)


def by_layer(logs):
    columns = {n: RANDOM.lognormal(sigma=0.2, size=40) * 10.0 ** logs[i] for i, n in enumerate(NAMES)}
    ones = dict.fromkeys(NAMES, np.ones(40))
    return layered("grad/norm", columns) | layered("weight/norm", ones) | {"grad/norm": np.ones(40)}


def test_over_depth():
    (finding,) = found(RULE, view_of(by_layer(np.linspace(4, -1, 8)), every=10))
    assert finding.where == NAMES[0] and finding.evidence.numbers["decades"] > 4


def test_from_the_start():
    (finding,) = found(RULE, view_of(by_layer(np.full(8, 3.0)), every=10))
    assert 500 < finding.evidence.numbers["level"] < 2000 and finding.first_step == 0


def test_in_time_with_the_loss():
    norm = SCATTER * np.where(STEPS < 250, 1.0, 1.1 ** (STEPS - 250.0).clip(0, 120))
    loss = np.where(STEPS < 260, 2.0 - STEPS / 200, 1.0 + (STEPS - 260) / 50)
    (finding,) = found(RULE, view_of({"loss": loss, "grad_norm": norm}))
    assert 280 <= finding.first_step <= 315 and finding.last_step == 399


def test_look_alikes_stay_silent():
    falling = 2.3 * np.exp(-STEPS / 100)
    assert found(RULE, view_of({"loss": falling, "grad_norm": SCATTER})) == []
    leaves = np.geomspace(1e-6, 1, 400) * SCATTER  # a plateau is left: the loss falls
    assert found(RULE, view_of({"loss": falling, "grad_norm": leaves})) == []
    late = np.where(RANDOM.random(400) < 0.1, 5.0, 0.01)  # memorised: calm, with wild single batches
    assert found(RULE, view_of({"loss": falling + 0.3 * (late > 1), "grad_norm": late})) == []
    spike = np.where((STEPS > 300) & (STEPS < 304), 500.0, SCATTER)
    assert found(RULE, view_of({"loss": falling + (spike > 99), "grad_norm": spike})) == []
    assert found(RULE, view_of(by_layer(np.linspace(-2, 0, 8)), every=10)) == []


def test_without_norms_it_says_so():
    assert isinstance(RULE(view_of({"loss": SCATTER})), NotEvaluable)


def test_odd_numbers_never_raise():
    names = [f"grad/norm/{n}" for n in NAMES[:5]]
    survives(RULE, ["loss", "grad/norm", *names])
