"""Listings, exports, and old versions."""

import csv
import json
import os
import re
import shutil
import sqlite3
import time
from dataclasses import asdict

import numpy as np
import pytest

from thalweg.core.errors import RunFileError
from thalweg.record import Recorder, export_csv, export_parquet, next_segment_path, open_run, open_runs
from thalweg.record.codecs import put_ints, put_planes, put_varint
from thalweg.record.frames import BLOCK, DECLARE, END, LAYOUT, START, file_header, make_frame
from thalweg.record.payloads import LayoutSpec, put_block, put_declarations, put_json, put_layout
from thalweg.record.signals import SignalSpec
from thalweg.record.sqlitefile import TABLES


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(["cnn-a", "cnn-b", "gpt"]):
        with Recorder(
            tmp_path / "runs" / f"{name}.tw", config={"lr": index / 10}, tags=["old"] * (index == 0)
        ) as rec:
            for step in range(10 * (index + 1)):
                rec.log({"loss": 3.0 - index, "tokens": step}, step)
            rec.set_meta("summary", {"final": index})
    return tmp_path / "runs"


def test_a_listing_says_of_each_run_what_it_is(folder):
    (folder / "note.txt").write_text("not a run")
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(folder / "gpt.tw", folder / "deep" / "er" / "gpt.tw")
    (folder / "junk.tw").write_bytes(b"junk")
    live = Recorder(folder / "live.tw")
    live.log({"loss": 0.25}, 7)
    live.flush()
    runs = open_runs(folder)
    assert [r.name for r in runs] == ["cnn-a", "cnn-b", "gpt", "gpt", "live"]
    assert len(open_runs(folder, recursive=False)) == 4
    assert any("junk.tw" in text for text in runs.warnings)
    row = runs[0]
    assert (row.steps, row.last_loss, row.signals, row.points, row.reason) == (9, 3.0, 2, 20, "closed")
    assert (row.tags, row.summary, row.config) == (["old"], {"final": 0}, {"lr": 0.0})
    assert row.bytes == (folder / "cnn-a.tw").stat().st_size
    assert row.started <= row.ended <= time.time()
    now = runs[-1]
    assert (now.live, now.reason, now.ended, now.steps, now.last_loss, now.points) == (
        True,
        "",
        None,
        7,
        0.25,
        1,
    )
    assert runs.load(0)["loss"].last == 3.0
    live.close()


def test_conditions_and_frames(folder):
    runs = open_runs(folder)
    assert [r.name for r in runs.where(name="cnn-*")] == ["cnn-a", "cnn-b"]
    assert [r.name for r in runs.where(lambda r: r.steps > 10, lr=0.1)] == ["cnn-b"]
    assert [r.name for r in runs.where(tags="old")] == ["cnn-a"]
    assert [r.name for r in runs.where(last_loss=lambda x: x < 2)] == ["gpt"]
    assert len(runs.where(batch=3)) == 0
    assert [r.name for r in runs[1:]] == ["cnn-b", "gpt"]
    frame = runs.frame()
    assert frame["steps"].tolist() == [9, 19, 29]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RunFileError, match="no such folder"):
        open_runs(tmp_path / "x")


def test_the_listing_of_an_open_log_reads_its_end_only(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.tw", flush_every=60)
    recorder.set_meta("summary", {"best": 1})
    block = np.random.default_rng(0).random((5000, 100), dtype=np.float32)
    names = ["loss", *(f"s{i}" for i in range(99))]
    for turn in range(8):
        recorder.extend(names, np.arange(turn * 5000, (turn + 1) * 5000), block)
        recorder.flush()
    recorder.log({"loss": 9.0}, 40_000)
    recorder.flush()
    read = 0
    pread = os.pread

    def counted(fd, size, at):
        nonlocal read
        out = pread(fd, size, at)
        read += len(out)
        return out

    monkeypatch.setattr(os, "pread", counted)
    (row,) = open_runs(tmp_path)
    assert (row.steps, row.points, row.summary, row.live) == (40_000, 8 * 500_000 + 1, {"best": 1}, True)
    assert read < 12 << 20 < recorder.path.stat().st_size
    monkeypatch.undo()
    exact = asdict(row)
    recorder.close()
    (row,) = open_runs(tmp_path)
    assert (row.steps, row.points, row.signals, row.last_loss) == (
        40_000,
        exact["points"],
        exact["signals"],
        9.0,
    )


def test_a_thousand_files_are_listed_in_either_form(tmp_path):
    with Recorder(tmp_path / "r.tw", config={"a": 1}) as recorder:
        for step in range(200):
            recorder.log({f"s{i}": 1.0 for i in range(20)}, step)
    closed = recorder.path.read_bytes()
    for index in range(500):
        (tmp_path / f"c{index}.tw").write_bytes(closed)
    recorder = Recorder(tmp_path / "log.tw", flush_every=60)
    for step in range(200):
        recorder.log({f"s{i}": 1.0 for i in range(20)}, step)
    recorder.flush()
    log = recorder.path.read_bytes()
    recorder.close()
    for index in range(500):
        (tmp_path / f"l{index}.tw").write_bytes(log)
    runs = open_runs(tmp_path)
    assert sum(row.bytes for row in runs) > 1000 * min(len(closed), len(log)) * 0.99


def test_csv_parquet_and_frame_hold_every_value(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        for step in range(5):
            recorder.log({"loss": step / 4, "v": [[1.0, 2.0], [3.0, step]]}, step, time=100.5 + step)
        recorder.log({'late, "quoted"': float("nan")}, 9)
    run = open_run(recorder.path)
    with export_csv(run, tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 + 20 + 1
    losses = [r for r in rows if r["signal"] == "loss"]
    assert [(int(r["step"]), float(r["value"]), float(r["time"])) for r in losses] == [
        (s, s / 4, 100.5 + s) for s in range(5)
    ]
    assert [(r["index"], float(r["value"])) for r in rows if r["signal"] == "v" and r["step"] == "4"] == [
        ("0,0", 1.0),
        ("0,1", 2.0),
        ("1,0", 3.0),
        ("1,1", 4.0),
    ]
    import pandas as pd

    table = pd.read_parquet(export_parquet(run, tmp_path / "a.parquet"))
    assert len(table) == len(rows)
    assert np.array_equal(table["value"], [float(r["value"]) for r in rows], equal_nan=True)
    assert table["signal"].tolist() == [r["signal"] for r in rows]
    assert table["index"].tolist() == [r["index"] for r in rows]
    frame = run.frame()
    assert list(frame.columns) == ['late, "quoted"', "loss"]
    assert frame["loss"].dropna().tolist() == [s / 4 for s in range(5)]
    assert run.frame(["loss"]).shape == (5, 1)
    export_csv(run, tmp_path / "b.csv", ["loss"])
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 6


def test_a_closed_file_of_version_0(tmp_path):
    """By hand: "stopped" for "ended", no formula, window, estimator or version."""
    path = tmp_path / "old.tw"
    db = sqlite3.connect(path)
    old = TABLES.replace("user_version = 1", "user_version = 0").replace("ended REAL", "stopped REAL")
    old = re.sub(r", formula TEXT.*?UNIQUE\([^)]*\)", "", old, flags=re.DOTALL)
    db.executescript(old)
    db.executemany(
        "INSERT INTO meta VALUES(?, ?)", [("run_id", '"abc"'), ("name", '"old"'), ("config", '{"lr": 1}')]
    )
    db.execute("INSERT INTO segments VALUES(0, 0, 1, 0, 10.0, 20.0, 'closed')")
    db.execute("INSERT INTO clocks VALUES(0, 'updates')")
    db.execute(
        "INSERT INTO signals VALUES(1, 'loss', 'train loss', 0, '', '', 'float32', '[]', 'raw', 'mean')"
    )
    steps, values = np.arange(4), np.array([4, 3, 2, 1], np.float32)
    chunk = (1, 0, 0, 0, 3, 4, "planes", put_varint(0) + put_ints(steps), put_planes(values))
    db.execute("INSERT INTO chunks VALUES(?,?,?,?,?,?,?,?,?)", chunk)
    db.commit()
    db.close()
    run = open_run(path)
    assert run["loss"].values.tolist() == [4, 3, 2, 1]
    assert run["loss"].spec == SignalSpec(name="loss", role="train loss", stage="raw", reduce="mean")
    assert (run.name, run.config, run.segments[0].ended) == ("old", {"lr": 1}, 20.0)
    (row,) = open_runs(tmp_path)
    assert (row.ended, row.id) == (20.0, "abc")


def test_a_log_of_version_0(tmp_path):
    """By hand: "id" for "run_id", "stopped" for "ended"."""
    path = tmp_path / "old.tw"
    start = {
        "id": "abc",
        "segment": 0,
        "first_step": 0,
        "rank": 0,
        "world": 1,
        "started": 10.0,
        "meta": {"name": "old"},
    }
    values = np.array([[4, 3, 2, 1]], np.float32)
    frames = [
        make_frame(START, put_json(start)),
        make_frame(DECLARE, put_declarations([(0, SignalSpec(name="loss"))])),
        make_frame(LAYOUT, put_layout(LayoutSpec(0, "updates", "float32", (), (0,)))),
        make_frame(BLOCK, put_block(0, np.arange(4), 10**6 * np.arange(4), values)),
        make_frame(
            END, put_json({"stopped": 20.0, "reason": "closed", "steps": {"updates": 3}, "points": 4})
        ),
    ]
    path.write_bytes(file_header(0) + b"".join(frames))
    run = open_run(path)
    assert (run.id, run.name, run.segments[0].ended, run.live) == ("abc", "old", 20.0, False)
    assert run["loss"].values.tolist() == [4, 3, 2, 1]
    (row,) = open_runs(tmp_path)
    assert (row.id, row.ended, row.steps, row.points) == ("abc", 20.0, 3, 4)


def test_newer_versions_are_refused_in_words(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log({"x": 1.0}, 0)
    db = sqlite3.connect(recorder.path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    (tmp_path / "b.tw").write_bytes(file_header(9) + make_frame(START, put_json({"run_id": "x"})))
    for name in ("a.tw", "b.tw"):
        with pytest.raises(RunFileError, match=r"newer Thalweg.*upgrade"):
            open_run(tmp_path / name)
    runs = open_runs(tmp_path)
    assert len(runs) == 0 and len(runs.warnings) == 2


def test_unknown_columns_codecs_and_notes_are_tolerated(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log({"x": 1.0, "y": 2.0, "z": 3.0}, 0)
    db = sqlite3.connect(recorder.path)
    db.execute("ALTER TABLE signals ADD COLUMN colour TEXT")
    db.execute("ALTER TABLE segments ADD COLUMN mood TEXT DEFAULT 'good'")
    db.execute("CREATE TABLE later(a, b)")
    db.execute("UPDATE chunks SET codec = 'zstd' WHERE signal = (SELECT id FROM signals WHERE name = 'y')")
    db.execute("UPDATE signals SET dtype = 'bfloat16' WHERE name = 'z'")
    db.execute("INSERT INTO meta VALUES('odd', '{')")
    db.commit()
    db.close()
    run = open_run(recorder.path)
    assert run["x"].values.tolist() == [1]
    assert len(run["y"]) == 0
    assert "z" not in run
    text = " ".join(run.warnings)
    assert "zstd" in text and "bfloat16" in text and "odd" in text


def test_later_additions_to_a_log_are_tolerated(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.log({"x": 1.0}, 0)
    recorder.flush()
    extra = make_frame(200, b"something new") + make_frame(
        DECLARE, put_json([{"id": 9, "name": "n", "colour": "red"}])
    )
    (tmp_path / "b.tw").write_bytes(recorder.path.read_bytes() + extra)
    recorder.close()
    run = open_run(tmp_path / "b.tw")
    assert run["x"].values.tolist() == [1] and run.warnings == []


def test_plots_are_figures(folder):
    run = open_run(folder / "gpt.tw")
    assert json.loads(run.plot().to_json())["data"]
    assert json.loads(run["loss"].plot().to_json())["data"]
    second = Recorder(next_segment_path(run.path), run_id=run.id, segment=1, first_step=5)
    second.log({"grad/norm/a": 1.0, "grad/norm/b": 2.0}, 5)
    second.close()
    assert json.loads(run.refresh().plot("grad/norm").to_json())["data"]
