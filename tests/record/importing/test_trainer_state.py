"""States of the Hugging Face Trainer: what its numbers mean, which of several states is read, what damage says."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError
from thalweg.record import open_run
from thalweg.record.importing import import_runs, trainer_state


def history(updates=100, every=10, peak=1e-3, *, shift=0):
    """Rows as the Trainer writes them, with a linear warm-up of half the run; shift 1 is how recent versions log."""
    rows = []
    for step in range(every, updates + 1, every):
        rate = peak * (step - shift) / (updates // 2) if step <= updates // 2 else peak
        rows.append(
            {
                "loss": 3.0 - step / 100,
                "grad_norm": 1.0,
                "learning_rate": rate,
                "epoch": step / 50,
                "step": step,
            }
        )
        if step % 50 == 0:
            rows.append(
                {"eval_loss": 2.5, "eval_runtime": 9.0, "eval_wer": 30.0, "epoch": step / 50, "step": step}
            )
    end = {"train_loss": 2.7, "train_runtime": 60.0, "total_flos": 1e12, "epoch": 2.0, "step": updates}
    return [*rows, end]


def state(rows, **more):
    return json.dumps({"log_history": rows, "max_steps": 100, "global_step": 100, "best_metric": 2.5, **more})


def test_losses_are_means_rates_are_not_and_the_last_row_is_a_summary(tmp_path):
    (tmp_path / "trainer_state.json").write_text(state(history()))
    (tmp_path / "all_results.json").write_text('{"eval_accuracy": 0.8}')
    run = open_run(tmp_path)
    assert run["loss"].spec.role == "train loss"
    assert run["loss"].spec.window == 10 and "mean" in run["loss"].spec.estimator
    assert run["loss"].steps.tolist() == list(range(10, 101, 10))
    assert run.by_role("evaluation loss").name == "eval_loss"
    assert run["eval_wer"].spec.role == "evaluation metric"
    assert run["grad_norm"].spec.window == run["learning_rate"].spec.window == 1
    assert "train_loss" not in run
    assert run.summary["train_loss"] == 2.7
    assert run.summary["best_metric"] == 2.5
    assert run.summary["eval_accuracy"] == 0.8
    assert run.warnings == []


@pytest.mark.parametrize(("shift", "said"), [(0, "of the next update"), (1, "of the update just made")])
def test_which_update_a_rate_is_of(tmp_path, shift, said):
    (tmp_path / "trainer_state.json").write_text(state(history(shift=shift)))
    assert open_run(tmp_path)["learning_rate"].spec.estimator == said


def test_a_rate_that_ends_in_zero_is_the_next_one(tmp_path):
    rows = [{"loss": 1.0, "learning_rate": 1e-3 * (1 - s / 100) ** 2, "step": s} for s in range(10, 101, 10)]
    (tmp_path / "trainer_state.json").write_text(state(rows))
    assert open_run(tmp_path)["learning_rate"].spec.estimator == "of the next update"


def test_the_longest_history_of_a_folder_is_read_and_the_newest_of_equals(tmp_path):
    for step in (100, 200, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
        rows = [{"loss": float(s), "step": s} for s in range(10, step + 1, 10)]
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state(rows))
    assert open_run(tmp_path)["loss"].steps[-1] == 1000
    (tmp_path / "checkpoint-1000" / "trainer_state.json").write_text('{"log_history": [')
    run = open_run(tmp_path)
    assert run["loss"].steps[-1] == 200
    assert any("checkpoint-1000" in text for text in run.warnings)


def test_a_folder_of_output_folders_holds_several_runs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(state(history()))
    assert [run.name for run in import_runs(tmp_path)] == ["a", "b"]
    assert open_run(f"{tmp_path}::b").name == "b"
    with pytest.raises(RunFileError, match=r"holds 2 runs.*a, b"):
        open_run(tmp_path)
    with pytest.raises(RunFileError, match="no run named 'c'"):
        open_run(f"{tmp_path}::c")


def test_numbers_in_every_dress_and_other_names(tmp_path):
    rows = [
        {"loss": float("nan"), "step": 1, "rewards/margins": 0.1, "num_input_tokens_seen": 20_000_001},
        {"loss": "Infinity", "step": 2, "rewards/margins": "0.2", "num_input_tokens_seen": 40_000_003},
        {"loss": "1.5", "step": 3, "eval_squad_loss": 2.0, "nested": {"deep": {"x": 1}}},
        {"predict_loss": 1.0, "epoch": 1.0},
        "no row",
    ]
    (tmp_path / "trainer_state.json").write_text(state(rows))
    run = open_run(tmp_path)
    assert (
        np.isnan(run["loss"].values[0]) and np.isinf(run["loss"].values[1]) and run["loss"].values[2] == 1.5
    )
    assert run.by_role("tokens").values.tolist() == [20_000_001, 40_000_003]
    assert run["predict_loss"].steps.tolist() == [3]
    assert run["nested/deep/x"].last == 1
    assert any("no rows" in text for text in run.warnings)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"log_history": 3}', "null", '{"log_history": []}', "\x00\xff"]
)
def test_what_is_no_state_is_refused(tmp_path, text):
    path = tmp_path / "trainer_state.json"
    path.write_text(text)
    with pytest.raises(RunFileError, match=r"trainer_state\.json"):
        open_run(path)


def fuzz(path: Path, seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        rows = history(rng.choice((10, 50, 200)), rng.choice((1, 5, 10)))
        path.write_bytes(mutated(state(rows).encode(), rng))
        read_or_refused(path, trainer_state)


def test_broken_states_are_read_or_refused(tmp_path):
    fuzz(tmp_path / "trainer_state.json", range(300))


@pytest.mark.slow
def test_ten_thousand_broken_states(tmp_path):
    fuzz(tmp_path / "trainer_state.json", range(300, 10_300))
