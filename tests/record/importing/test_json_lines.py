"""JSON Lines, arrays of objects, objects of lists; broken lines."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError
from thalweg.record import open_run
from thalweg.record.importing import import_runs, json_lines


def lines(count=20):
    return [
        json.dumps(
            {
                "step": s,
                "train": {"loss": 2 - s / 50, "lr": 1e-3},
                "time": 1.7e9 + s,
                "run": "a",
                "tags": ["x"],
            }
        )
        for s in range(count)
    ]


def test_nested_names_steps_times_and_settings(tmp_path):
    (tmp_path / "m.jsonl").write_text("\n".join(lines()))
    run = open_run(tmp_path / "m.jsonl")
    assert run.names() == ["train/loss", "train/lr"]
    assert run.by_role("train loss").steps.tolist() == list(range(20))
    assert run["train/loss"].times[3] == 1.7e9 + 3
    assert run.config == {"run": "a"}


def test_broken_lines_are_counted_and_a_half_written_last_one_is_said(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join([*lines(5), '{"step": 5, "train"']))
    run = open_run(path)
    assert len(run["train/loss"]) == 5
    assert any("half written" in text for text in run.warnings)
    path.write_text("\n".join([*lines(5), "broken", "[1]", *lines(9)[5:]]))
    run = open_run(path)
    assert len(run["train/loss"]) == 9
    assert any("1 lines are no JSON" in text and "line 6" in text for text in run.warnings)


def test_it_grows(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines(3)) + "\n")
    run = open_run(path)
    assert run.live
    with path.open("a") as file:
        file.write("\n".join(lines(6)[3:]))
    assert len(run.refresh()["train/loss"]) == 6


@pytest.mark.parametrize(
    ("value", "clock"),
    [
        ([{"iteration": 1, "loss": 2}, {"iteration": 2, "loss": 1}], "updates"),
        ({"loss": [2, 1], "val_loss": [3, 2]}, "rows"),
        ({"history": {"loss": [2, 1]}}, "rows"),
        ({"config": {"a": 1}, "log_history": [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}]}, "updates"),
        ({"1": {"loss": 2}, "2": {"loss": 1}}, "updates"),
    ],
)
def test_other_shapes_of_json(tmp_path, value, clock):
    (tmp_path / "h.json").write_text(json.dumps(value, indent=1))
    run = import_runs(tmp_path / "h.json", format="json-lines")[0]
    assert run["loss"].values.tolist() == [2, 1]
    assert run["loss"].spec.clock == clock


def test_numbers_no_float_holds(tmp_path):
    big = "9" * 400
    (tmp_path / "m.jsonl").write_text(
        f'{{"step": 1, "loss": {big}}}\n{{"step": 2, "loss": NaN}}\n{{"step": {big}, "loss": 1}}'
    )
    run = open_run(tmp_path / "m.jsonl")
    assert np.isinf(run["loss"].values[0]) and np.isnan(run["loss"].values[1])
    assert run["loss"].steps[:2].tolist() == [1, 2]


@pytest.mark.parametrize("text", ["", "{}", "1 2 3", "[[[[", "[" * 100_000, '{"a": {"b": []}}', "null"])
def test_what_holds_no_numbers_is_refused(tmp_path, text):
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(RunFileError):
        open_run(tmp_path / "m.jsonl")
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(RunFileError):
        open_run(tmp_path / "m.json")


def fuzz(path: Path, seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        text = (
            "\n".join(lines(rng.randint(1, 30)))
            if rng.random() < 0.7
            else json.dumps({"loss": [1, 2.5, None] * 5})
        )
        path.write_bytes(mutated(text.encode(), rng))
        read_or_refused(path, json_lines)


def test_broken_lines_are_read_or_refused(tmp_path):
    fuzz(tmp_path / "m.jsonl", range(150))
    fuzz(tmp_path / "m.json", range(150))


@pytest.mark.slow
def test_ten_thousand_broken_files(tmp_path):
    fuzz(tmp_path / "m.jsonl", range(300, 5_300))
    fuzz(tmp_path / "m.json", range(300, 5_300))
