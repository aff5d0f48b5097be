"""gradients-accumulate: sums of gradients against gradients that are merely alike."""

import numpy as np
from memory_runs import found, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules.gradients_accumulate import RULE

STEPS = np.arange(400)
MEASURED = np.arange(0, 400, 10)
NOISE = np.random.default_rng(0).normal(size=400)


def run(loss, norm, cosine):
    return view_of({"loss": loss, "grad/norm": norm, "grad/cosine": (MEASURED, cosine)})


def test_sums_of_gradients_are_found_from_the_first_step():
    loss = 1.5 + np.cos(STEPS / 32) + 0.05 * NOISE  # swings around the minimum
    (finding,) = found(RULE, run(loss, 1 + STEPS / 10, np.full(40, 0.99)))
    assert finding.severity == "critical" and finding.first_step == 0 and "zero_grad" in finding.remedy
    assert finding.evidence.numbers["growth"] > 5


def test_a_run_that_overflowed_later_is_found_by_its_first_half():
    loss = np.where(STEPS < 100, 1.5 + np.cos(STEPS / 20), np.exp(np.minimum(STEPS - 100, 80)))
    norm = np.where(STEPS < 250, 1 + STEPS.astype(float), np.nan)
    cosine = np.where(MEASURED < 250, 0.98, np.nan)
    assert found(RULE, run(loss, norm, cosine))


def test_full_batch_training_is_alike_but_falls():
    loss = 2.3 * np.exp(-STEPS / 100)
    assert found(RULE, run(loss, np.exp(-STEPS / 100), np.full(40, 0.995))) == []
    assert (
        found(RULE, run(loss, np.exp(STEPS / 100), np.full(40, 0.995))) == []
    )  # leaves a saddle: the loss falls


def test_a_diverging_run_turns():
    assert found(RULE, run(np.exp(STEPS / 50), np.exp(STEPS / 50), np.full(40, -0.6))) == []


def test_an_ordinary_noisy_run():
    loss = 2.3 * np.exp(-STEPS / 100) + 0.2 * np.abs(NOISE)
    assert found(RULE, run(loss, 1 + 0.5 * np.abs(NOISE), 0.2 + 0.1 * NOISE[:40])) == []


def test_without_cosines_it_says_so():
    outcome = RULE(view_of({"loss": np.exp(-STEPS / 100), "grad_norm": 1.0 + STEPS}))
    assert isinstance(outcome, NotEvaluable) and "grad/cosine" in outcome.lacked


def test_odd_numbers_never_raise():
    survives(RULE, ["loss", "grad/norm", "grad/cosine"])
