"""Segments replace, ranks join, and merging the files changes nothing a reader sees."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.core.errors import RunFileError, UsageError
from thalweg.record import Recorder, compact, next_segment_path, open_run, open_runs, rank_path
from thalweg.record.joining import reduce_ranks
from thalweg.record.signals import SignalSpec


def first_segment(folder, last=10):
    first = Recorder(folder / "a.tw", config={"lr": 0.1}, tags=["t"])
    first.declare("eval/loss", clock="evaluation")
    for step in range(last):
        first.log({"loss": float(step), "old": 1.0}, step, time=1000.0 + step)
        if step % 2 == 0:
            first.log({"eval/loss": float(step)}, step // 2, time=1000.0 + step)
        first.event("tick", step=step)
    first.event("timeless")
    first.close()
    return first


def resumed(first, at, last, segment=1, **options):
    second = Recorder(
        next_segment_path(first.path), run_id=first.run_id, segment=segment, first_step=at, **options
    )
    second.declare("eval/loss", clock="evaluation")
    for step in range(at, last):
        second.log({"loss": 100.0 + step}, step, time=2000.0 + step)
        if step % 2 == 0:
            second.log({"eval/loss": 100.0 + step}, step // 2, time=2000.0 + step)
        second.event("tick", step=step)
    return second


def state(run):
    rows = {n: (run[n].steps.tolist(), run[n].values.tolist(), run[n].times.tolist()) for n in run.names()}
    parts = [(p.id, p.rank, p.world, p.first_step, p.reason) for p in run.segments]
    ticks = [(e.kind, e.step, e.segment) for e in run.events()]
    return rows, parts, ticks, run.config, run.tags, run.id, run.meta, run.wall_time().times.tolist()


@pytest.mark.parametrize("closed", [True, False])
def test_a_segment_replaces_earlier_ones_from_its_first_step(tmp_path, closed):
    first = first_segment(tmp_path)
    second = resumed(first, 6, 12)
    second.close() if closed else second.flush()
    assert second.path == tmp_path / "a~2.tw"
    for path in (first.path, second.path):
        run = open_run(path)
        assert [(p.id, p.first_step) for p in run.segments] == [(0, 0), (1, 6)]
        assert run["loss"].steps.tolist() == list(range(12))
        assert run["loss"].values.tolist() == [0, 1, 2, 3, 4, 5, 106, 107, 108, 109, 110, 111]
        assert run["loss"].times.tolist() == [1000.0 + s for s in range(6)] + [
            2000.0 + s for s in range(6, 12)
        ]
        assert run["old"].steps.tolist() == list(range(6))
        assert run["eval/loss"].steps.tolist() == [0, 1, 2, 3, 4, 5]
        assert run["eval/loss"].values.tolist() == [0, 2, 4, 106, 108, 110]
        assert [e.step for e in run.events("tick")] == list(range(12))
        assert len(run.events("timeless")) == 1
        assert run.config == {"lr": 0.1} and run.tags == ["t"]
        assert run.live is not closed
        assert run.get("loss", segment=0).values.tolist() == list(range(10))
    whole = open_run(first.path, segment=0)
    assert whole["loss"].values.tolist() == list(range(10))
    assert len(whole.events("tick")) == 10
    with pytest.raises(RunFileError, match="no segment 5"):
        open_run(first.path, segment=5)
    second.close()


def test_merging_segments_keeps_all_of_them(tmp_path):
    first = first_segment(tmp_path)
    resumed(first, 6, 12).close()
    third = resumed(first, 3, 8, segment=2, config={"lr": 0.2})
    third.log({"new": 5.0}, 7)
    third.close()
    run = open_run(first.path)
    before, alone = state(run), [state(open_run(first.path, segment=k)) for k in range(3)]
    assert run["loss"].values.tolist() == [0, 1, 2, 103, 104, 105, 106, 107]
    assert run.config == {"lr": 0.2}
    (row,) = open_runs(tmp_path)
    assert compact(third.path) == first.path
    assert [p.name for p in tmp_path.iterdir()] == ["a.tw"]
    assert state(open_run(first.path)) == before
    assert [state(open_run(first.path, segment=k)) for k in range(3)] == alone
    assert state(run.refresh()) == before
    (merged,) = open_runs(tmp_path)
    for key in (
        "id",
        "path",
        "name",
        "steps",
        "points",
        "signals",
        "started",
        "ended",
        "reason",
        "config",
        "tags",
    ):
        assert getattr(merged, key) == getattr(row, key), key
    assert compact(first.path) == first.path
    fourth = resumed(first, 8, 10, segment=3)
    fourth.close()
    assert open_run(first.path)["loss"].steps.tolist() == list(range(10))
    compact(first.path)
    assert open_run(first.path)["loss"].steps.tolist() == list(range(10))


def test_a_killed_merge_leaves_what_readers_take(tmp_path, monkeypatch):
    """The merged file is in place and the others are not yet removed."""
    first = first_segment(tmp_path)
    resumed(first, 6, 12).close()
    before = state(open_run(first.path))
    unlink = type(first.path).unlink
    monkeypatch.setattr(type(first.path), "unlink", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        compact(first.path)
    monkeypatch.setattr(type(first.path), "unlink", unlink)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tw", "a~2.tw"]
    assert state(open_run(first.path)) == before
    compact(first.path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tw"]
    assert state(open_run(first.path)) == before


def test_files_of_another_run_are_not_joined(tmp_path):
    first_segment(tmp_path)
    with Recorder(tmp_path / "a~2.tw", segment=1, first_step=2) as other:
        other.log({"loss": 7.0}, 2)
    (tmp_path / "a~3.tw").write_bytes(b"not a run")
    run = open_run(tmp_path / "a.tw")
    assert len(run["loss"]) == 10
    assert any("a~3.tw" in text for text in run.warnings)
    assert len(open_runs(tmp_path)) == 2


def test_merging_never_takes_the_place_of_another_run(tmp_path):
    first = first_segment(tmp_path)
    for segment in (1, 2):
        resumed(first, 3 * segment, 9, segment=segment).close()
    first.path.unlink()
    with Recorder(first.path) as other:
        other.log({"loss": 7.0}, 0)
    assert compact(tmp_path / "a~3.tw") == tmp_path / "a~2.tw"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tw", "a~2.tw"]
    assert open_run(tmp_path / "a.tw")["loss"].values.tolist() == [7.0]
    run = open_run(tmp_path / "a~2.tw")
    assert [part.id for part in run.segments] == [1, 2] and run["loss"].steps.tolist() == list(range(3, 9))


def ranks(folder, count, missing=()):
    path = folder / "a.tw"
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(count, 20)).astype(np.float32)
    run_id = None
    for rank in range(count):
        recorder = Recorder(rank_path(path, rank), rank=rank, world=count, run_id=run_id)
        run_id = run_id or recorder.run_id
        for how in ("sum", "mean", "max", "norm", "none"):
            recorder.declare(how, reduce=how)
        for step in range(20):
            if rank == 1 and step in (3, 19):
                continue
            recorder.log(
                dict.fromkeys(("sum", "mean", "max", "norm", "none"), parts[rank, step]),
                step,
                time=5.0 + rank,
            )
        if rank == 0:
            recorder.log({"loss": 1.0}, 0)
        recorder.close()
    for rank in missing:
        rank_path(path, rank).unlink()
    return path, parts


@pytest.mark.parametrize("merged", [False, True])
def test_ranks_are_joined_by_their_reduction_where_all_wrote(tmp_path, merged):
    path, parts = ranks(tmp_path, 3)
    if merged:
        compact(path)
        assert [p.name for p in tmp_path.iterdir()] == ["a.tw"]
    run = open_run(path)
    there = [s for s in range(20) if s not in (3, 19)]
    wide = parts[:, there].astype(np.float64)
    expected = {
        "sum": wide.sum(0),
        "mean": wide.mean(0),
        "max": wide.max(0),
        "norm": np.sqrt((wide**2).sum(0)),
    }
    for how, values in expected.items():
        assert run[how].steps.tolist() == there
        assert np.array_equal(run[how].values, values.astype(np.float32)), how
        assert set(run[how].times) == {5.0}
    assert np.array_equal(run["none"].values, parts[0])
    assert len(run["loss"]) == 1
    assert [(p.rank, p.world) for p in run.segments] == [(0, 3), (1, 3), (2, 3)]
    assert run.warnings == []


def test_a_part_of_a_sum_is_not_passed_off_as_the_sum(tmp_path):
    path, parts = ranks(tmp_path, 3, missing=[2])
    run = open_run(path)
    assert len(run["norm"]) == 0
    assert any("rank(s) 2 of 3" in text for text in run.warnings)
    assert np.array_equal(run["none"].values, parts[0])


def test_norms_of_ranks_do_not_overflow():
    columns = [np.array([3e30, 0.0, np.inf], np.float32), np.array([4e30, 0.0, 1.0], np.float32)]
    assert np.allclose(reduce_ranks("norm", columns), [5e30, 0, np.inf])
    wide = reduce_ranks("norm", [np.array([3e300]), np.array([4e300])])
    assert np.allclose(wide / 1e300, 5)
    assert np.isnan(reduce_ranks("max", [np.array([np.nan]), np.array([1.0])]))[0]


def test_a_live_run_is_not_merged(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log({"x": 1.0}, 0)
        with pytest.raises(RunFileError, match="still being written"):
            compact(recorder.path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tw"]


# -- formulas --------------------------------------------------------------------------------------------

VECTORS = {
    "ratio": lambda x, y: [(x > 0).sum(), x.size],
    "root ratio": lambda x, y: [x @ x, y @ y],
    "smallest root ratio": lambda x, y: [x @ x, x.size, y @ y, y.size],
    "cosine": lambda x, y: [x @ y, x @ x, y @ y],
    "change": lambda x, y: [x @ y, x @ x, y @ y],
    "inverse power": lambda x, y: [x @ x / 0.1, 1.0, 1.0],
    "above one": lambda x, y: [x @ x / 4],
    "root": lambda x, y: [x @ x],
    "within": lambda x, y: [x.sum(), x @ x, 2 * y @ y],
}
"""Formula -> its sums over the elements of two vectors."""
OF_THE_WHOLE = {
    "ratio": lambda x, y: (x > 0).mean(),
    "root ratio": lambda x, y: np.linalg.norm(x) / np.linalg.norm(y),
    "smallest root ratio": lambda x, y: min(np.sqrt((x**2).mean()), np.sqrt((y**2).mean())),
    "cosine": lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y),
    "change": lambda x, y: np.linalg.norm(x - y) / np.linalg.norm(y),
    "inverse power": lambda x, y: 0.1 / np.linalg.norm(x) ** 2,
    "above one": lambda x, y: float(np.linalg.norm(x) > 2),
    "root": lambda x, y: np.linalg.norm(x),
    "within": lambda x, y: x.sum() if 0 < x @ x < 2 * y @ y else np.nan,
}


def record_ranks(path, rows, formula, *, world=None, declare=None, **options):
    """A file a rank: rows[rank][step] are the sums of the signal "s"."""
    run_id = options.pop("run_id", None)
    for rank, mine in enumerate(rows):
        with Recorder(
            rank_path(path, rank), rank=rank, world=world or len(rows), run_id=run_id, **options
        ) as recorder:
            run_id = recorder.run_id
            about = {"reduce": "sum", "formula": formula, "shape": (len(mine[0]),), "dtype": "float64"}
            recorder.declare("s", **(about | (declare or {})))
            first = options.get("first_step", 0)
            for step, sums in enumerate(mine, first):
                recorder.log({"s": np.array(sums, np.float64), "plain": float(rank)}, step)
    return run_id


@pytest.mark.parametrize("formula", list(VECTORS))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(seed=st.integers(0, 2**32 - 1), world=st.integers(2, 5), n=st.integers(2, 40))
def test_splitting_a_vector_over_ranks_at_random_and_joining_gives_the_whole(
    tmp_path, formula, seed, world, n
):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3, n))
    owner = rng.integers(0, world, n)  # some ranks may have nothing
    rows = [[VECTORS[formula](x[s][owner == r], y[s][owner == r]) for s in range(3)] for r in range(world)]
    if formula == "inverse power":
        rows = [[[a, 2.0 / world, 2.0 / world] for a, _, _ in mine] for mine in rows]
    path = tmp_path / f"{seed}-{world}-{n}" / "a.tw"
    path.parent.mkdir(exist_ok=True)
    for old in path.parent.glob("*.tw"):
        old.unlink()
    record_ranks(path, rows, formula)
    run = open_run(path)
    expected = [OF_THE_WHOLE[formula](x[s], y[s]) for s in range(3)]
    np.testing.assert_allclose(run["s"].values, expected, rtol=1e-6, atol=1e-6)
    assert (run["s"].values.dtype, run["s"].spec.shape) == (np.float32, ())
    assert run.warnings == []


def test_a_running_ratio_goes_on_over_segments_and_forgets_nothing_on_the_way(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 2, size=(12, 2))
    values[4, 0] = np.nan
    split = rng.uniform(size=(2, 12, 1))
    split /= split.sum(0)
    rows = [[[*(part * v), 0.5, 5.0] for part, v in zip(mine, values, strict=True)] for mine in split]
    run_id = record_ranks(tmp_path / "a.tw", [r[:8] for r in rows], "running ratio")
    record_ranks(
        tmp_path / "a~2.tw", [r[6:] for r in rows], "running ratio", run_id=run_id, segment=1, first_step=6
    )
    above = below = 0.0
    expected = []
    for a, b in values:
        if np.isfinite(a):
            above, below = 0.95 * above + a, 0.95 * below + b
        expected.append(above / below)
    run = open_run(tmp_path / "a.tw")
    np.testing.assert_allclose(run["s"].values, expected, rtol=1e-6)
    before = state(run)
    compact(tmp_path / "a.tw")
    assert state(open_run(tmp_path / "a.tw")) == before


def test_a_run_that_went_on_over_other_ranks_is_read_as_each_segment_stored_it(tmp_path):
    """One rank, then two with shards, then two replicas: merging keeps all three ways."""
    with Recorder(tmp_path / "a.tw") as alone:
        for step in range(4):
            alone.log({"s": 0.25}, step)
    shards = [[[1.0, 3.0]] * 3, [[2.0, 1.0]] * 3]
    record_ranks(tmp_path / "a~2.tw", shards, "ratio", run_id=alone.run_id, segment=1, first_step=4)
    whole = {"reduce": "none", "formula": "", "shape": (), "dtype": "float32"}
    replicas = [[[0.5]] * 2] * 2
    record_ranks(
        tmp_path / "a~3.tw", replicas, "", run_id=alone.run_id, segment=2, first_step=7, declare=whole
    )
    run = open_run(tmp_path / "a.tw")
    assert run["s"].values.tolist() == [0.25] * 4 + [0.75] * 3 + [0.5] * 2
    before = state(run)
    assert compact(tmp_path / "a.tw") == tmp_path / "a.tw"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tw"]
    assert state(open_run(tmp_path / "a.tw")) == before
    assert open_run(tmp_path / "a.tw", segment=1)["s"].values.tolist() == [0.75] * 3


def test_what_ranks_stored_in_different_ways_is_left_out_with_a_warning(tmp_path):
    run_id = record_ranks(tmp_path / "a.tw", [[[1.0, 2.0]]], "ratio", world=2)
    with Recorder(rank_path(tmp_path / "a.tw", 1), rank=1, world=2, run_id=run_id) as other:
        other.declare("s", reduce="sum", formula="cosine", shape=(3,), dtype="float64")
        other.log({"s": np.ones(3)}, 0)
    run = open_run(tmp_path / "a.tw")
    assert len(run["s"]) == 0
    assert any("different ways" in text for text in run.warnings)


def test_a_formula_of_a_later_version_is_left_out_with_a_warning(tmp_path, monkeypatch):
    from thalweg.record import declaring, formulas

    monkeypatch.setitem(formulas.FORMULAS, "new", lambda x: x[..., 0])
    record_ranks(tmp_path / "a.tw", [[[1.0, 2.0]], [[1.0, 2.0]]], "new")
    assert open_run(tmp_path / "a.tw")["s"].values.tolist() == [2.0]
    monkeypatch.delitem(formulas.FORMULAS, "new")
    run = open_run(tmp_path / "a.tw")
    assert len(run["s"]) == 0 and run["plain"].values.tolist() == [0.0]
    assert any("'new'" in text for text in run.warnings)
    with pytest.raises(UsageError, match="formula"):
        declaring.Registry().declare(SignalSpec(name="s", formula="new", shape=(2,)))


def test_counts_are_of_the_ranks_that_counted_up_to_where_all_have_come(tmp_path):
    path, run_id = tmp_path / "a.tw", None
    counts = [{2: 3.0, 5: 1.0, 8: 9.0}, {5: np.nan, 6: 2.0}, {}]
    for rank, mine in enumerate(counts):
        with Recorder(rank_path(path, rank), rank=rank, world=3, run_id=run_id) as recorder:
            run_id = recorder.run_id
            recorder.declare("bad", reduce="count")
            for step in range(10 if rank == 0 else 7):
                recorder.log({"loss": 0.0}, step)
                if step in mine:
                    recorder.log({"bad": mine[step]}, step, time=100.0 + step + rank)
    for _ in range(2):
        run = open_run(path)
        assert run["bad"].steps.tolist() == [2, 5, 6]
        np.testing.assert_array_equal(run["bad"].values, [3.0, np.nan, 2.0])
        assert run["bad"].times.tolist() == [102.0, 106.0, 107.0]
        compact(path)
    rank_path(path, 2).unlink(missing_ok=True)


def test_several_signals_of_one_shape_are_one_block(tmp_path):
    values = np.arange(24.0).reshape(4, 2, 3)
    with Recorder(tmp_path / "a.tw") as recorder:
        for name in ("a", "b"):
            recorder.declare(name, shape=(3,), dtype="float64")
        recorder.extend(["a", "b"], range(4), values)
        recorder.extend(["a", "b"], range(4, 6), values[:2])
        recorder.extend(["a", "c"], range(6, 8), values[:2])
        recorder.flush()
        for _ in range(2):
            run = open_run(tmp_path / "a.tw")
            assert np.array_equal(run["a"].values, np.concatenate([values, values[:2], values[:2]])[:, 0])
            assert np.array_equal(run["b"].values, np.concatenate([values, values[:2]])[:, 1])
            assert np.array_equal(run["c"].values, values[:2, 1])
            recorder.close()
