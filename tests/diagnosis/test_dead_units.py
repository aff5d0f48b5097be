"""dead-units: layers that died, and layers that are merely sparse."""

import numpy as np
from memory_runs import found, layered, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.dead_units import RULE

STEPS = np.arange(40)
FALLING = {"loss": (np.arange(400), np.geomspace(2.3, 0.1, 400))}
STUCK = {"loss": (np.arange(400), np.full(400, 2.3))}
SAMPLES = {"samples": (np.arange(400), 32.0 * np.arange(1, 401))}


def run(shares, loss=STUCK, samples=SAMPLES):
    return view_of({**layered("units/dead", shares), **loss, **samples}, every=10)


def test_a_layer_that_dies_and_takes_the_next_with_it():
    dies, later = np.where(STEPS < 12, 0.05, 1.0), np.where(STEPS < 15, 0.05, 0.6)
    (finding,) = found(RULE, run({"layers.1": dies, "layers.2": later, "layers.3": 0 * STEPS}))
    assert finding.severity == "critical" and finding.where == "layers.1" and finding.first_step == 120
    assert finding.evidence.numbers["layers"] == 2


def test_dead_from_the_start():
    (finding,) = found(RULE, run({"layers.1": np.ones(40), "layers.2": np.full(40, 0.5)}))
    assert finding.severity == "critical" and finding.where == "layers.1" and finding.first_step == 0


def test_a_layer_that_dies_while_the_rest_learns_is_a_warning():
    (finding,) = found(RULE, run({"branch": np.where(STEPS < 12, 0.05, 0.85), "main": 0 * STEPS}, FALLING))
    assert finding.severity == "warning" and finding.where == "branch"


def test_look_alikes_stay_silent():
    assert found(RULE, run({"layers.1": np.full(40, 0.35)})) == []  # some are always dead
    assert loud(found(RULE, run({"wide": np.where(STEPS < 5, 0.3, 0.6)}, FALLING))) == []  # units to spare
    few = {"samples": (np.arange(400), 8.0 * np.arange(1, 401))}
    assert found(RULE, run({"layers.1": np.where(STEPS < 12, 0.4, 0.85)}, STUCK, few)) == []  # tiny batches
    assert found(RULE, run({"layers.1": np.where((STEPS > 5) & (STEPS < 9), 0.9, 0.1)})) == []  # recovered


def test_without_units_it_says_so():
    assert isinstance(RULE(view_of(FALLING)), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "samples", "units/dead/a", "units/dead/b"], config={"batch_size": "many"})
