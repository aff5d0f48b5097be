"""The rules of data and evaluation: memorized, constant answers, periodic order, resumptions."""

import numpy as np
import pytest
from made_runs import cosine, falling, heavy_tailed, resumed
from memory_runs import found, loud, survives, view_of

from thalweg.diagnosis.findings import NotEvaluable
from thalweg.diagnosis.rules import constant_prediction, data_order, memorization, resume_jump

N = 800
T = np.arange(N)
AT = np.arange(25, N, 25)


def noisy(values, scale=0.03, seed=0):
    return np.asarray(values) * (1 + scale * np.random.default_rng(seed).standard_normal(len(values)))


@pytest.mark.parametrize("rule", [memorization, constant_prediction, data_order, resume_jump])
def test_they_survive_hostile_curves_and_say_what_they_lack(rule):
    survives(rule.RULE, ["loss", "eval/loss", "eval/accuracy"])
    outcome = rule.RULE(view_of({"lr": cosine(100)}))
    assert isinstance(outcome, NotEvaluable) and outcome.lacked and outcome.record


# -- memorization --------------------------------------------------------------------------------------

BY_HEART = noisy(2.3 * np.exp(-T / 120) + 0.005)


def test_random_labels_are_learned_by_heart():
    view = view_of({"loss": BY_HEART, "eval/loss": (AT, 2.35 + 5 * AT / N)})
    (finding,) = found(memorization.RULE, view)
    assert finding.severity == "critical" and finding.confidence >= 0.8
    assert finding.evidence.numbers["lowest"] > 2.3 and finding.first_step < 200


def test_fine_tuning_from_a_low_loss_with_a_metric_that_holds_is_a_note():
    signals = {
        "loss": BY_HEART / 9,
        "eval/loss": (AT, 0.3 + 0.1 * AT / N),
        "eval/wer": (AT, 0.8 - 0.05 * AT / N),
    }
    (finding,) = found(memorization.RULE, view_of(signals))
    assert finding.severity == "note" and "eval/wer" in finding.evidence.text
    (finding,) = found(memorization.RULE, view_of(signals | {"eval/wer": (AT, 0.3 + AT / N)}))
    assert finding.severity == "warning"


def test_accuracies_apart():
    signals = {
        "loss": noisy(np.maximum(2.3 - T / 100, 0.4)),
        "train/accuracy": (AT, np.minimum(1.0, AT / 300)),
        "eval/accuracy": (AT, np.full(len(AT), 0.5)),
    }
    (finding,) = found(memorization.RULE, view_of(signals))
    assert finding.severity == "warning" and "50%" in finding.title


@pytest.mark.parametrize(
    "evaluation",
    [0.1 + 2.2 * np.exp(-AT / 100), 0.6 + 1.7 * np.exp(-AT / 60) + AT / 2000, np.full(len(AT), 5.0)],
    ids=["healthy", "overfitting", "bad at once"],
)
def test_other_evaluations_are_not_memorization(evaluation):
    quick = noisy(2.3 * np.exp(-T / 10) + 0.005)
    assert found(memorization.RULE, view_of({"loss": quick, "eval/loss": (AT, evaluation)})) == []


def test_random_labels_that_are_known_by_half():
    half = 0.4 + (2.3 - 0.4) * np.exp(-T / (N / 3))
    signals = {"loss": half, "eval/loss": (AT, 2.35 + 3 * AT / N)}
    (finding,) = found(memorization.RULE, view_of(signals))
    assert finding.severity == "critical" and finding.first_step <= AT[0]


def test_evaluation_that_improved_since_means_over_steps_began_is_no_memorization():
    means = 1.2 * np.exp(-T / (N / 10))
    signals = {"loss": means, "eval/loss": (AT, np.linspace(2.3, 1.6, len(AT)))}
    assert found(memorization.RULE, view_of(signals)) == []


def test_a_training_loss_that_stays_up_is_no_memorization():
    assert (
        found(
            memorization.RULE,
            view_of({"loss": noisy(np.full(N, 2.3)), "eval/loss": (AT, np.full(len(AT), 2.3))}),
        )
        == []
    )


def test_memorization_needs_an_evaluation():
    outcome = memorization.RULE(view_of({"loss": BY_HEART}))
    assert isinstance(outcome, NotEvaluable) and "evaluation" in outcome.lacked


# -- constant prediction -------------------------------------------------------------------------------


def test_losses_at_chance():
    signals = {
        "loss": noisy(np.full(N, np.log(10)), 0.01),
        "eval/loss": (AT, noisy(np.full(len(AT), np.log(10)), 0.003)),
        "eval/accuracy": (AT, noisy(np.full(len(AT), 0.11), 0.1)),
    }
    (finding,) = found(constant_prediction.RULE, view_of(signals))
    assert finding.severity == "critical" and "ln(10)" in finding.title and finding.first_step == 0


def test_a_metric_that_never_changes():
    signals = {"loss": noisy(np.full(N, 0.42)), "eval/f1": (AT, np.zeros(len(AT)))}
    (finding,) = found(constant_prediction.RULE, view_of(signals))
    assert finding.first_step == 25 and "eval/f1 is 0 at every" in finding.title


@pytest.mark.parametrize(
    ("loss", "accuracy"),
    [
        (falling(N), np.minimum(0.9, 0.1 + AT / N)),
        (noisy(np.full(N, 0.02)), np.ones(len(AT))),
        (noisy(np.linspace(2.3, 0.5, N)), np.full(len(AT), 0.2)),
        (noisy(2.303 - 0.0001 * T, 0.003), noisy(np.full(len(AT), 0.12), 0.1)),
        (noisy(np.full(N, np.log(10)), 0.01), np.full(len(AT), 0.7) + AT * 1e-5),
    ],
    ids=["healthy", "perfect", "still falls", "slow", "right answers at that loss"],
)
def test_what_is_no_constant_prediction(loss, accuracy):
    assert found(constant_prediction.RULE, view_of({"loss": loss, "eval/accuracy": (AT, accuracy)})) == []


# -- data order ----------------------------------------------------------------------------------------


def swinging(period, height, seed=0):
    pattern = np.random.default_rng(seed + 100).standard_normal(period)
    return falling(N, seed, noise=0.1) * (1 + height * pattern[T % period])


@pytest.mark.parametrize("period", [7, 20, 100])
def test_a_period_is_found_at_its_length(period):
    (finding,) = found(data_order.RULE, view_of({"loss": swinging(period, 0.3)}))
    assert (
        finding.severity == ("note" if period == 100 else "warning")
        and finding.evidence.numbers["period"] == period
    )
    (coarse,) = found(data_order.RULE, view_of({"loss": swinging(period, 0.3)}, every=10, window=10))
    assert coarse.evidence.numbers["period"] == 10 * period


def test_a_small_swing_is_a_note():
    pattern = np.random.default_rng(9).standard_normal(20)
    loss = 3 + 0.02 * pattern[T % 20] + 0.01 * np.random.default_rng(1).standard_normal(N)
    (finding,) = found(data_order.RULE, view_of({"loss": loss}))
    assert finding.severity == "note" and finding.evidence.numbers["swing"] < 0.01


def test_the_period_is_an_epoch():
    (finding,) = found(data_order.RULE, view_of({"loss": swinging(20, 0.3), "epoch": T / 20}))
    assert "An epoch is 20 steps." in finding.evidence.text


@pytest.mark.parametrize("seed", range(8))
def test_shuffled_and_slowly_wandering_losses_are_silent(seed):
    random = np.random.default_rng(seed)
    wander = falling(N, seed) * np.exp(0.02 * np.cumsum(random.standard_normal(N)))
    stairs = 2.0 * 0.8 ** (T // 100) * random.lognormal(0, 0.05, N)
    epochs = 2.0 * 0.92 ** (T // 40) * random.lognormal(0, 0.05, N)
    tasks = 0.2 + 2 * np.exp(-(T % 80) / 20) * random.lognormal(0, 0.1, N)
    for loss in (falling(N, seed, noise=0.3), heavy_tailed(N, seed), wander, stairs, epochs, tasks):
        assert not loud(found(data_order.RULE, view_of({"loss": loss})))


def test_uneven_steps_can_not_be_judged():
    steps = np.cumsum(np.random.default_rng(0).integers(1, 9, N))
    assert isinstance(data_order.RULE(view_of({"loss": (steps, falling(N))})), NotEvaluable)


# -- resumptions ---------------------------------------------------------------------------------------


def halves(second, *, at=400, overlap=0):
    whole = falling(N, noise=0.05)
    return resumed(
        {"loss": (T[: at + overlap], whole[: at + overlap])}, {"loss": (T[at:], second(whole[at:]))}
    )


def test_a_rise_that_comes_back():
    (finding,) = found(resume_jump.RULE, halves(lambda x: x + np.exp(-np.arange(len(x)) / 6), overlap=30))
    assert finding.severity == "warning" and finding.first_step == 400 and "rises by" in finding.title
    assert "optimizer" in finding.evidence.text and "earlier process had" in finding.evidence.text


def test_a_drop_is_data_seen_again():
    (finding,) = found(resume_jump.RULE, halves(lambda x: 0.4 * x, overlap=30))
    assert "falls by" in finding.title and "seen already" in finding.evidence.text


def test_updates_that_leap_where_the_loss_is_too_noisy():
    random = np.random.default_rng(0)
    loss = [random.exponential(0.1, 400), random.exponential(0.12, 400)]
    update = [
        random.lognormal(-2, 0.1, 400),
        random.lognormal(-2, 0.1, 400) * (1 + 2 * np.exp(-np.arange(400) / 20)),
    ]
    parts = [
        {"loss": (T[i * 400 :][:400], loss[i]), "update/norm": (T[i * 400 :][:400], update[i])}
        for i in (0, 1)
    ]
    parts[0] = {name: (np.append(s, 400), np.append(v, v[-1])) for name, (s, v) in parts[0].items()}
    (finding,) = found(resume_jump.RULE, resumed(*parts))
    assert finding.evidence.numbers["factor"] > 2 and finding.first_step == 400


def test_faithful_resumptions_and_runs_without_one_are_silent():
    assert found(resume_jump.RULE, halves(lambda x: x, overlap=30)) == []
    assert found(resume_jump.RULE, view_of({"loss": falling(N)})) == []
    random = np.random.default_rng(3)
    for _ in range(10):
        tail = random.permutation
        assert (
            found(
                resume_jump.RULE,
                halves(lambda x, tail=tail: np.concatenate([tail(x[:100]), x[100:]]), overlap=9),
            )
            == []
        )


def test_a_jump_elsewhere_is_not_its_business():
    assert found(resume_jump.RULE, halves(lambda x: x + 2 * (np.arange(len(x)) > 200), overlap=30)) == []
