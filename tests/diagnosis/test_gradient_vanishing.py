"""gradient-vanishing: a trend over depth, not a difference between layers."""

import numpy as np
from memory_runs import found, layered, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.gradient_vanishing import RULE

RANDOM = np.random.default_rng(0)
NAMES = [f"layers.{i}.weight" for i in range(8)]


def run(logs, rows=40, extra=None):
    scatter = 10 ** RANDOM.normal(scale=0.2, size=(rows, len(logs)))
    gradients = {n: scatter[:, i] * 10.0 ** logs[i] for i, n in enumerate(NAMES[: len(logs)])}
    weights = {n: np.full(rows, 3.0) for n in NAMES[: len(logs)]}
    signals = layered("grad/norm", gradients) | layered("weight/norm", weights) | (extra or {})
    return view_of({"loss": (np.arange(rows) * 10, np.full(rows, 2.3)), **signals}, every=10)


def test_a_factor_a_layer():
    (finding,) = found(RULE, run(np.linspace(-6, -1, 8)))
    assert finding.where == NAMES[0] and finding.first_step == 0
    assert 4 < finding.evidence.numbers["decades"] < 6 and finding.severity in ("warning", "critical")


def test_layers_that_get_exactly_nothing_belong_to_the_trend():
    view = run(np.linspace(-4, 0, 5), extra=layered("grad/norm", {}))
    silent = {f"grad/norm/a.{i}.weight": np.zeros(40) for i in range(4)}
    signals = {**silent, **{name: view.named(name).values for name in view.specs if "/layers" in name}}
    (finding,) = found(RULE, view_of(signals, every=10))
    assert finding.where == "a.0.weight" and finding.evidence.numbers["decades"] > 5


def test_look_alikes_stay_silent():
    assert found(RULE, run(np.array([-4.5, -1.0, -1.2, -0.9, -1.1, -1.0, -0.8, -0.9]))) == []  # an embedding
    assert found(RULE, run(np.linspace(-2, -0.5, 8))) == []  # less than two decades
    assert found(RULE, run(np.array([-4, 0, -4, 0, -4, 0, -4, 0.0]))) == []  # no trend
    assert found(RULE, run(np.linspace(0, -5, 8))) == []  # the other way
    biases = layered("grad/norm", {f"layers.{i}.bias": np.full(40, 1e-9) for i in range(4)})
    assert found(RULE, run(np.full(8, -1.0), extra=biases)) == []


def test_a_network_that_leaves_such_a_state():
    rows = 60
    logs = np.where(np.arange(rows)[:, None] < 8, np.linspace(-6, -1, 8), -1.0)
    signals = layered("grad/norm", {n: 10 ** logs[:, i] for i, n in enumerate(NAMES)})
    assert found(RULE, view_of(signals, every=10)) == []


def test_few_or_no_layers_are_said():
    assert isinstance(RULE(run(np.linspace(-6, -1, 3))), NotEvaluable)
    assert isinstance(RULE(view_of({"loss": np.ones(30)})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, [f"grad/norm/{n}" for n in NAMES[:5]] + [f"weight/norm/{n}" for n in NAMES[:5]])
