"""What happens to the process that trains: killed, interrupted, out of disk, copied, run for a very long time."""

import os
import pickle
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_training import Batch, mlp, record_of, sgd, train, troubles, vectors
from torch import nn

import thalweg as tw
from thalweg.core.errors import ThalwegWarning
from thalweg.record import compact

LOST = 1.5
"""Seconds before a kill of which nothing may be missing."""

MOMENTS = [random.Random(i).uniform(0.2, 3.2) for i in range(20)]


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What torch imports at the first step is imported before any fork, once for all children."""
    model = mlp()
    train(model, sgd(model), vectors(1))


@contextmanager
def forked(work: Callable[[], Any]) -> Iterator[int]:
    """A child that does ``work`` and ends by ``os._exit``: 0, or 1 if it raised; killed if it still runs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    try:
        yield child
    finally:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train_for(seconds: float, path: Path, began: float, **options: Any) -> None:
    """Steps of a millisecond or two; "wall" is the time since ``began``."""
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    with tw.watch(model, optimizer, out=path, **options) as watch:
        while time.time() - began < seconds:
            for x, y in vectors(20):
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                watch.log(loss=loss, wall=time.time() - began)
                optimizer.step()
                optimizer.zero_grad()
                time.sleep(0.001)


def look_at_what_is_left(path: Path, began: float, ended: float) -> None:
    """The file opens, has no gaps, and nothing older than `LOST` is missing."""
    run = tw.open_run(path)
    assert run.warnings == []
    part = run.segments[0]
    assert (part.reason, part.live) == ("killed", False)
    if ended - part.started < LOST:
        return
    for name in ("wall", "loss", "lr", "time/step"):
        series = run[name]
        assert np.array_equal(series.steps, np.arange(len(series))), f"{name} has gaps"
        assert series.times[-1] > ended - LOST, f"{name} ends too early"
    assert run["wall"].values[-1] > ended - began - LOST
    assert run["grad/norm"].times[-1] > ended - LOST - 0.2
    assert troubles(run) == []


def kill_and_look(folder: Path, seconds: float) -> None:
    path, copied = folder / "run.tw", folder / "copy" / "run.tw"
    copied.parent.mkdir()
    began = time.time()
    with forked(lambda: train_for(60, path, began)) as child:
        while not path.exists():
            time.sleep(0.01)
        time.sleep(seconds)
        shutil.copyfile(path, copied)
        copied_at = time.time()
        os.kill(child, signal.SIGKILL)
        killed_at = time.time()
        assert exit_code(child) == -signal.SIGKILL
    look_at_what_is_left(copied, began, copied_at)
    look_at_what_is_left(path, began, killed_at)
    before = tw.open_run(path)
    values = {name: before[name].values.tolist() for name in before.names()}
    compact(path)
    after = tw.open_run(path)
    assert repr({name: after[name].values.tolist() for name in after.names()}) == repr(values)


@pytest.mark.parametrize("moment", [0.3, 2.1])
def test_a_kill_of_a_watched_training(tmp_path: Path, moment: float) -> None:
    """A watched training is killed: its file and a copy of it open, and nothing older than 1.5 s is missing."""
    kill_and_look(tmp_path, moment)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_of_a_watched_training_at_twenty_moments(tmp_path: Path, moment: float) -> None:
    """A watched training is killed at twenty random moments: the same."""
    kill_and_look(tmp_path, moment)


def test_a_process_that_leaves_without_a_word(tmp_path: Path) -> None:
    """os._exit in a watched training, so that nothing is closed: what is older than 1.5 s is in the file."""
    path, began = tmp_path / "run.tw", time.time()

    def work() -> None:
        watched = tw.watch
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tw.watching.Watch, "__exit__", lambda *a: os._exit(0))
            assert watched is tw.watch
            train_for(2.5, path, began)

    with forked(work) as child:
        assert exit_code(child) == 0
        look_at_what_is_left(path, began, began + 2.5)


def interrupt_and_look(path: Path, seconds: float) -> None:
    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            train_for(60, path, time.time(), cadence=1)

    with forked(work) as child:
        while not path.exists():
            time.sleep(0.01)
        at_first = path.stat().st_size
        while path.stat().st_size == at_first:  # a busy machine may take long to come to the first step
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(child, signal.SIGINT)
        assert exit_code(child) == 0
    run = tw.open_run(path)
    assert run.segments[0].reason == "KeyboardInterrupt"
    assert np.array_equal(run["loss"].steps, np.arange(len(run["loss"])))
    assert abs(len(run["loss"]) - len(run["lr"])) <= 1
    assert troubles(run) == []


def test_an_interrupt_from_the_keyboard_at_any_moment(tmp_path: Path) -> None:
    """Ctrl-C in a loop whose watch measures everything at every step: it passes, and the file says why it ended."""
    interrupt_and_look(tmp_path / "run.tw", 0.1234)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_from_the_keyboard_at_twenty_moments(tmp_path: Path, moment: float) -> None:
    """Ctrl-C at twenty random moments: the same."""
    interrupt_and_look(tmp_path / "run.tw", moment / 4)


@pytest.mark.parametrize(
    ("error", "reason"), [(SystemExit(3), "SystemExit"), (ZeroDivisionError(), "ZeroDivisionError")]
)
def test_what_ends_the_loop_passes_and_is_the_reason(error: BaseException, reason: str) -> None:
    """sys.exit or an exception in the loop passes through the watch, and is the reason in the file."""
    model = mlp()
    optimizer = sgd(model)
    with pytest.raises(type(error)), tw.watch(model, optimizer) as watch:
        train(model, optimizer, vectors(3), watch)
        raise error
    run = tw.open_run(watch.path)
    assert run.segments[0].reason == reason
    assert run["loss"].steps.tolist() == [0, 1, 2]


def test_a_disk_without_room_for_the_file(tmp_path: Path) -> None:
    """The system refuses to let the file grow: one warning, the loop goes on, what was written before is readable."""
    path = tmp_path / "run.tw"

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        model = mlp()
        optimizer = sgd(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch = tw.watch(model, optimizer, out=path)
            for n in range(12):
                for x, y in vectors(20, seed=n):
                    loss = F.cross_entropy(model(x), y)
                    loss.backward()
                    watch.log({"loss": loss, "noise": torch.randn(256)})
                    optimizer.step()
                    optimizer.zero_grad()
                watch._journal.flush()
            watch.close()
        told = [str(w.message) for w in caught if issubclass(w.category, ThalwegWarning)]
        assert any("disk is full" in text for text in told), told
        assert len(told) <= 3, told
        assert watch.updates == 240

    with forked(work) as child:
        assert exit_code(child) == 0
    run = tw.open_run(path)
    assert path.stat().st_size <= 1 << 16
    steps = run["loss"].steps
    assert 20 <= len(steps) < 240
    assert np.array_equal(steps, np.arange(len(steps)))


# -- copies of what is watched, in other processes ---------------------------------------------------------------


def test_a_watched_model_sent_to_another_process_is_plain() -> None:
    """What is pickled of a watched model or its optimizer holds nothing of the watch."""
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(2), watch)
    for data in (bytes(ForkingPickler.dumps(model)), pickle.dumps(model), pickle.dumps(optimizer)):
        assert b"thalweg" not in data
    other = pickle.loads(pickle.dumps(model))
    assert not other._forward_pre_hooks
    train(other, sgd(other), vectors(3))
    assert record_of(watch)["lr"].steps.tolist() == [0, 1]


def _train_elsewhere(model: nn.Module, batches: list[Batch], folder: str) -> None:
    os.chdir(folder)
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, out="child")
    train(model, optimizer, batches, watch)
    watch.close()


@pytest.mark.slow
def test_a_spawned_process_trains_a_watched_model_of_its_own(tmp_path: Path) -> None:
    """A watched model with shared memory is sent to a spawned process that watches it too: two files, each its own."""
    model = mlp().share_memory()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, out="parent")
    train(model, optimizer, vectors(2), watch)
    context = torch.multiprocessing.get_context("spawn")
    child = context.Process(target=_train_elsewhere, args=(model, vectors(4), str(tmp_path)))
    child.start()
    train(model, optimizer, vectors(3), watch)
    child.join()
    assert child.exitcode == 0
    assert record_of(watch)["loss"].steps.tolist() == [0, 1, 2, 3, 4]
    other = tw.open_run(tmp_path / "child.tw")
    assert other["loss"].steps.tolist() == [0, 1, 2, 3]
    assert troubles(other) == []


class _Rows(torch.utils.data.Dataset[Batch]):
    """Rows that a worker makes; the second worker dies at the end."""

    def __init__(self, dies: bool) -> None:
        self.dies = dies

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> Batch:
        if self.dies and i == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        g = torch.Generator().manual_seed(i)
        return torch.randn(10, generator=g), torch.randint(0, 4, (), generator=g)


def test_two_workers_of_a_data_loader() -> None:
    """Two forked workers of a DataLoader: they leave the file alone, and the parent's is complete."""
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    loader = torch.utils.data.DataLoader(
        _Rows(dies=False), 8, num_workers=2, multiprocessing_context="fork", persistent_workers=True
    )
    train(model, optimizer, loader, watch)
    train(model, optimizer, loader, watch)
    del loader
    run = record_of(watch)
    assert run["loss"].steps.tolist() == list(range(16))
    assert run["grad/norm"].steps.tolist() == list(range(16))
    assert run.segments[0].reason == "closed"
    assert troubles(run) == []


def test_a_worker_of_a_data_loader_that_dies() -> None:
    """A DataLoader's worker is killed: its error reaches the loop as ever, and is the reason in the file."""
    model = mlp()
    optimizer = sgd(model)
    loader = torch.utils.data.DataLoader(_Rows(dies=True), 8, num_workers=2, multiprocessing_context="fork")
    with (
        pytest.raises((RuntimeError, OSError)) as error,  # whichever of its connections breaks first
        tw.watch(model, optimizer) as watch,
    ):
        train(model, optimizer, loader, watch)
    run = tw.open_run(watch.path)
    assert run.segments[0].reason == error.type.__name__
    assert len(run["loss"]) == len(run["lr"])


# -- names -------------------------------------------------------------------------------------------------------

NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred\x1b]0;title\x07",
    "two\nlines",
    "a\x00b",
    "../../escape",
    "[bold]markup[/bold]",
    "{{7*7}}",
    "grad/norm/0.weight",
    "\ud800",
    "x" * 5000,
    "",
    " ",
)


def test_names_that_are_html_or_terminal_escapes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names with HTML, terminal escapes, markup or paths in them: recorded or complained of, inert where they are shown."""
    from thalweg.cli import main

    model = mlp()
    optimizer = sgd(model)
    bad = NAMES[0]
    folder = tmp_path / "runs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"name": bad + "\x1b[31m", "config": {bad: NAMES[2]}, "tags": [bad, NAMES[2]]}
        watch = tw.watch(model, optimizer, out=folder / "run", **options)
        watch.event("note", text=NAMES[1] + NAMES[2])
        for x, y in vectors(5):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            watch.log({"loss": loss, **{name: 1.5 for name in NAMES if name}})
            for name in NAMES:
                watch.log({name: 2.5}, prefix="other")
            optimizer.step()
            optimizer.zero_grad()
        watch.close()
    run = tw.open_run(watch.path)
    assert run["loss"].steps.tolist() == list(range(5))
    assert run[bad].values.tolist() == [1.5] * 5
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    page = folder / "report.html"
    tw.report(run, page)
    text = page.read_text(encoding="utf-8")
    assert bad not in text
    assert "<img src=x" not in text
    assert "\x1b" not in text
    for command in (["ls", str(folder)], ["show", str(watch.path)], ["show", str(watch.path), bad]):
        monkeypatch.setattr(sys, "argv", ["thalweg", *command])
        try:
            main()
        except SystemExit as end:
            assert end.code in (0, None), command
        out, err = capfd.readouterr()
        assert out, command
        assert "\x1b[31mred" not in out + err
        assert "\x07" not in out + err


# -- a very long run ---------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


STEPS = 1_000_000
GROWTH = 96 << 20
"""Bytes that a watched run may grow by between its 200,000th and its millionth step: what may wait for the writer."""


def test_a_loop_faster_than_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that leaves more than the writer takes: what waits is bounded, what is dropped is counted and said."""
    monkeypatch.setattr("thalweg.watching.journal.LARGEST_OUTBOX", 50)
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, probes="none")
    with watch._journal._lock:  # the writer is elsewhere
        train(model, optimizer, vectors(80), watch)
    run = record_of(watch)
    assert len(run["loss"]) == len(run["lr"]) == 50
    assert [e.details["entries"] for e in run.events("dropped")] == [60]
    assert run.summary["step"] == 50


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("probes", ["none", "cheap"])
def test_the_memory_of_a_million_steps_is_flat(probes: str, tmp_path: Path) -> None:
    """A million steps: the process grows by less than 96 MB over the last 800,000, and every step is in the file or counted."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    watch = tw.watch(model, optimizer if probes == "cheap" else None, probes=probes, out=tmp_path / "run")
    seen: dict[int, int] = {}
    x = torch.ones(1, 1)
    for step in range(STEPS):
        if probes == "cheap":
            loss = model(x).square().sum()
            loss.backward()
            watch.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
        else:
            watch.log(loss=step % 1000)
            watch.step()
        if step % 100_000 == 0:
            seen[step] = resident()
    seen[STEPS] = resident()
    assert seen[STEPS] - seen[200_000] < GROWTH, seen
    run = record_of(watch)
    dropped = sum(e.details["entries"] for e in run.events("dropped"))
    assert len(run["loss"]) + len(run["time/step"]) + dropped == 2 * STEPS
    assert [t for t in troubles(run) if t[0] != "dropped"] == []
