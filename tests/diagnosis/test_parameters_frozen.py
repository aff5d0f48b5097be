"""parameters-frozen: what stands still, and why."""

import numpy as np
import pytest
from memory_runs import found, layered, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.parameters_frozen import RULE

LOSS = np.linspace(2.3, 0.5, 40)
ONES, ZEROS = np.full(40, 0.1), np.zeros(40)
NAMES = ("layers.0.weight", "layers.1.weight", "layers.2.weight")


def test_a_layer_the_optimizer_was_not_given():
    signals = layered("update/norm", dict.fromkeys(NAMES[:2], ONES))
    (finding,) = found(RULE, view_of(signals, every=10, parameters={"outside": [NAMES[2], "layers.2.bias"]}))
    assert finding.severity == "warning" and finding.where == NAMES[2] and finding.first_step == 0
    assert finding.evidence.numbers["parameters"] == 2


def test_the_optimizer_of_another_model_is_one_critical_finding():
    signals = layered("update/norm", {"group0.0": ZEROS, "group0.1": ZEROS})
    (finding,) = found(RULE, view_of(signals, every=10, parameters={"outside": list(NAMES)}))
    assert finding.severity == "critical" and "another" in finding.title


@pytest.mark.parametrize("gradient", [{NAMES[0]: ONES}, {NAMES[0]: ONES, NAMES[1]: ZEROS}])
def test_a_gradient_that_is_missing_or_zero(gradient):
    signals = layered("update/norm", {NAMES[0]: ONES, NAMES[1]: ZEROS}) | layered("grad/norm", gradient)
    (finding,) = found(RULE, view_of({"loss": LOSS, **signals}, every=10))
    assert finding.where == NAMES[1] and finding.severity == "warning" and "gradient" in finding.title


def test_an_update_of_zero_with_a_gradient():
    signals = layered("update/norm", {NAMES[0]: ONES, NAMES[1]: ZEROS})
    signals |= layered("grad/norm", dict.fromkeys(NAMES[:2], ONES))
    (finding,) = found(RULE, view_of({"loss": LOSS, "lr": ONES, **signals}, every=10))
    assert finding.where == NAMES[1] and "never moved" in finding.title


def test_a_layer_in_the_middle_is_frozen_by_mistake_and_a_backbone_on_purpose():
    trained = layered("update/norm", {NAMES[0]: ONES, NAMES[2]: ONES})
    (middle,) = found(RULE, view_of(trained, every=10, parameters={"frozen": [NAMES[1]]}))
    assert middle.severity == "warning" and middle.where == NAMES[1]
    trained = layered("update/norm", {NAMES[2]: ONES, "head.weight": ONES})
    (backbone,) = found(RULE, view_of(trained, every=10, parameters={"frozen": list(NAMES[:2])}))
    assert backbone.severity == "note"


def test_look_alikes_stay_silent():
    later = np.where(np.arange(40) < 2, 0.0, 0.1)  # a residual branch that begins with zeros
    moving = layered("update/norm", {NAMES[0]: later, NAMES[1]: ONES * 1e-9})
    moving |= layered("grad/norm", {NAMES[0]: later, NAMES[1]: ONES * 1e-9})
    assert found(RULE, view_of(moving, every=10)) == []
    paused = layered("update/norm", {NAMES[0]: ZEROS}) | {"lr": ZEROS}
    assert found(RULE, view_of(paused, every=10)) == []  # the rate is 0: another rule's business
    short = layered("update/norm", {NAMES[0]: [0.0, 0.0, 0.0]})
    assert found(RULE, view_of(short, every=1)) == []
    shared = {"A:update/norm/x.weight": ONES, "update/norm/y.weight": ONES}
    assert found(RULE, view_of(shared, every=10, parameters={"outside": ["x.weight"]})) == []


def test_a_bias_that_gets_rounding_errors_only_is_nothing():
    signals = layered("update/norm", {"conv.weight": ONES, "conv.bias": ZEROS})
    signals |= layered("grad/norm", {"conv.weight": ONES, "conv.bias": ONES * 1e-9})
    assert found(RULE, view_of(signals, every=10)) == []


def test_without_layers_it_says_what_it_lacks():
    outcome = RULE(view_of({"loss": LOSS, "lr": ONES}))
    assert isinstance(outcome, NotEvaluable) and "layer" in outcome.lacked and "tw.watch" in outcome.record


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "lr", "update/norm/a.weight", "grad/norm/a.weight", "update/norm/b.weight"])
