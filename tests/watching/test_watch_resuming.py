"""Stopping and going on: from a checkpoint, from an earlier step, from the optimizer's own count, from nothing."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import mlp, record_of, sgd, steps_of, train, troubles, vectors
from torch import nn

import thalweg as tw
from thalweg.core.errors import ThalwegWarning

BATCHES = vectors(12)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def first_run(updates: int, save_at: int, path: str = "run") -> tuple[dict[str, Any], nn.Module]:
    """Train, keep a checkpoint on the way, stop."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = adam(model)
    watch = tw.watch(model, optimizer, out=path, cadence=1)
    initial = {n: p.detach().clone() for n, p in model.named_parameters()}
    for i, batch in enumerate(BATCHES[:updates]):
        if i == save_at:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "watch": watch.state_dict(),
                },
                "checkpoint.pt",
            )
        x, y = batch
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        watch.log(loss=loss, tokens=10, segment=1)
        optimizer.step()
        optimizer.zero_grad()
    watch.close()
    return torch.load("checkpoint.pt", weights_only=True), initial  # type: ignore[return-value]  # a dict of tensors


def second_run(checkpoint: dict[str, Any], batches: int, *, with_state: bool = True, **options: Any) -> Any:
    model = mlp()
    optimizer = adam(model)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    watch = tw.watch(model, optimizer, cadence=1, **options)
    if with_state:
        watch.load_state_dict(checkpoint["watch"])
    distances = []
    for x, y in BATCHES[:batches]:
        distances.append({n: p.detach().clone() for n, p in model.named_parameters()})
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        watch.log(loss=loss, tokens=10, segment=2)
        optimizer.step()
        optimizer.zero_grad()
    return watch, distances


def test_from_an_earlier_step_both_segments_the_later_replacing(tmp_path: Path) -> None:
    checkpoint, initial = first_run(7, 4)
    watch, distances = second_run(checkpoint, 5)
    run = record_of(watch)
    assert troubles(run) == []
    assert watch.path == tmp_path / "run~2.tw"
    assert [s.id for s in run.segments] == [0, 1]
    assert run.segments[1].first_step == 4
    assert run.id == tw.open_run("run.tw").id
    assert steps_of(run, "segment") == {i: 1 if i < 4 else 2 for i in range(9)}
    assert run.get("segment", segment=0).steps.tolist() == list(range(7))
    assert run.get("segment", segment=1).steps.tolist() == list(range(4, 9))
    assert run["lr"].steps.tolist() == list(range(9))
    assert steps_of(run, "tokens")[8] == 90
    assert steps_of(run, "samples") == {i: 12 * (i + 1) for i in range(9)}
    far = sum(float((distances[0][n].double() - initial[n].double()).square().sum()) for n in initial) ** 0.5
    assert steps_of(run, "weight/distance")[4] == pytest.approx(far, rel=1e-5)
    assert far > 0


def test_the_state_loads_with_weights_only_and_is_small() -> None:
    checkpoint, _ = first_run(3, 2)
    state = checkpoint["watch"]
    assert state["tracks"][""]["updates"] == 2
    assert state["tracks"][""]["tokens"] == 20


def test_without_a_state_the_optimizers_own_count_is_taken() -> None:
    checkpoint, _ = first_run(7, 4)
    watch, _ = second_run(checkpoint, 3, with_state=False, out="run.tw", resume=True)
    run = record_of(watch)
    assert run.segments[1].first_step == 4
    assert steps_of(run, "segment") == {i: 1 if i < 4 else 2 for i in range(7)}


def test_resume_takes_a_path() -> None:
    checkpoint, _ = first_run(5, 4)
    watch, _ = second_run(checkpoint, 2, with_state=False, resume="run.tw")
    assert watch.path.name == "run~2.tw"
    assert steps_of(record_of(watch), "segment") == {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2}


def test_an_optimizer_that_does_not_count_goes_on_after_the_last_step_and_says_so() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, out="run")
    train(model, optimizer, BATCHES[:5], watch)
    watch.close()
    again = tw.watch(model, optimizer, out="run", resume=True)
    with pytest.warns(ThalwegWarning, match="continued at step 5"):
        train(model, optimizer, BATCHES[:2], again)
    assert record_of(again)["loss"].steps.tolist() == list(range(7))


def test_resuming_what_is_not_there_begins_it() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, out="new", resume=True)
    train(model, optimizer, BATCHES[:2], watch)
    assert watch.path.name == "new.tw"
    assert record_of(watch)["loss"].steps.tolist() == [0, 1]


def test_three_segments() -> None:
    checkpoint, _ = first_run(5, 3)
    second_run(checkpoint, 2)[0].close()
    watch, _ = second_run(checkpoint, 1)
    run = record_of(watch)
    assert watch.path.name == "run~3.tw"
    assert [s.first_step for s in run.segments] == [0, 3, 3]
    assert run["loss"].steps.tolist() == [0, 1, 2, 3]


def test_a_declaration_before_the_first_step_does_not_fix_where_the_segment_begins() -> None:
    for with_state in (True, False):
        checkpoint, _ = first_run(5, 3, f"run{with_state}")
        model = mlp()
        optimizer = adam(model)
        watch = tw.watch(model, optimizer, out=f"run{with_state}", resume=True)
        watch.declare("mine", unit="furlongs")
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        if with_state:
            watch.load_state_dict(checkpoint["watch"])
        train(model, optimizer, BATCHES[:2], watch)
        watch.log(mine=1.0)
        run = record_of(watch)
        assert run.segments[1].first_step == 3
        assert run["loss"].steps.tolist() == [0, 1, 2, 3, 4]
        assert run["mine"].spec.unit == "furlongs"


def test_a_declaration_survives_loading_a_state() -> None:
    checkpoint, _ = first_run(5, 3)
    model = mlp()
    optimizer = adam(model)
    watch = tw.watch(model, optimizer)
    watch.declare("loss", unit="furlongs", reduce="sum")
    watch.load_state_dict(checkpoint["watch"])
    train(model, optimizer, BATCHES[:2], watch)
    run = record_of(watch)
    assert run["loss"].spec.unit == "furlongs"


def test_the_old_file_is_gone(tmp_path: Path) -> None:
    """Another machine: the segment is written where this watch would write."""
    checkpoint, _ = first_run(5, 3)
    (tmp_path / "run.tw").unlink()
    watch, _ = second_run(checkpoint, 2, out="elsewhere")
    run = record_of(watch)
    assert run["loss"].steps.tolist() == [3, 4]
    assert run.id == checkpoint["watch"]["run_id"]
    assert run.segments[0].first_step == 3


def test_no_empty_file_is_left_by_a_watch_that_became_a_segment(tmp_path: Path) -> None:
    checkpoint, _ = first_run(5, 3)
    watch, _ = second_run(checkpoint, 2)
    watch.close()
    assert sorted(p.name for p in tmp_path.rglob("*.tw")) == ["run.tw", "run~2.tw"]


def test_a_state_that_comes_too_late_is_refused_in_words() -> None:
    checkpoint, _ = first_run(5, 3)
    model = mlp()
    optimizer = adam(model)
    watch = tw.watch(model, optimizer, out="late")
    train(model, optimizer, BATCHES[:2], watch)
    with pytest.warns(ThalwegWarning, match="before the loop"):
        watch.load_state_dict(checkpoint["watch"])
    train(model, optimizer, BATCHES[:1], watch)
    assert record_of(watch)["loss"].steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize("state", [{"version": 1}, {"nonsense": 3}, {"path": 3, "tracks": 4, "run_id": None}])
def test_a_state_that_is_none_does_not_raise(state: dict[str, Any]) -> None:
    model = mlp()
    optimizer = adam(model)
    watch = tw.watch(model, optimizer, out="run")
    with pytest.warns(ThalwegWarning, match="load_state_dict"):
        watch.load_state_dict(state)
    train(model, optimizer, BATCHES[:2], watch)
    assert record_of(watch)["loss"].steps.tolist() == [0, 1]


def test_several_optimizers_resume_each_at_its_own_count() -> None:
    model = mlp()
    body, head = adam(model[0]), adam(model[3])

    def loop(watch: Any, n: int) -> None:
        for i, (x, y) in enumerate(BATCHES[:n]):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            body.step()
            if i % 2 == 0:
                head.step()
            model.zero_grad()

    watch = tw.watch(model, {"body": body, "head": head}, out="run", cadence=1)
    loop(watch, 4)
    state = watch.state_dict()
    watch.close()
    again = tw.watch(model, {"body": body, "head": head}, cadence=1)
    again.load_state_dict(state)
    loop(again, 4)
    run = record_of(again)
    assert run["body:lr"].steps.tolist() == list(range(8))
    assert run["head:lr"].steps.tolist() == list(range(4))


def test_the_run_can_be_looked_at_before_the_new_segment_has_begun() -> None:
    first_run(5, 3)
    model = mlp()
    watch = tw.watch(model, adam(model), out="run", resume=True)
    assert watch.run["loss"].steps.tolist() == [0, 1, 2, 3, 4]


def test_a_loop_without_an_optimizer_goes_on_after_its_last_step() -> None:
    model = mlp()
    for first in (0, 3):
        watch = tw.watch(model, None, out="run", resume=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in range(3):
                watch.stamp()
                watch.log(loss=float(first + i))
                watch.step()
            watch.close()
    run = tw.open_run("run.tw")
    assert troubles(run) == []
    assert steps_of(run, "loss") == {i: float(i) for i in range(6)}
    assert "lr" not in run


@pytest.mark.parametrize("by", ["state", "resume"])
def test_an_evaluation_made_before_the_checkpoint_stays_in_the_run(by: str) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = adam(model)
    watch = tw.watch(model, optimizer, out="run", cadence=1)
    train(model, optimizer, BATCHES[:3], watch)
    watch.log({"eval/loss": 0.25, "eval/top": 0.75}, step=3)
    saved = watch.state_dict()
    if by == "state":  # the first run goes on for a while
        train(model, optimizer, BATCHES[3:5], watch)
        watch.log({"eval/loss": 9.0}, step=5)
    watch.close()

    again = tw.watch(
        model, optimizer, cadence=1, **({"out": "other"} if by == "state" else {"resume": "run"})
    )
    if by == "state":
        again.load_state_dict(saved)
    train(model, optimizer, BATCHES[3:6], again)
    again.log({"eval/loss": 0.125}, step=6)
    run = record_of(again)
    assert run["loss"].steps.tolist() == list(range(6))
    assert steps_of(run, "eval/loss") == {3: 0.25, 6: 0.125}
    assert steps_of(run, "eval/top") == {3: 0.75}
    assert run.by_role("evaluation loss").name == "eval/loss"
    old = tw.open_run(run.path, segment=0)["eval/loss"]
    assert float(run["eval/loss"].times[0]) == pytest.approx(float(old.times[0]), abs=1e-3)
    assert troubles(run) == []
