"""Two runs that should be the same: the first signal, step and layer at which they part."""

import numpy as np
import pytest
from made_runs import falling
from memory_runs import layered, run_of

from thalweg.diagnosis import diagnose, explain
from thalweg.diagnosis.comparing import part_ways

N = 200
SETTINGS = {"optimizer": {"lr": 0.1}, "seed": 1}


def signals(seed=0):
    random = np.random.default_rng(seed)
    norms = {layer: random.lognormal(0, 0.1, N) for layer in ("embed.weight", "up.weight", "head.weight")}
    updates = {layer: random.lognormal(-3, 0.1, N) for layer in norms}
    return {
        "loss": falling(N, seed),
        "lr": np.full(N, 0.1),
        "time/step": random.random(N),
        "grad/norm": random.lognormal(0, 0.1, N),
        **layered("grad/norm", norms),
        **layered("update/norm", updates),
    }


def changed(base, names, step, factor=1.3):
    out = {name: np.array(values) for name, values in base.items()}
    for name in names:
        out[name][step:] *= factor
    return out


def parting(a, b, config=SETTINGS, other=SETTINGS):
    return part_ways(run_of(a, config=config), run_of(b, config=other))


def test_equal_runs_have_no_finding_whatever_the_clock_says():
    a = signals()
    assert parting(a, {**a, "time/step": np.ones(N)}) == []
    nan = {**a, "loss": np.where(np.arange(N) > 100, np.nan, a["loss"])}
    assert parting(nan, nan) == []


def test_the_earliest_step_counts():
    a = signals()
    b = changed(changed(a, ["loss"], 80), ["grad/norm/up.weight"], 120)
    (finding,) = parting(a, b)
    assert finding.kind == "runs-differ" and finding.severity == "warning"
    assert finding.first_step == 80 and finding.evidence.numbers["signals"] == 2
    assert "first in loss" in finding.title and "first up.weight" in finding.evidence.text
    assert "batches" in finding.remedy


def test_of_one_step_the_way_of_the_step_decides():
    a = signals()
    everything = ["loss", "grad/norm", "grad/norm/up.weight", "update/norm/up.weight"]
    (forward,) = parting(a, changed(a, everything, 50))
    assert "first in loss" in forward.title and forward.where == "up.weight"
    names = ["grad/norm/embed.weight", "grad/norm/up.weight", "update/norm/head.weight"]
    (backward,) = parting(a, changed(a, names, 50))
    assert backward.where == "up.weight" and "backward" in backward.remedy
    (update,) = parting(a, changed(a, ["update/norm/embed.weight"], 50))
    assert update.where == "embed.weight" and "first in update/norm" in update.title
    (rate,) = parting(a, changed(a, ["loss", "lr"], 50))
    assert "first in lr" in rate.title


def test_rounding_that_grows_is_told_from_a_real_difference():
    a = signals()
    b = changed(a, ["loss"], 60, 1 + 1e-6)
    b["loss"][150:] *= 1.01
    (finding,) = parting(a, b)
    assert finding.severity == "note" and finding.first_step == 60 and "rounding" in finding.title
    assert "grows to 0.0099" in finding.evidence.text


def test_settings_that_differ_are_listed():
    a = signals()
    (finding,) = parting(a, changed(a, ["loss"], 0), other={"optimizer": {"lr": 0.2}, "seed": 1})
    assert "optimizer.lr: 0.1, 0.2" in finding.evidence.text and "optimizer.lr" in finding.remedy
    assert parting(a, a, other={"seed": 2}) == []


def test_only_steps_that_both_have_are_compared():
    a = signals()
    short = {name: values[:90] for name, values in changed(a, ["loss"], 120).items()}
    assert parting(a, short) == []
    coarse = {"loss": (np.arange(0, N, 7), changed(a, ["loss"], 100)["loss"][::7])}
    (finding,) = parting(a, coarse)
    assert finding.first_step == 105


def test_the_loss_is_found_by_its_role_under_another_name():
    a = signals()
    (finding,) = parting({"loss": a["loss"]}, {"train/loss": a["loss"] * np.where(np.arange(N) < 30, 1, 2)})
    assert finding.first_step == 30


def test_nothing_in_common_is_said():
    (finding,) = parting({"loss": falling(50)}, {"weather": np.ones(50)})
    assert finding.severity == "note" and "no signal in common" in finding.title


@pytest.mark.parametrize("values", [np.full(N, np.nan), np.full(N, np.inf), np.zeros(N), np.full(N, 3e38)])
def test_hostile_values_do_not_raise(values):
    (finding,) = parting({"loss": falling(N)}, {"loss": values})
    assert np.isfinite(finding.evidence.numbers["relative"])


def test_a_single_run_is_not_judged_and_two_are():
    a = run_of(signals())
    alone = diagnose(a)
    assert "runs-differ" not in alone.judged
    against = diagnose(a, against=run_of(changed(signals(), ["loss"], 40)))
    assert "runs-differ" in against.judged and any(f.kind == "runs-differ" for f in against.flat())
    assert "runs-differ" not in {one.kind for one in against.not_evaluable}


def test_it_can_be_explained():
    assert "--against" in explain("runs-differ").card.needs
