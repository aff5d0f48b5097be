"""MLflow's folder and database. The tests don't need MLflow: they write the files and the tables that it writes."""

import math
import os
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError
from thalweg.record.importing import Column, Imported, NameMap, import_runs, mlflow_store
from thalweg.record.importing.mlflow_store import accepts, read

T0 = 1_700_000_000_000
SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(256) NOT NULL UNIQUE);
CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR(250), status VARCHAR(9), start_time BIGINT,
  end_time BIGINT, lifecycle_stage VARCHAR(20), experiment_id INTEGER);
CREATE TABLE metrics (key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
  run_uuid VARCHAR(32) NOT NULL, step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL,
  PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));
CREATE TABLE params (key VARCHAR(250) NOT NULL, value VARCHAR(8000) NOT NULL, run_uuid VARCHAR(32) NOT NULL);
CREATE TABLE tags (key VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL);
"""


def columns_of(run: Imported) -> dict[str, Column]:
    return {column.name: column for column in run.parts[0].columns}


def folder_run(
    root: Path, run_id: str = "a" * 32, name: str = "my run", end: str = "null", rows: int = 50
) -> Path:
    folder = root / "mlruns" / "123" / run_id
    for part in ("metrics/val", "params", "tags", "artifacts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "meta.yaml").write_text(
        f"artifact_uri: file:///x\nend_time: {end}\nlifecycle_stage: active\nrun_id: {run_id}\nrun_name: {name}\n"
        f"start_time: {T0}\nstatus: 3\ntags: []\nuser_id: somebody\n"
    )
    values = [1 / (s + 1) for s in range(rows)]
    (folder / "metrics" / "loss").write_text("".join(f"{T0 + s} {v!r} {s}\n" for s, v in enumerate(values)))
    (folder / "metrics" / "val" / "acc").write_text(
        f"{T0 + 1} nan 1\n{T0 + 2} inf 2\n{T0 + 3} -inf 3\n{T0 + 4} 0.5 4\n"
    )
    (folder / "metrics" / "system").mkdir(exist_ok=True)
    (folder / "metrics" / "system" / "cpu").write_text(f"{T0} 7.0 0\n{T0 + 10_000} 8.0 1\n")
    (folder / "params" / "lr").write_text("0.1")
    (folder / "params" / "optimizer").write_text("sgd")
    (folder / "tags" / "mlflow.user").write_text("somebody")
    (folder / "tags" / "kind").write_text("night")
    return folder


def database_run(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.executescript(SCHEMA)
        db.execute("INSERT INTO runs VALUES('a1','my run','FINISHED',?,?,'active',1)", (T0, T0 + 9000))
        db.execute("INSERT INTO runs VALUES('b2','gone','FINISHED',?,?,'deleted',1)", (T0, T0 + 9000))
        rows = [("loss", 1 / (s + 1), T0 + s, "a1", s, 0) for s in range(50)]
        rows += [("loss", 3.0, T0, "b2", 0, 0)]
        odd = [(0.0, 1), (1.7976931348623157e308, 0), (-1.7976931348623157e308, 0), (0.5, 0)]
        rows += [("val/acc", value, T0 + s, "a1", s, nan) for s, (value, nan) in enumerate(odd, 1)]
        rows += [("system/cpu", 7.0 + s, T0 + 10_000 * s, "a1", s, 0) for s in range(2)]
        db.executemany("INSERT INTO metrics VALUES(?,?,?,?,?,?)", rows)
        db.executemany("INSERT INTO params VALUES(?,?,'a1')", [("lr", "0.1"), ("optimizer", "sgd")])
        db.executemany("INSERT INTO tags VALUES(?,?,'a1')", [("kind", "night"), ("mlflow.user", "somebody")])
    db.close()


@pytest.mark.parametrize("form", ["folder", "database"])
def test_values_settings_and_tags(tmp_path: Path, form: str) -> None:
    path = tmp_path / "mlflow.db"
    if form == "folder":
        folder_run(tmp_path, end=str(T0 + 9000))
        path = tmp_path / "mlruns"
    else:
        database_run(path)
    (run,) = read(path, NameMap())
    mine = columns_of(run)
    assert mine["loss"].values.tolist() == [1 / (s + 1) for s in range(50)]
    assert mine["loss"].steps.tolist() == list(range(50))
    assert mine["loss"].times is not None and mine["loss"].times[1] == (T0 + 1) / 1e3
    np.testing.assert_array_equal(mine["val/acc"].values, [math.nan, math.inf, -math.inf, 0.5])
    assert run.name == "my run" and run.config == {"lr": 0.1, "optimizer": "sgd"}
    assert run.tags == ["kind=night"] and "somebody" not in str(run)
    assert not run.warnings and not run.live and run.parts[0].ended == (T0 + 9000) / 1e3
    (opened,) = import_runs(path)
    assert opened["val/acc"].spec.role == "evaluation metric" and opened["system/cpu"].spec.clock == "samples"
    assert opened["loss"].spec.role == "train loss" and len(opened["loss"]) == 50


def test_a_resumption_replaces_what_was_logged_from_its_first_step_on(tmp_path: Path) -> None:
    folder = folder_run(tmp_path)
    with (folder / "metrics" / "loss").open("a") as file:
        file.writelines(f"{T0 + 5000 + s} 9.0 {s}\n" for s in range(40, 60))
    (run,) = import_runs(tmp_path / "mlruns")
    assert len(run.segments) == 2 and run["loss"].steps.tolist() == list(range(60))
    assert run["loss"].values.tolist()[39:42] == [np.float32(1 / 40), 9.0, 9.0]
    assert len(run["val/acc"]) == 4 and len(run["system/cpu"]) == 2


def test_several_runs_and_names_that_repeat(tmp_path: Path) -> None:
    for run_id, name in (("a" * 32, "x"), ("b" * 32, "x"), ("c" * 32, "<b>y[/]")):
        folder_run(tmp_path, run_id, name)
    assert [run.name for run in read(tmp_path, NameMap())] == ["x (aaaaaaaa)", "x (bbbbbbbb)", "<b>y[/]"]
    assert [run.name for run in import_runs(f"{tmp_path}::<b>y[/]")] == ["<b>y[/]"]


def test_how_sure_it_is(tmp_path: Path) -> None:
    folder = folder_run(tmp_path)
    for path in (tmp_path, tmp_path / "mlruns", folder.parent, folder):
        assert accepts(path) == 0.9
    assert accepts(folder / "metrics" / "loss") == accepts(folder / "metrics") == 0
    database_run(tmp_path / "mlflow.db")
    assert accepts(tmp_path / "mlflow.db") == 0.95
    (tmp_path / "other.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    assert accepts(tmp_path / "other.db") == 0


def test_broken_lines_and_one_that_is_being_written(tmp_path: Path) -> None:
    folder = folder_run(tmp_path, rows=3)
    with (folder / "metrics" / "loss").open("a") as file:
        file.write(
            f"text\n{T0} 1.0 x\n{T0} much 3\n{T0} 1.0 4 5\n{10**30} 1.0 6\n{T0 + 9} 0.25 7\n{T0 + 9} 0.12"
        )
    (run,) = import_runs(tmp_path / "mlruns")
    assert run["loss"].steps.tolist() == [0, 1, 2, 7] and run.live
    assert "6 values" in run.warnings[0]
    with (folder / "metrics" / "loss").open("a") as file:
        file.write("5 8\n")
    run.refresh()
    assert run["loss"].steps.tolist() == [0, 1, 2, 7, 8] and run["loss"].last == 0.125


def test_links_pipes_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="0 runs of MLflow"):
        list(read(tmp_path, NameMap()))
    folder = folder_run(tmp_path)
    (folder / "metrics" / "loop").symlink_to(folder, target_is_directory=True)
    (tmp_path / "mlruns" / "loop").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "metrics" / "pipe")
    (folder / "metrics" / "self").symlink_to(folder / "metrics" / "self")
    (run,) = read(tmp_path, NameMap())
    assert set(columns_of(run)) == {"loss", "val/acc", "system/cpu"}


def test_a_database_whose_rows_are_still_in_its_journal(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    database_run(file)
    db = sqlite3.connect(file)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("INSERT INTO metrics VALUES('loss', 7.0, ?, 'a1', 50, 0)", (T0 + 50,))
    db.commit()
    before = {path.name for path in tmp_path.iterdir()}
    (run,) = read(file, NameMap())
    assert columns_of(run)["loss"].steps[-1] == 50
    assert {path.name for path in tmp_path.iterdir()} == before
    db.close()


def test_a_view_in_a_tables_place_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        db.execute("CREATE TABLE runs (run_uuid)")
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS run_uuid, x AS key FROM n"
        db.execute(f"CREATE VIEW metrics AS {endless}")
    db.close()
    with pytest.raises(RunFileError, match="without a table 'metrics'"):
        list(read(tmp_path / "mlflow.db", NameMap()))


def fuzz(tmp_path: Path, seeds: range) -> None:
    folder = folder_run(tmp_path / "f")
    database_run(tmp_path / "model.db")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    contents = {file: file.read_bytes() for file in files}
    database = (tmp_path / "model.db").read_bytes()
    target = tmp_path / "mlflow.db"
    read = 0
    for seed in seeds:
        rng = random.Random(seed)
        if seed % 2:
            target.write_bytes(mutated(database, rng, shift=seed % 4 == 1))
            read += read_or_refused(target, mlflow_store)
        else:
            file = rng.choice(files)
            file.write_bytes(mutated(contents[file], rng))
            read += read_or_refused(tmp_path / "f", mlflow_store)
            file.write_bytes(contents[file])
    assert read > len(seeds) // 3


def test_fuzz(tmp_path: Path) -> None:
    fuzz(tmp_path, range(300))


@pytest.mark.slow
def test_fuzz_long(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 11_000))
