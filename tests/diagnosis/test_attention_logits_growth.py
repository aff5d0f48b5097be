"""attention-logits-growth: judged by what the user logs."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.attention_logits_growth import RULE

GROWS = np.geomspace(5, 5000, 200) * np.random.default_rng(0).lognormal(sigma=0.1, size=200)


def test_the_layer_that_grew_most():
    view = view_of(
        {"attention/largest_logit/blocks.1": GROWS, "attention/largest_logit/blocks.0": GROWS / 10}
    )
    (finding,) = found(RULE, view)
    assert (
        finding.severity == "warning"
        and finding.where == "blocks.1"
        and finding.evidence.numbers["signals"] == 2
    )
    assert 70 < finding.first_step < 110


def test_other_names_and_smaller_logits():
    (finding,) = found(RULE, view_of({"train/max_attn_logits": GROWS / 10}))
    assert finding.severity == "note" and finding.where == ""


def test_look_alikes_stay_silent():
    assert found(RULE, view_of({"attn/logits": GROWS / 100})) == []  # grows, and is still small
    assert found(RULE, view_of({"attn/logits": np.full(200, 900.0)})) == []  # a matter of units
    assert found(RULE, view_of({"attn/logits": np.minimum(GROWS, 300.0)})) == []  # levelled off


def test_without_them_it_gives_the_line():
    outcome = RULE(view_of({"loss": GROWS, "logits/largest": GROWS, "eval/f1_score": GROWS}))
    assert isinstance(outcome, NotEvaluable) and "watch.log" in outcome.record


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "attn/logits", "attn/max_score"])
