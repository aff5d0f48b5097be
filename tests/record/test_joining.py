"""Segments replace, ranks join, and merging the files changes nothing a reader sees."""

import numpy as np
import pytest

from thalweg.core.errors import RunFileError
from thalweg.record import Recorder, compact, next_segment_path, open_run, open_runs, rank_path
from thalweg.record.joining import reduce_ranks


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
