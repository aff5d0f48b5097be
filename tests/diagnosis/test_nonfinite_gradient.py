"""nonfinite-gradient: when, where, and whether it was survived."""

import numpy as np
from memory_runs import found, layered, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.nonfinite_gradient import RULE

NORM = np.random.default_rng(0).lognormal(size=300)
NAMES = ("0.weight", "2.weight", "4.weight", "6.weight")


def with_bad(steps, value=np.nan):
    norm = NORM.copy()
    norm[steps] = value
    return norm


def counts(bad):
    return layered("grad/nonfinite", {name: ([120], [5.0 if name in bad else 0.0]) for name in NAMES})


def test_it_arose_in_the_last_bad_layer_of_the_forward_order():
    signals = {"grad/norm": with_bad(slice(120, None)), **counts(NAMES[:2])}
    (finding,) = found(RULE, view_of(signals))
    assert finding.severity == "critical" and finding.first_step == 120 and finding.last_step == 299
    assert finding.where == "2.weight"


def test_every_layer_bad_means_the_loss():
    (finding,) = found(RULE, view_of({"grad/norm": with_bad([120], np.inf), **counts(NAMES)}))
    assert finding.where == "" and finding.severity == "warning" and "loss" in finding.evidence.text


def test_a_loss_that_was_bad_before_is_that_rules_finding():
    loss = np.where(np.arange(300) < 118, 1.0, np.nan)
    signals = {"loss": loss, "grad/norm": with_bad(slice(120, None)), **counts(NAMES)}
    assert found(RULE, view_of(signals)) == []
    signals["loss"] = np.where(np.arange(300) < 121, 1.0, np.nan)
    assert found(RULE, view_of(signals))


def test_one_that_is_survived_is_a_warning():
    (finding,) = found(RULE, view_of({"grad_norm": with_bad([50, 70], np.inf)}))
    assert finding.severity == "warning" and (finding.first_step, finding.last_step) == (50, 70)


def test_a_scaler_that_finds_its_scale_is_no_finding():
    scale = np.full(300, 65536.0)
    assert found(RULE, view_of({"grad/norm": with_bad([3, 200], np.inf), "amp/scale": scale})) == []
    assert found(RULE, view_of({"grad/norm": with_bad(slice(3, 100), np.inf), "amp/scale": scale}))


def test_large_and_zero_norms_are_finite():
    assert found(RULE, view_of({"grad/norm": NORM * 1e30})) == []
    assert found(RULE, view_of({"grad/norm": NORM * 0})) == []
    assert found(RULE, view_of({"grad/norm": NORM, **counts([])})) == []


def test_without_norms_it_says_so():
    assert isinstance(RULE(view_of({"loss": NORM})), NotEvaluable)


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "grad/norm", "grad/nonfinite", "grad/nonfinite/a.weight", "amp/scale"])
