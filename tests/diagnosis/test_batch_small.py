"""batch-small: against the noise scale, for long."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.batch_small import RULE

SCATTER = np.random.default_rng(0).lognormal(sigma=0.3, size=60)


def run(scale, batch=8):
    return view_of({"noise/scale": scale, "samples": 5 * batch * np.arange(1.0, 61)}, every=5)


def test_a_noise_scale_far_above_the_batch():
    (finding,) = found(RULE, view_of({"noise/scale": 500 * SCATTER}, every=5, config={"batch_size": 8}))
    assert finding.severity == "note" and 400 < finding.evidence.numbers["scale"] < 650


def test_one_that_could_not_be_measured_for_noise_counts_as_far_above():
    scale = np.where(np.arange(60) % 2, np.inf, 500 * SCATTER)
    assert found(RULE, view_of({"noise/scale": scale}, config={"batch_size": 8}))


def test_a_lower_bound_where_the_signal_can_t_be_measured():
    noise = np.random.default_rng(1).normal(size=60)
    signals = {"noise/scale": np.where(np.arange(60) % 3, 30.0, np.inf), "noise/trace": np.full(60, 40.0)}
    weak = signals | {"noise/gradient_squared": 0.3 * noise}
    (finding,) = found(RULE, view_of(weak, config={"batch_size": 8}))
    assert finding.evidence.numbers["scale"] > 24 and finding.first_step == 40
    strong = signals | {"noise/gradient_squared": 3 + 0.3 * noise}
    assert found(RULE, view_of(strong, config={"batch_size": 8})) == []


def test_look_alikes_stay_silent():
    assert found(RULE, run(20 * SCATTER)) == []  # within ten times
    assert found(RULE, run(np.where(np.arange(60) < 10, 5000.0, 20.0))) == []  # in the beginning only
    assert found(RULE, run(np.where(np.arange(60) > 52, 5000.0, 20.0))) == []  # at the end only


def test_the_batch_is_that_of_an_update():
    view = view_of({"noise/scale": 500 * SCATTER, "samples": 640 * np.arange(1.0, 61)}, every=5)
    assert view.batch == 128 and found(RULE, view) == []


def test_what_lacks_is_said():
    assert isinstance(RULE(view_of({"loss": SCATTER})), NotEvaluable)
    assert isinstance(RULE(view_of({"noise/scale": SCATTER})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(
        RULE,
        ["loss", "noise/scale", "noise/trace", "noise/gradient_squared", "samples"],
        config={"batch_size": 32},
    )
