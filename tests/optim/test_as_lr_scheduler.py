"""A schedule as torch's scheduler: in a loop, in the Trainer and in Lightning, resumed as if it had not stopped."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from thalweg.core.errors import UsageError

s = tw.schedules
STEPS = 12
SCHEDULE = s.WSD(peak=0.02, total=STEPS, warmup=3, decay=0.5)


def optimizer(*rates: Any) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates or (0.1,)]
    return torch.optim.SGD(groups)


def test_it_is_torchs_own_kind_and_writes_the_schedules_values() -> None:
    opt = optimizer(0.1, 0.1)
    scheduler = tw.optim.as_lr_scheduler(SCHEDULE, opt)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    for t in range(STEPS + 3):
        assert [g["lr"] for g in opt.param_groups] == [SCHEDULE(t)] * 2 == scheduler.get_last_lr()
        opt.step()
        scheduler.step()


def test_groups_with_different_rates_are_refused_or_multiplied() -> None:
    with pytest.raises(UsageError, match="relative=True"):
        tw.optim.as_lr_scheduler(SCHEDULE, optimizer(0.1, 0.2))
    opt = optimizer(0.1, 0.2)
    scheduler = tw.optim.as_lr_scheduler(s.Linear(start=1.0, total=10), opt, relative=True)
    opt.step()
    scheduler.step()
    assert [g["lr"] for g in opt.param_groups] == pytest.approx([0.09, 0.18])


def test_a_tensor_is_filled_in_place() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    opt = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=rate, foreach=False, capturable=True)
    scheduler = tw.optim.as_lr_scheduler(SCHEDULE, opt)
    held = opt.param_groups[0]["lr"]
    opt.step()
    scheduler.step()
    scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": 5})
    assert opt.param_groups[0]["lr"] is held and held.item() == SCHEDULE(5)


@given(stop=st.integers(0, 20), relative=st.booleans())
@settings(max_examples=25, deadline=None)
def test_resumed_from_a_checkpoint_that_holds_only_plain_values(stop: int, relative: bool) -> None:
    rates = (0.1, 0.2) if relative else (0.1, 0.1)
    first, second, whole = optimizer(*rates), optimizer(*rates), optimizer(*rates)
    before = tw.optim.as_lr_scheduler(SCHEDULE, first, relative=relative)
    straight = tw.optim.as_lr_scheduler(SCHEDULE, whole, relative=relative)
    for _ in range(stop):
        for opt, scheduler in ((first, before), (whole, straight)):
            opt.step()
            scheduler.step()
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = tw.optim.as_lr_scheduler(SCHEDULE, second, relative=relative)
    after.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(5):
        assert [g["lr"] for g in second.param_groups] == [g["lr"] for g in whole.param_groups]
        assert after.get_last_lr() == straight.get_last_lr()
        for opt, scheduler in ((second, after), (whole, straight)):
            opt.step()
            scheduler.step()


def test_a_state_of_something_else_is_refused() -> None:
    state = tw.optim.as_lr_scheduler(SCHEDULE, optimizer(0.1)).state_dict()
    with pytest.raises(UsageError, match="of 1 groups"):
        tw.optim.as_lr_scheduler(SCHEDULE, optimizer(0.1, 0.1)).load_state_dict(state)
    with pytest.raises(UsageError, match="relative"):
        tw.optim.as_lr_scheduler(SCHEDULE, optimizer(0.1), relative=True).load_state_dict(state)


# -- the Trainer ----------------------------------------------------------------------------------------------


def trainer(folder: Path, **arguments: Any) -> tuple[Any, list[float]]:
    """A Trainer of a small network, and the rates of its updates."""
    transformers = pytest.importorskip("transformers")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": (self.layer(x)[:, 0] - labels).square().mean()}

    class Rates(transformers.TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(kwargs["optimizer"].param_groups[0]["lr"])

    seen: list[float] = []
    torch.manual_seed(0)
    model = Net()
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    opt = torch.optim.AdamW(model.parameters(), lr=1.0)
    settings_ = {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": 4, "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "save_strategy": "steps", "save_steps": 5, "logging_steps": 50,
    }  # fmt: skip
    made = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**(settings_ | arguments)),
        train_dataset=[{"x": row, "labels": row.sum()} for row in rows],
        optimizers=(opt, tw.optim.as_lr_scheduler(SCHEDULE, opt)),
        callbacks=[Rates()],
    )
    return made, seen


def test_the_trainer_trains_with_it_and_resumes_exactly(tmp_path: Path) -> None:
    whole, rates = trainer(tmp_path / "whole")
    whole.train()
    assert rates == SCHEDULE.values().tolist()
    resumed, rates = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    assert rates == SCHEDULE.values()[5:].tolist()
    assert torch.equal(whole.model.layer.weight, resumed.model.layer.weight)


# -- Lightning ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_lightning_trains_with_it_and_resumes_exactly(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Net(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)
            self.rates: list[float] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).square().mean()

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.rates.append(optimizer.param_groups[0]["lr"])

        def configure_optimizers(self) -> Any:
            opt = torch.optim.AdamW(self.parameters(), lr=1.0)
            scheduler = tw.optim.as_lr_scheduler(SCHEDULE, opt)
            return {"optimizer": opt, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def fit(steps: int, checkpoint: Path | None = None) -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = Net()
        four = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
        # every batch the same: within an epoch Lightning doesn't resume the data
        rows = torch.utils.data.TensorDataset(four.repeat(STEPS, 1))
        loader = torch.utils.data.DataLoader(rows, batch_size=4)
        runner = lightning.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        runner.fit(model, loader, ckpt_path=checkpoint)
        return model, runner

    whole, _ = fit(STEPS)
    assert whole.rates == SCHEDULE.values().tolist()
    first, runner = fit(5)
    runner.save_checkpoint(tmp_path / "five.ckpt")
    resumed, _ = fit(STEPS, tmp_path / "five.ckpt")
    assert first.rates + resumed.rates == whole.rates
    assert torch.equal(whole.layer.weight, resumed.layer.weight)
