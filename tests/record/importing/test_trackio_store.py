"""Trackio's database. The tests don't need Trackio: they write the tables that it writes, of today and of its first days."""

import json
import math
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError
from thalweg.record.importing import Column, Imported, NameMap, import_runs, trackio_store
from thalweg.record.importing.trackio_store import accepts, read

ROW = "id INTEGER PRIMARY KEY AUTOINCREMENT, {ids}timestamp TEXT NOT NULL, run_name TEXT NOT NULL, "
SCHEMA = f"""
CREATE TABLE metrics ({ROW}step INTEGER NOT NULL, metrics TEXT NOT NULL);
CREATE TABLE system_metrics ({ROW}metrics TEXT NOT NULL);
CREATE TABLE configs (id INTEGER PRIMARY KEY AUTOINCREMENT, {{ids}}run_name TEXT NOT NULL, config TEXT NOT NULL,
  created_at TEXT NOT NULL);
"""


def columns_of(run: Imported) -> dict[str, Column]:
    return {column.name: column for column in run.parts[0].columns}


def moment(second: int) -> str:
    return f"2026-01-01T00:{second // 60 % 60:02}:{second % 60:02}.500000+00:00"


def project(file: Path, runs: dict[str, str], *, ids: bool = True, rows: int = 50) -> None:
    """A database with runs, id -> name."""
    with sqlite3.connect(file) as db:
        db.executescript(SCHEMA.replace("{ids}", "run_id TEXT NOT NULL, " if ids else ""))
        for run_id, name in runs.items():
            head, mark = ((run_id,), "?,") if ids else ((), "")
            column = "run_id, " if ids else ""
            for step in range(rows):
                row = {"loss": 1 / (step + 1), "val": {"acc": step}, "text": "hi", "ok": True, "n": "12"}
                row |= {"loss": ["NaN", "Infinity", "-Infinity"][step - 3]} if step in (3, 4, 5) else {}
                row |= {"image": {"_type": "trackio.image", "size": 9}}
                db.execute(
                    f"INSERT INTO metrics({column}timestamp, run_name, step, metrics) VALUES({mark}?,?,?,?)",
                    (*head, moment(step), name, step, json.dumps(row).encode()),
                )
            for second in (0, 10):
                db.execute(
                    f"INSERT INTO system_metrics({column}timestamp, run_name, metrics) VALUES({mark}?,?,?)",
                    (*head, moment(second), name, json.dumps({"gpu": {"0": second / 2}})),
                )
            db.execute(
                f"INSERT INTO configs({column}run_name, config, created_at) VALUES({mark}?,?,?)",
                (*head, name, json.dumps({"lr": 0.1, "a": {"b": 1}, "_Username": "somebody"}), moment(0)),
            )
    db.close()


@pytest.mark.parametrize("ids", [True, False])
def test_values_settings_and_the_machine(tmp_path: Path, ids: bool) -> None:
    project(tmp_path / "proj.db", {"a1": "first", "b2": "second"}, ids=ids)
    first, second = read(tmp_path / "proj.db", NameMap())
    assert (first.name, second.name) == ("first", "second") and first.tags == ["proj"]
    expected = [1 / (s + 1) for s in range(50)]
    expected[3:6] = math.nan, math.inf, -math.inf
    mine = columns_of(first)
    np.testing.assert_array_equal(mine["loss"].values, expected)
    assert set(mine) == {"loss", "val/acc", "ok", "system/gpu/0"}
    assert mine["loss"].steps.tolist() == list(range(50))
    assert mine["loss"].times is not None and mine["loss"].times[7] == 1767225607.5
    assert mine["system/gpu/0"].steps.tolist() == [0, 9] or mine["system/gpu/0"].steps.tolist() == [0, 10]
    assert first.config == {"lr": 0.1, "a": {"b": 1}} and "somebody" not in str(first)
    opened = import_runs(f"{tmp_path / 'proj.db'}::second")[0]
    assert (
        opened["val/acc"].spec.role == "evaluation metric" and opened["system/gpu/0"].spec.clock == "seconds"
    )


def test_a_folder_of_projects_and_names_that_repeat(tmp_path: Path) -> None:
    project(tmp_path / "p.db", {"a1": "run"})
    project(tmp_path / "q.db", {"a1": "run", "b2": "[b]other<i>"})
    sqlite3.connect(tmp_path / "empty.db").close()
    assert (
        accepts(tmp_path) == 0.9
        and accepts(tmp_path / "p.db") == 0.95
        and accepts(tmp_path / "empty.db") == 0
    )
    assert [run.name for run in read(tmp_path, NameMap())] == ["p/run", "q/run", "[b]other<i>"]
    (tmp_path / "one").mkdir()
    project(tmp_path / "one" / "r.db", {"a1aaaaaaaa": "run", "b2bbbbbbbb": "run"})
    assert [run.name for run in read(tmp_path / "one", NameMap())] == ["run (a1aaaaaa)", "run (b2bbbbbb)"]


def test_a_run_that_goes_on_in_its_journal(tmp_path: Path) -> None:
    file = tmp_path / "p.db"
    project(file, {"a1": "run"})
    (run,) = import_runs(file)
    db = sqlite3.connect(file)
    db.execute("PRAGMA journal_mode=WAL")
    insert = "INSERT INTO metrics(run_id, timestamp, run_name, step, metrics) VALUES('a1', ?, 'run', ?, ?)"
    db.execute(insert, (moment(50), 50, '{"loss": 7}'))
    db.commit()
    run.refresh()
    assert run["loss"].steps[-1] == 50 and run["loss"].last == 7 and run.live
    db.close()


def test_a_rewind_is_a_resumption(tmp_path: Path) -> None:
    file = tmp_path / "p.db"
    project(file, {"a1": "run"})
    with sqlite3.connect(file) as db:
        insert = (
            "INSERT INTO metrics(run_id, timestamp, run_name, step, metrics) VALUES('a1', ?, 'run', ?, ?)"
        )
        db.executemany(insert, [(moment(100 + s), s, '{"loss": 9}') for s in range(40, 60)])
    db.close()
    (run,) = import_runs(file)
    assert len(run.segments) == 2 and run["loss"].steps.tolist() == list(range(60))
    assert run["loss"].values[40] == 9 and len(run["system/gpu/0"]) == 2


def test_broken_rows_and_nothing(tmp_path: Path) -> None:
    file = tmp_path / "p.db"
    project(file, {"a1": "run"}, rows=3)
    with sqlite3.connect(file) as db:
        insert = (
            "INSERT INTO metrics(run_id, timestamp, run_name, step, metrics) VALUES('a1', ?, 'run', ?, ?)"
        )
        for metrics in ("{", "[1]", "[" * 10_000, "3"):
            db.execute(insert, ("no time", 4, metrics))
        db.execute(insert, (moment(9), 7, '{"loss": 2}'))
    db.close()
    (run,) = read(file, NameMap())
    assert columns_of(run)["loss"].steps.tolist() == [0, 1, 2, 7]
    assert "4 rows" in run.warnings[-1]
    project(tmp_path / "none.db", {})
    with pytest.raises(RunFileError, match="no run of Trackio"):
        list(read(tmp_path / "none.db", NameMap()))
    (tmp_path / "zero").write_bytes(b"")
    with pytest.raises(RunFileError, match="without a table"):
        list(read(tmp_path / "zero", NameMap()))


def fuzz(tmp_path: Path, seeds: range) -> None:
    project(tmp_path / "model.db", {"a1": "first", "b2": "second"})
    model = (tmp_path / "model.db").read_bytes()
    target = tmp_path / "p.db"
    read = 0
    for seed in seeds:
        target.write_bytes(mutated(model, random.Random(seed), shift=seed % 4 == 0))
        read += read_or_refused(target, trackio_store)
    assert read > len(seeds) // 3


def test_fuzz(tmp_path: Path) -> None:
    fuzz(tmp_path, range(300))


@pytest.mark.slow
def test_fuzz_long(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 11_000))
