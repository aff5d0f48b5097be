"""gradient-clipped: how often, how far above the limit, and norms that are pinned."""

import numpy as np
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.gradient_clipped import RULE

RANDOM = np.random.default_rng(0)
RAW = RANDOM.lognormal(sigma=0.3, size=300)


def clipped(limit, scale=1.0):
    return {"grad/norm_raw": scale * RAW, "grad/norm": np.minimum(scale * RAW, limit)}


def test_nearly_all_steps_far_above_the_limit():
    (finding,) = found(RULE, view_of(clipped(0.01)))
    assert finding.severity == "warning" and finding.evidence.numbers["share"] == 1
    assert 80 < finding.evidence.numbers["factor"] < 120 and finding.evidence.numbers["limit"] == 0.01


def test_under_adam_it_is_a_note():
    (finding,) = found(RULE, view_of(clipped(0.01) | {"hyper/beta2/group0": np.full(30, 0.999)}))
    assert finding.severity == "note"


def test_a_pinned_norm_without_the_raw_one_asks_for_it():
    (finding,) = found(RULE, view_of({"grad/norm": np.minimum(RAW, 0.9)}))
    assert finding.severity == "note" and "watch.clip_grad_norm_" in finding.remedy
    assert abs(finding.evidence.numbers["limit"] - 0.9) < 1e-6 and finding.evidence.numbers["share"] > 0.5


def test_look_alikes_stay_silent():
    assert found(RULE, view_of(clipped(1.5))) == []  # a safety belt
    early = np.concatenate([np.full(25, 50.0), np.full(275, 0.5)])
    assert found(RULE, view_of({"grad/norm_raw": early, "grad/norm": np.minimum(early, 1.0)})) == []
    assert loud(found(RULE, view_of(clipped(0.7, 1.0)))) == []  # often clipped, near the limit
    assert found(RULE, view_of({"grad_norm": RAW})) == []  # never clipped
    assert found(RULE, view_of({"grad_norm": np.round(RAW, 1)})) == []  # rounded to a digit
    assert found(RULE, view_of({"grad_norm": np.ones(300)})) == []  # a setting, not a norm


def test_without_norms_it_says_so():
    assert isinstance(RULE(view_of({"loss": RAW})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["grad/norm", "grad/norm_raw"])
