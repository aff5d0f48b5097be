"""What a point costs on disk, in time and in memory: the figures the format promises."""

import tracemalloc

import numpy as np
import pytest

from thalweg.record import Recorder, compaction, open_run

NAMES = [f"group/signal{i}" for i in range(100)]


def written(path, seconds, count=1000, names=NAMES):
    """A run of steps that take so long, flushed as often as a recorder of half a second would."""
    rng = np.random.default_rng(0)
    recorder = Recorder(path, flush_every=600)
    values = rng.lognormal(size=(count, len(names))).tolist()
    clock, flushed = 1.7e9, 0.0
    for step in range(count):
        clock += seconds * rng.uniform(0.9, 1.2)
        recorder.log(dict(zip(names, values[step], strict=True)), step, time=clock)
        if clock - flushed > 0.5:
            recorder.flush()
            flushed = clock
    recorder.flush()
    return recorder, values


@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_a_point_costs_little_while_open_and_less_when_closed(tmp_path, seconds):
    recorder, values = written(tmp_path / "a.tw", seconds)
    assert recorder.path.stat().st_size <= 4.6 * 100_000
    recorder.close()
    assert recorder.path.stat().st_size <= 3.9 * 100_000
    run = open_run(recorder.path)
    assert np.array_equal(run[NAMES[3]].values, np.array(values, np.float32)[:, 3])


def test_small_runs_stay_small(tmp_path):
    for signals, steps, limit in ((1, 1000, 16), (10, 100, 16), (10, 1000, 6)):
        recorder, _ = written(tmp_path / f"{signals}-{steps}.tw", 1.0, steps, NAMES[:signals])
        recorder.close()
        assert recorder.path.stat().st_size <= limit * signals * steps + 4096


def test_a_million_points_of_one_signal_are_read_back(tmp_path):
    recorder = Recorder(tmp_path / "a.tw", flush_every=600)
    values = np.random.default_rng(0).lognormal(size=1_000_000).astype(np.float32)
    times = 1.7e9 + np.cumsum(np.random.default_rng(1).uniform(0.001, 0.002, 1_000_000))
    recorder.extend(["loss"], np.arange(1_000_000), values, times=times)
    recorder.close(timeout=30)
    series = open_run(recorder.path)["loss"]
    assert np.array_equal(series.values, values) and np.array_equal(series.steps, np.arange(1_000_000))
    assert np.abs(series.times - times).max() < 1e-6


def test_a_fast_loop_loses_nothing(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    rows = np.random.default_rng(0).random((500, 100)).tolist()
    rows = [dict(zip(NAMES, row, strict=True)) for row in rows]
    for step in range(5000):
        recorder.log(rows[step % 500], step)
    recorder.close()
    assert recorder.dropped == 0


def test_compaction_streams(tmp_path, monkeypatch):
    """Memory for compacting doesn't grow with the file, and chunks of every size give the same values."""
    monkeypatch.setattr(compaction, "BUFFER_BYTES", 1 << 18)
    monkeypatch.setattr(compaction, "CHUNK_ROWS", 700)
    recorder = Recorder(tmp_path / "a.tw", flush_every=600)
    block = np.random.default_rng(0).random((1000, 100), dtype=np.float32)
    for turn in range(20):
        recorder.extend(NAMES, np.arange(1000) * 20 + turn, block + turn)
        recorder.flush()
    tracemalloc.start()
    recorder.close(timeout=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20, "of a file of 8 MB"
    series = open_run(recorder.path)[NAMES[7]]
    assert np.array_equal(series.steps, np.arange(20_000))
    assert np.array_equal(series.values.reshape(1000, 20), block[:, 7:8] + np.arange(20, dtype=np.float32))


def test_signals_that_are_logged_now_and_then_are_compacted_too(tmp_path):
    """Sets of names that overlap: each signal has rows of its own, and all of them come back in order."""
    rng = np.random.default_rng(0)
    recorder = Recorder(tmp_path / "a.tw", flush_every=600)
    expected = {}
    for step in range(400):
        row = {name: float(step) for name in NAMES[:12] if rng.random() < 0.3}
        recorder.log(row, step)
        for name in row:
            expected.setdefault(name, []).append(step)
        if step % 50 == 0:
            recorder.flush()
    recorder.close()
    run = open_run(recorder.path)
    assert {name: run[name].steps.tolist() for name in run.names()} == expected
    assert all(np.array_equal(run[name].values, run[name].steps) for name in expected)


@pytest.mark.slow
def test_a_million_steps_take_flat_memory(tmp_path):
    recorder = Recorder(tmp_path / "a.tw", flush_every=0.1)
    tracemalloc.start()
    marks = []
    for step in range(1_000_000):
        recorder.log({"loss": 1.0, "lr": 0.1}, step)
        if step % 100_000 == 50_000:
            recorder.flush(20)
            marks.append(tracemalloc.get_traced_memory()[0])
    assert max(marks[2:]) < marks[1] + (1 << 20)
    tracemalloc.stop()
    recorder.close(timeout=60)
    assert len(open_run(recorder.path)["loss"]) == 1_000_000
