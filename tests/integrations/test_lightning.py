"""Lightning, watched: automatic and manual optimization, the same run, one run over a resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("lightning.pytorch")
import lightning.pytorch as L

from thalweg.integrations.lightning import ThalwegCallback, root_of, signal_name, without_twins
from thalweg.record import open_run, open_runs

BATCHES = 12

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*have no `validation_step`.*"
)


class Keeps(L.LightningModule):  # type: ignore[misc]  # lightning is not followed
    """A classifier that keeps its own list of losses and raw gradient norms."""

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.rates: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("accuracy", (batch[1] == 0).float().mean())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        out = self.net(batch[0])
        self.log("val_loss", F.cross_entropy(out, batch[1]))
        self.log("hits", (out.argmax(-1) == batch[1]).float().mean())

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        grads = [p.grad.double().square().sum() for p in self.parameters()]
        self.norms.append(float(torch.stack(grads).sum().sqrt()))
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ByHand(Keeps):
    """The same with manual optimization, returning nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class Two(L.LightningModule):  # type: ignore[misc]  # lightning is not followed
    """Two optimizers on two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.one, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer, part in zip(self.optimizers(), (self.one, self.other), strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(part(batch[0]), batch[1])
            self.manual_backward(loss)
            optimizer.step()
            self.log("one_loss" if part is self.one else "other_loss", loss)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(p.parameters(), lr=0.1) for p in (self.one, self.other)]


def _loader(n: int = 4 * BATCHES) -> Any:
    made = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 6, generator=made), torch.randint(0, 3, (n,), generator=made)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)


def _fit(
    folder: Path, module: Any, *callbacks: Any, ckpt_path: str | None = None, **settings: Any
) -> tuple[Any, Any]:
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "default_root_dir": folder,
        "log_every_n_steps": 4,
        "num_sanity_val_steps": 1,
    }
    trainer = L.Trainer(callbacks=list(callbacks), **(defaults | settings))
    trainer.fit(module, _loader(), _loader(8), ckpt_path=ckpt_path)
    return trainer, module


def _made(kind: Any) -> Any:
    torch.manual_seed(0)
    return kind()


def _same(a: Any, b: Any) -> bool:
    one, other = a[1].state_dict(), b[1].state_dict()
    same = all(torch.equal(one[k], other[k]) for k in one)
    states = zip(a[0].optimizers, b[0].optimizers, strict=True)
    return same and all(
        torch.equal(torch.as_tensor(s[k]), torch.as_tensor(t[k]))
        for o, p in states
        for s, t in zip(o.state.values(), p.state.values(), strict=True)
        for k in s
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_automatic_optimization_with_accumulation_and_clipping(tmp_path: Path, parts: int) -> None:
    settings: dict[str, Any] = {"accumulate_grad_batches": parts, "gradient_clip_val": 0.4}
    callback = ThalwegCallback(out=tmp_path / "run.tw", cadence=1, name="tiny", config={"mine": 1})
    watched = _fit(tmp_path, _made(Keeps), callback, **settings)
    noise = torch.rand(3)
    plain = _fit(tmp_path, _made(Keeps), **settings)
    assert _same(watched, plain)
    assert torch.equal(noise, torch.rand(3))

    run, kept = open_run(tmp_path / "run.tw"), watched[1]
    updates = BATCHES // parts
    np.testing.assert_array_equal(run["loss"].steps, np.arange(updates))
    np.testing.assert_allclose(
        run["loss"].values, np.reshape(kept.losses, (updates, parts)).mean(1), rtol=1e-6
    )
    np.testing.assert_allclose(run["lr"].values, kept.rates, rtol=1e-6)
    np.testing.assert_allclose(run["grad/norm_raw"].values, kept.norms, rtol=1e-5)
    np.testing.assert_allclose(run["grad/norm"].values, np.minimum(kept.norms, 0.4), rtol=1e-3)
    assert run["samples"].values[-1] == 4 * BATCHES
    assert run.by_role("train loss").name == "loss"
    assert run.config["rate"] == 0.1 and run.config["mine"] == 1
    assert run.config["trainer"]["accumulate_grad_batches"] == parts
    assert run.name == "tiny"
    assert run.segments[-1].reason == "closed"
    assert not run.events("failure") and not run.events("no forward seen")
    assert not kept.net._forward_pre_hooks and not watched[0].optimizers[0]._optimizer_step_post_hooks


def test_what_the_module_logs_is_recorded_apart(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    trainer, module = _fit(tmp_path, _made(Keeps), callback, max_epochs=2, val_check_interval=6)
    run = open_run(tmp_path / "run.tw")
    assert run["val_loss"].steps.tolist() == [6, 12, 18, 24]
    assert run["val_loss"].values[-1] == pytest.approx(float(trainer.callback_metrics["val_loss"]), rel=1e-6)
    assert run["val/hits"].steps.tolist() == [6, 12, 18, 24]
    assert {s.name for s in run.all_by_role("evaluation loss")} == {"val_loss"}
    assert run["train_loss_step"].steps.tolist() == [3, 7, 11, 15, 19, 23]
    np.testing.assert_allclose(run["train_loss_step"].values, run["loss"].values[3::4], rtol=1e-6)
    assert run["train_loss_epoch"].steps.tolist() == [11, 23]
    means = np.reshape(module.losses, (2, BATCHES)).mean(1)
    np.testing.assert_allclose(run["train_loss_epoch"].values, means, rtol=1e-5)
    assert "accuracy" in run and "val/accuracy" not in run


def test_manual_optimization_that_returns_nothing(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", cadence=1)
    watched = _fit(tmp_path, _made(ByHand), callback)
    plain = _fit(tmp_path, _made(ByHand))
    assert _same(watched, plain)
    run = open_run(tmp_path / "run.tw")
    np.testing.assert_array_equal(run["loss"].steps, np.arange(BATCHES))
    np.testing.assert_allclose(run["loss"].values, watched[1].losses, rtol=1e-6)
    np.testing.assert_allclose(run["grad/norm"].values, watched[1].norms, rtol=1e-4)


def test_two_optimizers_have_a_clock_each_and_no_common_loss(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", cadence=1)
    watched = _fit(tmp_path, _made(Two), callback, log_every_n_steps=1)
    assert _same(watched, _fit(tmp_path, _made(Two), log_every_n_steps=1))
    run = open_run(tmp_path / "run.tw")
    assert len(run["0:grad/norm"]) == len(run["1:grad/norm"]) == BATCHES
    assert not [n for n in run.names() if n in ("loss", "0:loss")]
    assert any("several optimizers" in e.details.get("text", "") for e in run.events("not recorded"))
    logged = next(n for n in run.names() if n.endswith("one_loss"))
    assert run[logged].steps.tolist() == list(range(BATCHES))


def test_a_resumed_fit_is_a_second_segment(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"enable_checkpointing": True, "max_epochs": 2}
    each = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "ck", save_top_k=-1, every_n_epochs=1)
    first = ThalwegCallback(out=tmp_path / "run.tw")
    plain = _fit(tmp_path, _made(Keeps), first, each, **settings)
    (early,) = [p for p in (tmp_path / "ck").iterdir() if "epoch=0" in p.name]

    again = ThalwegCallback(out=tmp_path / "run.tw")
    resumed = _fit(tmp_path, _made(Keeps), again, ckpt_path=str(early), max_epochs=2)
    assert resumed[0].global_step == plain[0].global_step == 2 * BATCHES
    assert again.watch is not None and again.watch.path == tmp_path / "run~2.tw"
    run = open_run(tmp_path / "run.tw")
    assert [s.first_step for s in run.segments] == [0, BATCHES]
    np.testing.assert_array_equal(run["loss"].steps, np.arange(2 * BATCHES))
    np.testing.assert_allclose(run["loss"].values[BATCHES:], resumed[1].losses, rtol=1e-6)
    assert run["samples"].values[-1] == 8 * BATCHES


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_ends_the_record_with_its_name(tmp_path: Path, kind: type[BaseException]) -> None:
    class Breaks(Keeps):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 5:
                raise kind("stop")
            return super().training_step(batch, batch_idx)

    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    with pytest.raises((kind, SystemExit)):
        _fit(tmp_path, _made(Breaks), callback)
    run = open_run(tmp_path / "run.tw")
    assert run.segments[-1].reason == kind.__name__
    assert run["loss"].steps.tolist() == [0, 1, 2, 3, 4]


def test_each_fit_with_one_callback_has_its_own_file(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    for _ in range(2):
        _fit(tmp_path, _made(Keeps), callback)
    assert {r.path.name for r in open_runs(tmp_path)} == {"run.tw", "run-2.tw"}
    assert open_run(tmp_path / "run-2.tw")["loss"].steps.tolist() == list(range(BATCHES))


def test_bfloat16_and_value_clipping(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "precision": "bf16-mixed",
        "gradient_clip_val": 0.1,
        "gradient_clip_algorithm": "value",
    }
    watched = _fit(tmp_path, _made(Keeps), ThalwegCallback(out=tmp_path / "run.tw"), **settings)
    assert _same(watched, _fit(tmp_path, _made(Keeps), **settings))
    run = open_run(tmp_path / "run.tw")
    np.testing.assert_allclose(run["loss"].values, watched[1].losses, rtol=1e-6)
    assert "grad/norm_raw" not in run


@pytest.mark.slow
def test_pytorch_lightning_under_its_old_name(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = """
import sys, warnings
warnings.simplefilter("ignore")
import pytorch_lightning as pl, torch
assert "lightning.pytorch" not in sys.modules
from thalweg.integrations.lightning import ThalwegCallback
assert issubclass(ThalwegCallback, pl.Callback) and "lightning.pytorch" not in sys.modules
class M(pl.LightningModule):
    def __init__(self): super().__init__(); self.net = torch.nn.Linear(2, 1)
    def training_step(self, batch, i): return self.net(batch).square().mean()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)
pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
           callbacks=[ThalwegCallback(out="run.tw")]).fit(M(), torch.utils.data.DataLoader(torch.randn(8, 2), batch_size=2))
from thalweg.record import open_run
print(len(open_run("run.tw")["loss"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("4"), done.stderr[-2000:]


def test_the_forward_looked_at_is_that_of_the_only_child_with_parameters() -> None:
    module = Keeps()
    assert root_of(module, module) is module.net
    two = Two()
    assert root_of(two, two) is two


def test_names_of_lightning_become_signals() -> None:
    assert signal_name("loss", True) == "val/loss"
    assert signal_name("train_loss", False) == "train_loss"
    assert without_twins({"a": 1, "a_epoch": 1}) == {"a_epoch": 1}
