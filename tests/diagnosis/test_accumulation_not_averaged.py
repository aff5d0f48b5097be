"""accumulation-not-averaged: by losses and by what the gradients promise."""

import numpy as np
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.accumulation_not_averaged import RULE

STEPS = np.arange(400)
EVALUATED = np.arange(20, 400, 20)
NOISE = np.random.default_rng(0).normal(size=400)
FALLING = 2.3 * np.exp(-STEPS / 200)
CONFIG = {"gradient_accumulation_steps": 8}


def losses(factor):
    return {"loss": factor * FALLING * (1 + 0.05 * NOISE), "eval/loss": (EVALUATED, FALLING[EVALUATED])}


def steps_of(squared, ratio, **others):
    measured = np.arange(0, 400, 10)
    return {
        "loss": FALLING,
        "lr": np.full(400, 0.1),
        "noise/gradient_squared": (measured, np.full(40, squared)),
        "update/ratio": (measured, np.full(40, ratio)),
    } | others


def test_a_training_loss_eight_times_the_evaluation_loss():
    (finding,) = found(RULE, view_of(losses(8), config=CONFIG))
    assert finding.severity == "warning" and abs(finding.evidence.numbers["factor"] - 8) < 0.5


def test_without_the_setting_it_is_a_note():
    (finding,) = found(RULE, view_of(losses(4)))
    assert finding.severity == "note" and "4 micro-batches" in finding.title


def test_steps_that_overshoot():
    (finding,) = found(RULE, view_of(steps_of(1.0, 0.1), config=CONFIG))  # promises 0.8 a step
    assert finding.evidence.numbers["kept"] < 0.1 and finding.evidence.numbers["micro_batches"] == 8


def test_look_alikes_stay_silent():
    assert found(RULE, view_of(losses(1), config=CONFIG)) == []
    assert found(RULE, view_of(losses(1.4), config=CONFIG)) == []  # dropout
    assert found(RULE, view_of(losses(8), config={"gradient_accumulation_steps": 1})) == []
    drifting = losses(1) | {"eval/loss": (EVALUATED, FALLING[EVALUATED] * np.linspace(1, 0.1, 19))}
    assert found(RULE, view_of(drifting)) == []
    assert loud(found(RULE, view_of(losses(2)))) == []  # nothing says that micro-batches are accumulated
    averaged = steps_of(1.0 / 64, 0.1)
    assert found(RULE, view_of(averaged, config=CONFIG)) == []
    assert found(RULE, view_of(steps_of(1.0, 0.005), config=CONFIG)) == []  # noise, with ordinary steps
    adam = steps_of(1.0, 0.1, **{"hyper/beta2/group0": np.full(8, 0.999)})
    assert found(RULE, view_of(adam, config=CONFIG)) == []


def test_what_lacks_is_said():
    assert isinstance(RULE(view_of({"loss": FALLING})), NotEvaluable)


def test_odd_numbers_never_raise():
    names = ["loss", "eval/loss", "lr", "noise/gradient_squared", "update/ratio", "hyper/momentum/group0"]
    survives(RULE, names, config=CONFIG)
    survives(RULE, names[:2])
