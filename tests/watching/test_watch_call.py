"""The call of ``tw.watch``: what it refuses, what it returns, when it ends."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import mlp, record_of, sgd, steps_of, train, troubles, vectors
from torch import nn

import thalweg as tw
from thalweg.core.errors import RunFileError, ThalwegError, ThalwegWarning, UsageError


class Homemade:
    """An optimizer that never called torch's constructor."""

    def __init__(self, params: Any, lr: float) -> None:
        self.param_groups = [{"params": list(params), "lr": lr}]

    @torch.no_grad()
    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p -= self.param_groups[0]["lr"] * p.grad


class Forgetful(torch.optim.Optimizer):
    """One that forgot ``super().__init__``."""

    def __init__(self, params: Any) -> None:
        self.param_groups = [{"params": list(params), "lr": 0.1}]

    def step(self, closure: Any = None) -> None:
        pass


# -- refused at the call ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda p: Homemade(p, 0.1), Forgetful])
def test_an_optimizer_without_hooks_is_refused_with_the_way_out(make: Any) -> None:
    model = mlp()
    with pytest.raises(UsageError, match=r"super\(\).__init__.*watch\.step\(\)"):
        tw.watch(model, make(model.parameters()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 3}, "budget"),
        ({"budget": -0.1}, "budget"),
        ({"budget": float("nan")}, "budget"),
        ({"memory": 10}, "memory"),
        ({"cadence": "often"}, "cadence"),
        ({"cadence": 0}, "cadence"),
        ({"ranks": "some"}, "ranks"),
        ({"probes": "everything"}, "gradient-norm"),
        ({"probes": [42]}, "42"),
        ({"controllers": [object()]}, "controllers"),
        ({"resume": True}, "out="),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], words: str) -> None:
    model = mlp()
    with pytest.raises(UsageError, match=words):
        tw.watch(model, sgd(model), **options)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("model", "optimizer", "words"),
    [
        (42, None, "nn.Module"),
        (mlp(), 42, "no optimizer"),
        ({"G": mlp(), "D": mlp()}, {"G": None}, "same keys"),
        ({"G": mlp()}, sgd(mlp()), "same keys"),
    ],
)
def test_models_and_optimizers_that_do_not_fit(model: Any, optimizer: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tw.watch(model, optimizer)


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    model = mlp()
    optimizer = sgd(model)
    first = tw.watch(model, optimizer, out="first.tw")
    train(model, optimizer, vectors(2), first)
    first.close()
    content = (tmp_path / "first.tw").read_bytes()
    with pytest.raises(RunFileError, match=r"exists.*resume=True"):
        tw.watch(model, optimizer, out="first.tw")
    assert (tmp_path / "first.tw").read_bytes() == content
    assert not model._forward_pre_hooks


def test_a_place_that_cannot_be_written_raises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model = mlp()
    optimizer = sgd(model)
    threads = threading.active_count()
    with pytest.raises(RunFileError):
        tw.watch(model, optimizer, out=tmp_path / "file" / "run.tw")
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    for thread in threading.enumerate():
        if thread.name == "thalweg-watch":
            thread.join(2)
    assert threading.active_count() <= threads
    train(model, optimizer, vectors(2))


# -- where it goes --------------------------------------------------------------------------------------------


def test_by_default_a_fresh_file_in_runs(tmp_path: Path) -> None:
    model = mlp()
    watch = tw.watch(model, sgd(model))
    assert watch.path.parent == tmp_path / "runs"
    assert watch.path.suffix == ".tw"
    assert watch.path.exists()


def test_a_folder_or_a_name_without_suffix(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    one, two = mlp(), mlp()
    assert tw.watch(one, sgd(one), out="here").path.parent == tmp_path / "here"
    assert tw.watch(two, sgd(two), out="deep/er/run").path == tmp_path / "deep" / "er" / "run.tw"


def test_name_config_tags_and_environment() -> None:
    model = mlp()
    watch = tw.watch(
        model, sgd(model), name="first try", config={"lr": 0.1, "layers": [1, 2]}, tags=["a", "b"]
    )
    os.environ["SECRET_OF_THE_TEST"] = "hunter2"
    watch.step()
    run = record_of(watch)
    del os.environ["SECRET_OF_THE_TEST"]
    assert run.name == "first try"
    assert run.config == {"lr": 0.1, "layers": [1, 2]}
    assert run.tags == ["a", "b"]
    assert run.environment["torch"] == torch.__version__
    assert b"hunter2" not in watch.path.read_bytes()


# -- off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["enabled=False", "THALWEG=off"])
def test_off_is_a_no_op_that_still_clips(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = mlp()
    optimizer = sgd(model)
    if how == "THALWEG=off":
        monkeypatch.setenv("THALWEG", "off")
    watch = tw.watch(model, optimizer, enabled=how != "enabled=False")
    assert not model._forward_pre_hooks
    for x, y in vectors(2):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        raw = torch.linalg.vector_norm(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
        assert float(watch.clip_grad_norm_(0.01)) == pytest.approx(float(raw))
        now = torch.linalg.vector_norm(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
        assert float(now) == pytest.approx(0.01, rel=1e-3)
        watch.log(loss=1.0)
        watch.step()
        watch.stamp()
        watch.event("note")
        watch.declare("mine")
        optimizer.step()
        optimizer.zero_grad()
    watch.load_state_dict(watch.state_dict())
    watch.close()
    assert watch.path is None
    assert watch.updates == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ThalwegError, match="off"):
        watch.run


# -- ends -----------------------------------------------------------------------------------------------------


def test_a_context_manager_and_what_ended_it() -> None:
    model = mlp()
    optimizer = sgd(model)
    with tw.watch(model, optimizer, out="good") as watch:
        train(model, optimizer, vectors(2), watch)
    assert tw.open_run("good.tw").segments[0].reason == "closed"
    with pytest.raises(ZeroDivisionError), tw.watch(model, optimizer, out="bad") as watch:
        train(model, optimizer, vectors(2), watch)
        1 / 0
    assert tw.open_run("bad.tw").segments[0].reason == "ZeroDivisionError"
    assert not model._forward_pre_hooks


def test_after_close_everything_is_harmless() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer)
    train(model, optimizer, vectors(2), watch)
    watch.close()
    watch.close()
    train(model, optimizer, vectors(2), watch)
    watch.step()
    watch.event("late")
    watch.declare("late")
    assert watch.run["loss"].steps.tolist() == [0, 1]
    assert watch.state_dict()["tracks"][""]["updates"] == 2


def test_a_second_watch_on_the_model_closes_the_first() -> None:
    """A notebook cell that is run again."""
    model = mlp()
    optimizer = sgd(model)
    first = tw.watch(model, optimizer)
    train(model, optimizer, vectors(2), first)
    second = tw.watch(model, optimizer)
    train(model, optimizer, vectors(3), second)
    assert len(model._forward_pre_hooks) == 1
    assert tw.open_run(first.path).segments[0].reason == "watched anew"
    assert first.run["loss"].steps.tolist() == [0, 1]
    assert record_of(second)["loss"].steps.tolist() == [0, 1, 2]


def test_a_second_watch_after_compiling_closes_the_first() -> None:
    model = mlp()
    optimizer = sgd(model)
    first = tw.watch(model, optimizer)
    compiled = torch.compile(model, backend="eager")
    second = tw.watch(compiled, optimizer)
    train(compiled, optimizer, vectors(2), second)
    assert tw.open_run(first.path).segments[0].reason == "watched anew"
    assert record_of(second)["loss"].steps.tolist() == [0, 1]


def test_entered_twice_and_nested() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer)
    with watch:
        train(model, optimizer, vectors(1), watch)
        with watch:
            train(model, optimizer, vectors(1), watch)
        train(model, optimizer, vectors(1), watch)
    assert watch.run["loss"].steps.tolist() == [0, 1]
    inner_model = mlp()
    inner_optimizer = sgd(inner_model)
    with tw.watch(model, optimizer) as outer, tw.watch(inner_model, inner_optimizer) as inner:
        train(model, optimizer, vectors(2), outer)
        train(inner_model, inner_optimizer, vectors(3), inner)
    assert outer.run["loss"].steps.tolist() == [0, 1]
    assert inner.run["loss"].steps.tolist() == [0, 1, 2]


def test_two_watches_in_one_process_do_not_mix() -> None:
    one, two = mlp(), mlp()
    first, second = sgd(one), sgd(two)
    a, b = tw.watch(one, first), tw.watch(two, second)
    for batch in vectors(3):
        train(one, first, [batch], a)
        train(two, second, [batch], b)
        train(two, second, [batch], b)
    assert a.path != b.path
    assert record_of(a)["loss"].steps.tolist() == list(range(3))
    assert record_of(b)["loss"].steps.tolist() == list(range(6))


def test_a_model_that_goes_away_ends_its_watch_and_is_freed() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer)
    train(model, optimizer, vectors(2), watch)
    path, parameter = watch.path, weakref.ref(model[0].weight)
    del model, optimizer, watch
    gc.collect()
    assert parameter() is None, "the watch keeps the parameters"
    run = tw.open_run(path)
    assert run.segments[0].reason == "model gone"
    assert run["loss"].steps.tolist() == [0, 1]


def test_the_loop_goes_on_when_the_user_drops_the_watch() -> None:
    model = mlp()
    optimizer = sgd(model)
    path = tw.watch(model, optimizer, cadence=1).path
    gc.collect()
    train(model, optimizer, vectors(3))
    gc.collect()
    from thalweg.tensor.hooks import find_targets

    find_targets(model)[0].owner.close()
    assert tw.open_run(path)["grad/norm"].steps.tolist() == [0, 1, 2]


SCRIPT = """
import sys, torch, thalweg as tw
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
watch = tw.watch(model, optimizer, out="run")
for i in range(3):
    loss = model(torch.ones(4, 3)).square().mean()
    loss.backward()
    watch.log(loss=loss)
    optimizer.step()
    optimizer.zero_grad()
{end}
"""


@pytest.mark.parametrize(
    ("end", "reason", "code"),
    [
        ("", "exit", 0),
        pytest.param("raise ValueError('x')", "ValueError", 1, marks=pytest.mark.slow),
        pytest.param("raise KeyboardInterrupt", "KeyboardInterrupt", -2, marks=pytest.mark.slow),
        pytest.param("sys.exit(3)", "exit", 3, marks=pytest.mark.slow),
    ],
)
def test_a_script_that_just_ends(end: str, reason: str, code: int, tmp_path: Path) -> None:
    source = str(Path(tw.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end)],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode in (code, 130 if code == -2 else code)
    run = tw.open_run(tmp_path / "run.tw")
    assert run.segments[0].reason == reason
    assert run["loss"].steps.tolist() == [0, 1, 2]
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr or end.startswith("raise")


# -- what is watched --------------------------------------------------------------------------------------------


def test_no_trainable_parameters() -> None:
    model = nn.Sequential(nn.Linear(10, 4))
    model.requires_grad_(False)
    watch = tw.watch(model, None, cadence=1)
    for x, _ in vectors(3):
        model(x)
        watch.log(score=1.0)
        watch.step()
    run = record_of(watch)
    assert troubles(run) == []
    assert run["score"].steps.tolist() == [0, 1, 2]
    assert run.events("parameters")[0].details["frozen"] == ["0.weight", "0.bias"]


def test_no_parameters_at_all() -> None:
    model = nn.ReLU()
    watch = tw.watch(model, cadence=1)
    for x, _ in vectors(3):
        model(x)
        watch.log(score=1.0)
        watch.step()
    run = record_of(watch)
    assert troubles(run) == []
    assert run["score"].steps.tolist() == [0, 1, 2]


def test_never_stepped_is_said() -> None:
    model = mlp()
    watch = tw.watch(model, sgd(model))
    model(vectors(1)[0][0])
    watch.log(loss=1.0)
    with pytest.warns(ThalwegWarning, match="No optimizer step was seen"):
        watch.close()
    assert tw.open_run(watch.path).events("no step seen")[0].severity == "warning"


def test_what_the_optimizer_was_not_given_is_in_the_record() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = sgd(model[3])
    watch = tw.watch(model, optimizer)
    train(model, optimizer, vectors(1), watch)
    details = record_of(watch).events("parameters")[0].details
    assert details["frozen"] == ["0.weight", "0.bias"]
    assert details["outside"] == ["1.weight", "1.bias"]
    assert details["rows"] == 2


def test_only_rank_zero_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("thalweg.watching.starting.rank_and_world", lambda: (1, 2))
    model = mlp()
    watch = tw.watch(model, sgd(model))
    assert not watch.on
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_starts_no_collective_where_only_rank_zero_watches(tmp_path: Path) -> None:
    """``if rank == 0: tw.watch(...)`` is everybody's habit: the other rank never answers, and nothing hangs."""
    script = """
import os, sys, torch, torch.distributed as dist, thalweg as tw
from datetime import timedelta
rank = int(sys.argv[1])
store = dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", rank=rank, world_size=2, store=store, timeout=timedelta(seconds=30))
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
if rank == 0:
    watch = tw.watch(model, optimizer, out=sys.argv[3], cadence=1)
for i in range(3):
    loss = model(torch.ones(4, 3) * (rank + 1)).square().mean()
    loss.backward()
    if rank == 0:
        watch.log(loss=loss)
        watch.clip_grad_norm_(1.0)
    else:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
if rank == 0:
    watch.close()
dist.destroy_process_group()
"""
    source = str(Path(tw.__file__).parents[1])
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                script,
                str(rank),
                str(tmp_path / "store"),
                str(tmp_path / "run"),
            ],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    assert [p.wait(60) for p in started] == [0, 0]
    run = tw.open_run(tmp_path / "run.tw")
    assert troubles(run) == []
    assert run["grad/norm/weight"].steps.tolist() == [0]
    assert run["grad/norm"].steps.tolist() == [0, 1, 2]


def test_wrapped_optimizers_are_opened() -> None:
    class Wrapper:
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.optimizer = inner
            self.param_groups = inner.param_groups

        def step(self) -> None:
            self.optimizer.step()

    model = mlp()
    inner = sgd(model)
    watch = tw.watch(model, Wrapper(inner), cadence=1)
    train(model, inner, vectors(2), watch)
    assert steps_of(record_of(watch), "lr") == pytest.approx({0: 0.1, 1: 0.1})
