"""Trainings that go wrong on purpose are found; the rest of the benchmark is in the slow set."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.diagnosis import exports, healthy, making, pathologies, pictures, scoring
from benchmarks.diagnosis.intervals import clopper_pearson, wilson

import thalweg as tw
from thalweg.diagnosis.pictures import picture_of

QUICK = (
    ("layer-not-given", ("mlp", "momentum")),
    ("deep-sigmoid", ("mlp", "sgd")),
    ("stepped-twice", ("mlp", "sgd")),
    ("clipped-far-too-tight", ("mlp", "sgd")),
)


def made(folder: Path, recipe: str, variant: tuple[str, str], seed: int = 0) -> tuple[Path, dict]:
    job = making.Job(recipe, variant, seed)
    truth = making.make_run(job, str(folder))
    return folder / f"{job.name}.tw", truth


@pytest.mark.parametrize(("recipe", "variant"), QUICK)
def test_a_training_that_goes_wrong_is_found_with_its_layer(tmp_path, recipe, variant):
    [score] = scoring.score_run(*made(tmp_path, recipe, variant), ())
    assert score.right, score.said
    assert score.layer_right in ((None,) if not score.truth["layers"] else (True,)), score.said
    assert score.failed == {}


def test_exports_hold_what_such_logs_hold_and_nothing_wrong_is_said_of_them(tmp_path):
    path, truth = made(tmp_path, *QUICK[2])
    run = tw.open_run(path)
    for form in exports.FORMS:
        exported = tw.open_run(exports.export(run, form, tmp_path / form, truth["updates_an_epoch"]))
        loss = exported.by_role("train loss")
        evaluation = exported.by_role("evaluation loss")
        assert len(loss) == (40 if form == "trainer_state" else 400)
        assert np.isclose(np.mean(loss.values), run["loss"].values.mean(), rtol=1e-4)
        assert np.allclose(evaluation.values, run["eval/loss"].values, rtol=1e-4)
        assert len(exported.names()) <= 6
    for score in scoring.score_run(path, truth, exports.FORMS):
        assert score.wrong == (), (score.form, score.said)


def test_every_recipe_can_be_made_and_the_test_has_five_runs_of_each():
    for recipe in pathologies.RECIPES.values():
        for variant in recipe.variants:
            training, layers = pathologies.make(recipe.name, variant, 0)
            modules = {name for name, _ in training.model.named_modules()}
            assert set(layers.split()) <= modules
    names = [job.name for job in making.jobs("test")]
    assert len(set(names)) == len(names) == 5 * len(pathologies.RECIPES)
    assert len(making.jobs("healthy")) == healthy.TEST == 200
    tested = {job.seed for part in ("test", "healthy") for job in making.jobs(part)}
    assert not tested & {job.seed for job in making.jobs("dev")}


def test_healthy_runs_vary_and_their_number_decides_them():
    drawn = [healthy.make(n) for n in range(40)]
    assert {t.network for t in drawn} == set(healthy.NETWORKS)
    assert {t.optimizer for t in drawn} == set(healthy.OPTIMIZERS)
    assert all(100 <= t.steps <= 2000 for t in drawn)
    again = healthy.make(7)
    assert (again.rate, again.steps, again.config) == (drawn[7].rate, drawn[7].steps, drawn[7].config)


def test_intervals_are_those_of_the_textbooks():
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert clopper_pearson(0, 200) == pytest.approx((0.0, 0.01828), abs=1e-4)
    assert clopper_pearson(2, 200) == pytest.approx((0.00121, 0.03565), abs=1e-4)


def test_thinning_keeps_the_spike_and_what_is_not_finite():
    values = np.ones(10_000)
    values[[4321, 7000]] = 50.0, np.nan
    steps, kept = pictures.thinned(np.arange(10_000), values)
    assert len(steps) <= pictures.POINTS
    assert kept[steps.index(4321)] == 50.0
    assert kept[steps.index(7000)] is None


def test_every_picture_is_small_and_shows_both_sides():
    files = sorted(pictures.FOLDER.glob("*.json"))
    assert len(files) >= 36
    for file in files:
        picture = picture_of(file.stem)
        assert picture is not None
        assert file.stat().st_size < 20_000
        assert list(picture["sick"]["signals"]) and picture["healthy"]["signals"], file.stem
        for side in ("sick", "healthy"):
            for steps, values in picture[side]["signals"].values():
                assert len(steps) == len(values) <= pictures.POINTS


@pytest.mark.slow
def test_nine_tenths_of_the_development_runs_are_right(tmp_path):
    making.make_all(making.jobs("dev"), tmp_path)
    scores = scoring.score_all([tmp_path], ())
    sick = [s for s in scores if s.truth["kinds"]]
    well = [s for s in scores if not s.truth["kinds"]]
    assert sum(s.right for s in sick) >= 0.9 * len(sick), [s.record() for s in sick if not s.right]
    assert sum(not s.right for s in well) <= 0.01 * len(well) + 1
    assert all(not s.failed for s in scores)
