"""What was logged is what is read, from the log and from the closed file."""

import json
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core.errors import RunFileError, ThalwegWarning, UsageError
from thalweg.record import Recorder, Run, SignalSpec, blocks, compact, open_run
from thalweg.record.frames import MAGIC
from thalweg.record.sqlitefile import SQLITE_MAGIC


def content(run: Run):
    """Everything a reader can ask for, in a form that compares NaN as equal."""
    series = {}
    for name in run.names():
        one = run[name]
        parts = one.steps.tolist(), one.values.dtype.str, one.values.shape, one.values.tobytes()
        series[name] = (*parts, one.times.tolist(), one.spec)
    facts = run.id, run.name, run.config, run.tags, run.environment, run.summary, run.clocks
    return facts, series, run.events(), run.wall_time().times.tolist()


def both_forms(recorder):
    """The run read from its log, then from its closed file; checks that they say the same."""
    assert recorder.flush()
    run = open_run(recorder.path)
    assert recorder.path.read_bytes().startswith(MAGIC)
    before = content(run)
    assert run.warnings == []
    recorder.close()
    assert recorder.path.read_bytes().startswith(SQLITE_MAGIC)
    closed = open_run(recorder.path)
    assert content(closed) == before
    assert closed.warnings == []
    assert content(run.refresh()) == before
    return closed


def test_a_run_comes_back(tmp_path):
    recorder = Recorder(
        tmp_path / "first",
        name="first",
        config={"lr": 0.1, "sizes": (1, 2)},
        tags=["demo"],
        environment={"python": "3"},
    )
    for step in range(50):
        recorder.log({"loss": 1 / (step + 1), "lr": 0.1}, step, time=1000.0 + step / 8)
        if step % 10 == 0:
            recorder.log({"eval/loss": float(step), "lr": 0.1}, step, time=1000.0625 + step / 8)
    recorder.event("note", step=3, severity="warning", source="me", text="<b>bold</b>", array=np.arange(3))
    recorder.set_meta("summary", {"loss": 0.02})
    run = both_forms(recorder)
    assert recorder.path == tmp_path / "first.tw"
    assert (run.name, run.config, run.tags) == ("first", {"lr": 0.1, "sizes": [1, 2]}, ["demo"])
    assert (run.environment, run.summary) == ({"python": "3"}, {"loss": 0.02})
    assert run.names() == ["eval/loss", "loss", "lr"]
    assert run.names("*loss") == ["eval/loss", "loss"]
    assert "loss" in run and "acc" not in run
    loss = run["loss"]
    assert loss.steps.tolist() == list(range(50))
    assert np.array_equal(loss.values, (1 / np.arange(1, 51)).astype(np.float32))
    assert np.array_equal(loss.times, 1000 + np.arange(50) / 8)
    assert loss.last == np.float32(1 / 50)
    assert len(run["lr"]) == 50
    assert run.by_role("train loss").name == "loss"
    assert run.by_role("rate").name == "lr"
    (event,) = run.events("note")
    assert (event.step, event.severity, event.details) == (
        3,
        "warning",
        {"text": "<b>bold</b>", "array": [0, 1, 2]},
    )
    (part,) = run.segments
    assert (part.reason, part.live, part.rank, part.first_step) == ("closed", False, 0, 0)


def test_a_name_that_is_not_there_is_answered_with_close_ones(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log({"train/loss": 1.0, "lr": 0.1}, 0)
    run = open_run(recorder.path)
    with pytest.raises(KeyError, match="train/loss"):
        run["train/los"]
    with pytest.raises(KeyError, match="'rate', 'train loss'"):
        run.by_role("tokens")
    assert run.get("nothing") is None
    assert open_run(recorder.path, map={"loss": "train/loss"})["loss"].last == 1.0


NUMBER = st.floats(width=32) | st.integers(-(10**6), 10**6) | st.booleans()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**40), 2**60),
            st.dictionaries(st.sampled_from("abcd"), NUMBER, min_size=1),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_sequence_of_logs_survives(tmp_path_factory, calls):
    recorder = Recorder(tmp_path_factory.mktemp("run") / "a.tw", flush_every=60)
    expected: dict[str, dict[int, float]] = {}
    for number, (step, values, flush) in enumerate(calls):
        recorder.log(values, step, time=1000.0 + number)
        if flush:
            recorder.flush()
        for name, value in values.items():
            expected.setdefault(name, {})[step] = float(value)
    recorder.flush()
    live = content(open_run(recorder.path))
    recorder.close()
    run = open_run(recorder.path)
    assert content(run) == live
    assert set(run.names()) == set(expected)
    for name, rows in expected.items():
        assert run[name].steps.tolist() == sorted(rows)
        wanted = np.array([rows[step] for step in sorted(rows)], np.float32)
        assert run[name].values.tobytes() == wanted.tobytes()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_blocks_survive_bit_by_bit(tmp_path_factory, data):
    count, width = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 4))
    steps = np.array(data.draw(st.lists(st.integers(0, 2**62), min_size=count, max_size=count, unique=True)))
    numbers = data.draw(st.lists(st.floats(width=32), min_size=count * width, max_size=count * width))
    values = np.array(numbers, np.float32).reshape(count, width)
    times = np.array(data.draw(st.lists(st.integers(0, 4 * 10**15), min_size=count, max_size=count))) / 1e6
    recorder = Recorder(tmp_path_factory.mktemp("run") / "a.tw", flush_every=60)
    names = [f"s/{i}" for i in range(width)]
    recorder.extend(names, steps.copy(), values.copy(), times=times.copy())
    run = both_forms(recorder)
    order = np.argsort(steps)
    for column, name in enumerate(names):
        assert np.array_equal(run[name].steps, steps[order])
        assert run[name].values.tobytes() == values[order, column].tobytes()
        assert np.abs(run[name].times - times[order]).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["float32", "float64", "float16", "int64", "int16", "uint8", "bool"]),
    st.integers(1, 6),
)
def test_values_of_any_declared_shape_and_type(tmp_path_factory, shape, dtype, count):
    recorder = Recorder(tmp_path_factory.mktemp("run") / "a.tw", flush_every=60)
    recorder.declare("spectrum", shape=shape, dtype=dtype, unit="1")
    values = (
        np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (count, *shape)).astype(dtype)
    )
    for step in range(count):
        recorder.log({"spectrum": values[step] if step % 2 else values[step].tolist(), "loss": 0.5}, step)
    recorder.extend(["spectrum"], np.arange(count, 2 * count), values)
    run = both_forms(recorder)
    assert run["spectrum"].values.dtype == dtype
    assert np.array_equal(run["spectrum"].values, np.concatenate([values, values]))
    assert run["spectrum"].spec.shape == shape
    assert len(run["loss"]) == count


def test_scalars_of_several_types_in_one_call(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.declare("tokens", dtype="int64")
    recorder.declare("exact", dtype="float64")
    recorder.declare("flag", dtype="bool")
    for step in range(5):
        recorder.log(
            {"tokens": 10**12 + step, "exact": 0.1, "flag": step > 2, "loss": 0.1, "samples": 2**25 + 1}, step
        )
    run = both_forms(recorder)
    assert run["tokens"].values.tolist() == [10**12 + step for step in range(5)]
    assert run["exact"].last == 0.1
    assert run["flag"].values.tolist() == [False, False, False, True, True]
    assert run["loss"].values.dtype == np.float32
    assert run["samples"].last == 2**25 + 1, "a running total is kept as float64 without being declared"


def test_what_float32_and_integers_can_not_hold(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.declare("count", dtype="int16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step, value in enumerate([1e300, -1e300, float("nan"), float("inf"), 7.0]):
            recorder.log({"count": value, "loss": value}, step)
        run = both_forms(recorder)
    assert run["count"].values.tolist() == [32767, -32768, 0, 32767, 7]
    assert np.array_equal(run["loss"].values, [np.inf, -np.inf, np.nan, np.inf, 7], equal_nan=True)


class Tensor:
    """Stands for a tensor of another library."""

    def __init__(self, value):
        self.value = np.asarray(value)
        self.ndim = self.value.ndim

    def item(self):
        return self.value.item()

    def tolist(self):
        return self.value.tolist()

    def __float__(self):
        return float(self.value)


def test_numbers_of_all_kinds(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    kinds = [
        1,
        1.0,
        True,
        np.float32(1),
        np.int64(1),
        np.array(1.0),
        np.array([1.0]),
        [1.0],
        Tensor(1.0),
        Tensor([1.0]),
    ]
    for step, value in enumerate(kinds):
        recorder.log({"x": value}, np.int64(step) if step % 2 else step)
    recorder.log({"v": Tensor([1.0, 2.0])}, 0)
    recorder.log({"v": (3, 4)}, 1.0)
    run = both_forms(recorder)
    assert run["x"].values.tolist() == [1.0] * len(kinds)
    assert run["v"].values.tolist() == [[1, 2], [3, 4]]
    assert run.events() == []


def test_what_is_no_number_is_a_warning_and_the_rest_is_kept(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    bad = ["text", None, 1j, [], ["1", "2"], {"a": 1}, object(), np.array(["a"]), b"bytes", 10**400]
    with pytest.warns(ThalwegWarning, match="no number") as seen:
        for step, value in enumerate([*bad, *bad]):
            recorder.log({"good": 1.0, "bad": value, "fine": 2}, step)
    assert len(seen) == 1, "shown once for a name"
    run = both_forms(recorder)
    assert run.names() == ["fine", "good"]
    assert len(run["good"]) == len(run["fine"]) == 2 * len(bad)
    (event,) = run.events("refused")
    assert event.severity == "warning" and event.details["signal"] == "bad"


def test_a_value_of_another_shape_is_a_warning_and_dropped(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.log({"v": [1.0, 2.0], "x": 1.0}, 0)
    with pytest.warns(ThalwegWarning, match="shape") as seen:
        recorder.log({"v": [1.0, 2.0, 3.0], "x": 2.0}, 1)
        recorder.log({"v": 5.0, "x": 3.0}, 2)
        recorder.log({"v": [3.0, 4.0], "x": [1.0, 2.0]}, 3)
        recorder.extend(["v"], [4], [[1.0]])
    assert {str(w.message).split(":")[0] for w in seen} == {"v", "x"}
    run = both_forms(recorder)
    assert run["v"].steps.tolist() == [0, 3]
    assert run["x"].steps.tolist() == [0, 1, 2]


def test_bad_steps_and_blocks_are_warnings(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    with pytest.warns(ThalwegWarning):
        recorder.log({"x": 1.0}, "soon")
        recorder.log({"x": 1.0}, 1.5)
        recorder.log({"x": 1.0}, 2**70)
        recorder.extend(["x", "y"], [1, 2], [[1.0, 2.0]])
        recorder.extend(["z"], [1, 2], [1.0, 2.0], times=[1.0])
        recorder.log(None, 3)
    recorder.log({"x": 2.0}, 5, time=float("nan"))
    run = both_forms(recorder)
    assert run["x"].steps.tolist() == [5]
    assert abs(run["x"].times[0] - time.time()) < 60


def test_clocks(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.declare("eval/loss", clock="evaluation")
    recorder.log({"eval/loss": 1.0}, 0)
    recorder.log({"eval/loss": 2.0}, 1, clock="evaluation")
    recorder.log({"tried": 1.0}, 7, clock="tries")
    recorder.log({"loss": 1.0, "tried": 2.0}, 8)
    with pytest.warns(ThalwegWarning, match="clock"):
        recorder.log({"loss": 5.0}, 9, clock="tries")
    run = both_forms(recorder)
    assert sorted(run.clocks) == ["evaluation", "tries", "updates"]
    assert run["eval/loss"].steps.tolist() == [0, 1]
    assert run["tried"].steps.tolist() == [7, 8]
    assert run["loss"].steps.tolist() == [8]


def test_declarations(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    spec = recorder.declare(
        "my/thing", role="noise scale", unit="tokens", reduce="mean", stage="raw", window=50
    )
    assert (
        recorder.declare("my/thing", role="noise scale", unit="tokens", reduce="mean", stage="raw", window=50)
        is spec
    )
    assert recorder.declare("val/loss").role == "evaluation loss"
    recorder.log({"x": 1.0}, 0)
    recorder.declare("x", role="rate")
    recorder.log({"my/thing": 1.0, "val/loss": 1.0}, 0)
    for wrong in ({"dtype": "float64"}, {"shape": (2,)}, {"clock": "tries"}):
        with pytest.raises(UsageError, match="declare it before"):
            recorder.declare("x", role="rate", **wrong)
    for bad in ({"name": ""}, {"name": "a" * 2000}, {"shape": (0,)}, {"dtype": "object"}, {"role": "king"}):
        with pytest.raises(UsageError):
            recorder.declare(**{"name": "y", **bad})
    run = both_forms(recorder)
    assert run["my/thing"].spec == spec
    assert run["x"].spec == SignalSpec(name="x", role="rate")


def test_names_of_all_kinds(tmp_path):
    names = [
        "ä/ö",
        "a b",
        "'; DROP TABLE chunks; --",
        "<script>alert(1)</script>",
        "nul\x00byte",
        "*[x]",
        "time/updates",
    ]
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log(dict.fromkeys(names, 1.0), 0)
    assert open_run(recorder.path).names() == sorted(names)


@pytest.mark.filterwarnings("ignore::thalweg.core.errors.ThalwegWarning")
def test_names_that_can_not_be_stored(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.log({"": 1.0, "\ud800": 1.0, "x" * 5000: 1.0, 5: 2.0, "ok": 1.0}, 0)
    assert both_forms(recorder).names() == ["5", "ok"]


def test_meta_takes_anything(tmp_path):
    loop: list = [1]
    loop += [loop, loop]
    odd = {"path": tmp_path, "set": {1}, "array": np.zeros(2), 3: float("inf"), "huge": 10**100, "loop": loop}
    recorder = Recorder(tmp_path / "a.tw", config=odd)
    recorder.set_meta("cost", {"share": np.float32(0.5), "type": dict})
    recorder.event("x", what=object)
    run = both_forms(recorder)
    assert run.config["path"] == str(tmp_path)
    assert run.config["array"] == [0, 0] and run.config["3"] == float("inf")
    assert run.meta["cost"]["share"] == 0.5
    json.dumps(run.meta)


def test_notes_of_any_size_leave_the_run_readable(tmp_path):
    endless = ["x" * 10**6] * 50
    recorder = Recorder(tmp_path / "a.tw", config={"endless": endless, "after": 1})
    recorder.event("endless", what=endless, more={str(i): i for i in range(10**5)})
    recorder.log({"x": 1.0}, 0)
    run = both_forms(recorder)
    assert run["x"].last == 1.0 and run.config["endless"][0].startswith("x" * 900_000)
    assert len(str(run.config)) < 1_200_000


def test_many_threads_lose_nothing(tmp_path):
    recorder = Recorder(tmp_path / "a.tw", flush_every=0.01)

    def work(number):
        for step in range(2000):
            recorder.log({f"t/{number}": step, f"u/{number}": 1.0}, step)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    run = open_run(recorder.path)
    for number in range(4):
        assert np.array_equal(run[f"t/{number}"].values, np.arange(2000))
    assert recorder.dropped == 0


def test_many_sets_of_names_stay_bounded(tmp_path):
    recorder = Recorder(tmp_path / "a.tw", flush_every=60)
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(40)]
    logged = {}
    for step in range(1500):
        chosen = {name: float(step) for name in names if rng.random() < 0.5}
        recorder.log(chosen, step)
        logged |= chosen
    assert len(recorder._intake.queues) <= 1100
    recorder.close(timeout=30)
    run = open_run(recorder.path)
    assert {name: run[name].last for name in names} == logged


def test_a_full_queue_thins_and_says_so(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.tw", queue_bytes=1 << 16, flush_every=60)
    stop = threading.Event()
    write = recorder._writer.write
    monkeypatch.setattr(recorder._writer, "write", lambda batch, now: (stop.wait(20), write(batch, now=now)))
    slowest = 0.0
    for step in range(20_000):
        began = time.perf_counter()
        recorder.log({"a": 1.0, "b": 2.0}, step)
        slowest = max(slowest, time.perf_counter() - began)
    assert recorder._intake.pending <= 1 << 16
    stop.set()
    recorder.close(timeout=20)
    run = open_run(recorder.path)
    assert recorder.dropped > 0
    assert 2 * len(run["a"]) + recorder.dropped == 40_000
    assert run["a"].steps[-1] > 19_000 and run["a"].steps[0] == 0
    assert sum(e.details["points"] for e in run.events("thinned")) == recorder.dropped
    assert slowest < 1.0


def test_a_full_queue_of_blocks_and_events_thins_too(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.tw", queue_bytes=1 << 16, flush_every=60)
    stop = threading.Event()
    write = recorder._writer.write
    monkeypatch.setattr(recorder._writer, "write", lambda batch, now: (stop.wait(20), write(batch, now=now)))
    for step in range(300):
        recorder.extend([f"s{i}" for i in range(100)], [step], np.ones((1, 100), np.float32))
        recorder.extend(["long"], np.arange(100) + 100 * step, np.ones(100))
        recorder.log({"v": np.zeros(50)}, step)
        for _ in range(10):
            recorder.event("tick")
    assert recorder._intake.pending <= 1 << 17
    stop.set()
    recorder.close(timeout=20)
    run = open_run(recorder.path)
    points = sum(run[name].values.size for name in run.names())
    assert points + recorder.dropped == 300 * (100 + 100 + 50)
    assert recorder.dropped > 0


def test_nothing_is_overwritten(tmp_path):
    with Recorder(tmp_path / "a.tw") as first:
        first.log({"x": 1.0}, 0)
        with pytest.raises(RunFileError, match="never overwritten"):
            Recorder(tmp_path / "a.tw")
    with pytest.raises(RunFileError, match="never overwritten"):
        Recorder(tmp_path / "a.tw")
    with pytest.raises(RunFileError, match="folder"):
        Recorder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunFileError, match="can't be created"):
        Recorder(tmp_path / "file" / "a.tw")
    for bad in ({"rank": 2}, {"segment": -1}, {"flush_every": 0}, {"queue_bytes": 1}):
        with pytest.raises(UsageError):
            Recorder(tmp_path / "b.tw", **bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tw", "file"]


def test_the_default_name_is_fresh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Recorder() as first, Recorder() as second:
        assert first.path != second.path
        assert first.path.parent == tmp_path / "runs" and first.path.suffix == ".tw"


def test_after_close_nothing_raises(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    recorder.log({"x": 1.0}, 0)
    recorder.close("KeyboardInterrupt")
    recorder.close()
    with pytest.warns(ThalwegWarning, match="is closed") as seen:
        recorder.log({"x": 1.0}, 1)
        recorder.extend(["x"], [1], [1.0])
        recorder.event("x")
        recorder.set_meta("a", 1)
    assert len(seen) == 1
    assert not recorder.flush()
    run = open_run(recorder.path)
    assert run["x"].steps.tolist() == [0] and run.segments[0].reason == "KeyboardInterrupt"


def test_leaving_the_block_by_an_exception_names_it(tmp_path):
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "a.tw"):
        1 / 0
    assert open_run(tmp_path / "a.tw").segments[0].reason == "ZeroDivisionError"


def test_an_empty_run_opens(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    run = open_run(recorder.path)
    assert (run.names(), run.live, run.events(), run.clocks) == ([], True, [], [])
    recorder.close()
    assert open_run(recorder.path).names() == []
    assert compact(recorder.path) == recorder.path


def test_refresh_takes_in_what_is_new(tmp_path):
    recorder = Recorder(tmp_path / "a.tw", flush_every=60)
    recorder.log({"x": 0.0}, 0)
    recorder.flush()
    run = open_run(recorder.path)
    assert run.live and run["x"].steps.tolist() == [0]
    for step in range(1, 30):
        recorder.log({"x": float(step)}, step)
        if step % 10 == 0:
            recorder.log({"late": 1.0}, step)
    recorder.flush()
    assert len(run["x"]) == 1
    assert run.refresh() is run
    assert len(run["x"]) == 30 and len(run["late"]) == 2
    recorder.close()
    assert len(run["x"].times) == 30, "the open log is still read after the rename"
    assert not run.refresh().live
    assert len(run["x"]) == 30


def test_a_log_too_large_for_the_cache_is_read_column_by_column(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.tw", flush_every=60)
    rng = np.random.default_rng(0)
    for step in range(200):
        recorder.log({"a": rng.random(), "b": rng.random(), "v": rng.random(5)}, int(rng.integers(1000)))
        if step % 7 == 0:
            recorder.flush()
    recorder.flush()
    cached = content(open_run(recorder.path))
    monkeypatch.setattr(blocks, "CACHE_BYTES", 10)
    assert content(open_run(recorder.path)) == cached
    recorder.close()


def test_axes_and_matrix(tmp_path):
    recorder = Recorder(tmp_path / "a.tw")
    started = open_run(recorder.path).started
    for step in range(10):
        recorder.log({"loss": 1.0, "tokens": 100 * (step + 1)}, step, time=started + step)
    recorder.log({"eval/loss": 1.0}, 5, time=started + 5.5)
    for step in range(0, 10, 2):
        recorder.log({"grad/norm/b": 1.0, "grad/norm": 3.0}, step)
        recorder.log({"grad/norm/a": 2.0}, step + 1 - step % 4 // 2)
    run = both_forms(recorder)
    assert run.axis(run["loss"], "step").tolist() == list(range(10))
    assert np.allclose(run.axis(run["loss"], "time"), np.arange(10), atol=1e-3)
    assert run.axis(run["eval/loss"], "tokens").tolist() == [600]
    with pytest.raises(UsageError):
        run.axis(run["loss"], "weeks")
    matrix = run.matrix("grad/norm")
    assert matrix.layers == ["b", "a"]
    assert matrix.steps.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert np.array_equal(matrix.values[0], [1, np.nan], equal_nan=True)
    assert np.array_equal(matrix.values[2], [1, 2], equal_nan=True)
    assert run.by_role("wall time").steps.tolist() == list(range(10))


def test_everything_is_light_to_import():
    import subprocess
    import sys

    code = "import sys, thalweg.record; print([m for m in ('torch','pandas','sqlite3','plotly','rich') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
