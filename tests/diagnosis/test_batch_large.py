"""batch-large: against the noise scale, for long."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.batch_large import RULE

SCATTER = np.random.default_rng(0).lognormal(sigma=0.3, size=60)


def run(scale, batch=512):
    return view_of({"noise/scale": scale}, every=5, config={"batch_size": batch})


def test_a_noise_scale_far_below_the_batch():
    (finding,) = found(RULE, run(10 * SCATTER))
    assert finding.severity == "note" and finding.evidence.numbers["batch"] == 512


def test_look_alikes_stay_silent():
    assert found(RULE, run(100 * SCATTER)) == []  # within ten times
    assert found(RULE, run(np.where(np.arange(60) < 20, 5.0, 300.0))) == []  # in the beginning only


def test_what_lacks_is_said():
    assert isinstance(RULE(view_of({"loss": SCATTER})), NotEvaluable)
    assert isinstance(RULE(view_of({"noise/scale": SCATTER})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "noise/scale", "samples"], config={"batch_size": 32})
