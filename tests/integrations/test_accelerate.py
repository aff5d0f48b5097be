"""Accelerate, watched: as a tracker, attached, and by the plain two lines."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("accelerate")
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

import thalweg as tw
from thalweg.core.errors import ThalwegWarning
from thalweg.integrations.accelerate import ThalwegTracker
from thalweg.record import open_run

UPDATES = 8


@pytest.fixture(autouse=True)
def fresh() -> Any:
    """Accelerate keeps its state in class attributes, which a test must not inherit."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


class Kept:
    """What a loop saw itself."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.rates: list[float] = []


def _loop(
    accelerator: Any,
    tracker: ThalwegTracker | None = None,
    *,
    init: str = "",
    clip: bool = True,
    updates: int = UPDATES,
    start: str = "",
    save_at: tuple[int, str] | None = None,
) -> tuple[Any, Any, Kept]:
    """A training of Accelerate's usual form, two micro-batches an update."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    made = torch.Generator().manual_seed(1)
    x, y = torch.randn(64, 6, generator=made), torch.randint(0, 3, (64,), generator=made)
    data = torch.utils.data.TensorDataset(x, y)
    if init == "early":
        accelerator.init_trackers("project", config={"rate": 0.05})
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    if init == "late":
        accelerator.init_trackers("project", config={"rate": 0.05})
    if init == "attach" and tracker is not None:
        tracker.attach(accelerator)
    first = int(start[-1]) if start else 0
    kept = Kept()
    for index, (inputs, labels) in enumerate(loader):
        if index // 2 < first or index // 2 >= updates:
            continue
        if start and index == 2 * first:
            accelerator.load_state(start)
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(inputs), labels)
            kept.losses.append(loss.item())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                if clip:
                    kept.norms.append(float(accelerator.clip_grad_norm_(model.parameters(), 0.3)))
                kept.rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients and init:
            accelerator.log({"running": loss, "loss": loss.item(), "text": "no number"}, step=index)
        if accelerator.sync_gradients and save_at is not None and index // 2 + 1 == save_at[0]:
            accelerator.save_state(save_at[1])
    return model, optimizer, kept


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    one, other = a[0].state_dict(), b[0].state_dict()
    return all(torch.equal(one[k], other[k]) for k in one)


def _plain() -> tuple[Any, ...]:
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    return _loop(Accelerator(cpu=True, gradient_accumulation_steps=2))


@pytest.mark.parametrize("init", ["early", "late"])
def test_as_a_tracker(tmp_path: Path, init: str) -> None:
    tracker = ThalwegTracker(out=tmp_path / "run.tw", cadence=1, config={"mine": 2})
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, log_with=tracker)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ThalwegWarning)
        watched = _loop(accelerator, init=init)
        noise = torch.rand(3)
        accelerator.end_training()
    assert "backward" not in vars(accelerator) and "clip_grad_norm_" not in vars(accelerator)
    assert _same(watched, _plain())
    assert torch.equal(noise, torch.rand(3))

    run, kept = open_run(tmp_path / "run.tw"), watched[2]
    np.testing.assert_array_equal(run["loss"].steps, np.arange(UPDATES))
    np.testing.assert_allclose(run["loss"].values, np.reshape(kept.losses, (UPDATES, 2)).mean(1), rtol=1e-6)
    np.testing.assert_allclose(run["grad/norm_raw"].values, kept.norms, rtol=1e-6)
    np.testing.assert_allclose(run["grad/norm"].values, np.minimum(kept.norms, 0.3), rtol=1e-4)
    np.testing.assert_allclose(run["lr"].values, kept.rates, rtol=1e-6)
    np.testing.assert_allclose(run["running"].values, kept.losses[1::2], rtol=1e-6)
    np.testing.assert_array_equal(run["running"].steps, np.arange(UPDATES))
    assert run["user/loss"].values[-1] == pytest.approx(kept.losses[-1], rel=1e-6)
    assert run.by_role("train loss").name == "loss"
    assert run.config == {"rate": 0.05, "mine": 2}
    assert run.segments[-1].reason == "closed"
    if init == "late":
        assert run["samples"].values[-1] == UPDATES * 8


def test_attached_without_trackers(tmp_path: Path) -> None:
    tracker = ThalwegTracker(out=tmp_path / "run.tw")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    watched = _loop(accelerator, tracker, init="attach", clip=False)
    tracker.finish()
    run = open_run(tmp_path / "run.tw")
    assert len(run["loss"]) == UPDATES and "grad/norm_raw" not in run
    assert len(watched[2].losses) == 2 * UPDATES


def test_the_plain_two_lines(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    losses = []
    with tw.watch(model, optimizer, scaler=accelerator.scaler, out=tmp_path / "run.tw", cadence=1) as watch:
        for _ in range(8):
            with accelerator.accumulate(model):
                loss = model(torch.randn(3, 4)).square().mean()
                losses.append(loss.item())
                accelerator.backward(loss)
                watch.log(loss=loss)
                optimizer.step()
                optimizer.zero_grad()
    run = open_run(tmp_path / "run.tw")
    np.testing.assert_allclose(run["loss"].values, np.reshape(losses, (4, 2)).mean(1), rtol=1e-6)
    assert run["grad/norm"].steps.tolist() == [0, 1, 2, 3]


def test_a_loaded_state_goes_on_with_its_run(tmp_path: Path) -> None:
    folder = str(tmp_path / "state5")
    tracker = ThalwegTracker(out=tmp_path / "run.tw")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, log_with=tracker)
    whole = _loop(accelerator, init="late", save_at=(5, folder))
    accelerator.end_training()
    assert (tmp_path / "state5" / "thalweg.pt").is_file()

    again = ThalwegTracker(out=tmp_path / "run.tw")
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, log_with=again)
    rest = _loop(accelerator, init="early", start=folder)
    accelerator.end_training()
    assert again.watch is not None and again.watch.path == tmp_path / "run~2.tw"
    assert _same(whole, rest)
    run = open_run(tmp_path / "run.tw")
    assert [s.first_step for s in run.segments] == [0, 5]
    np.testing.assert_array_equal(run["loss"].steps, np.arange(UPDATES))
    np.testing.assert_allclose(run["loss"].values[5:], np.reshape(rest[2].losses, (3, 2)).mean(1), rtol=1e-6)


def test_going_back_within_one_process_is_a_new_segment(tmp_path: Path) -> None:
    tracker = ThalwegTracker(out=tmp_path / "run.tw", probes="none")
    accelerator = Accelerator(cpu=True, log_with=tracker)
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    accelerator.init_trackers("project")

    def train(n: int) -> None:
        for _ in range(n):
            accelerator.backward(model(torch.randn(3, 4)).square().mean())
            optimizer.step()
            optimizer.zero_grad()

    train(3)
    accelerator.save_state(str(tmp_path / "at3"))
    train(4)
    accelerator.load_state(str(tmp_path / "at3"))
    train(2)
    accelerator.end_training()
    run = open_run(tmp_path / "run.tw")
    assert [(s.first_step, s.reason) for s in run.segments] == [
        (0, "resumed from a checkpoint"),
        (3, "closed"),
    ]
    assert run["loss"].steps.tolist() == [0, 1, 2, 3, 4]
    assert len(open_run(tmp_path / "run.tw", segment=0)["loss"]) == 7


def test_models_that_do_not_match_are_refused_in_words_and_given_by_hand(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    models = [nn.Linear(4, 2), nn.Linear(4, 2)]
    g, d = (accelerator.prepare(m) for m in models)
    og, od = (accelerator.prepare(torch.optim.SGD(m.parameters(), lr=0.1)) for m in (g, d))
    lost = ThalwegTracker(out=tmp_path / "no.tw")
    lost.attach(accelerator)
    with pytest.warns(ThalwegWarning, match="attach"):
        accelerator.backward(g(torch.randn(3, 4)).sum())
    lost.finish()
    tracker = ThalwegTracker(out=tmp_path / "run.tw", probes="none")
    tracker.attach(accelerator, {"G": g, "D": d}, {"G": og, "D": od})
    for _ in range(2):
        accelerator.backward(g(torch.randn(3, 4)).sum() + d(torch.randn(3, 4)).sum())
        og.step(), od.step()
    tracker.finish()
    run = open_run(tmp_path / "run.tw")
    assert len(run["G:lr"]) == len(run["D:lr"]) == 2


def test_a_failure_of_the_watch_does_not_reach_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OSError("disk gone")

    monkeypatch.setattr("thalweg.integrations.fits.watch", broken)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, log_with=ThalwegTracker())
    with pytest.warns(ThalwegWarning, match="disk gone"):
        watched = _loop(accelerator, init="early")
        accelerator.end_training()
    assert len(watched[2].losses) == 2 * UPDATES
