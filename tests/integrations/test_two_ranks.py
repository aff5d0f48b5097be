"""Two processes with DDP: nothing hangs, one process records, and gradients are those of both."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thalweg.record import open_run

pytestmark = pytest.mark.slow

_TRAINER = """
import sys; sys.path.insert(0, TESTS)
import json, test_transformers as t
from pathlib import Path
from thalweg.integrations.transformers import ThalwegCallback
trainer = t._trainer(Path("."), ThalwegCallback(out="run.tw", cadence=1), ddp_backend="gloo", eval_strategy="steps",
                     eval_steps=4, per_device_train_batch_size=2)
trainer.train()
assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
if trainer.is_world_process_zero():
    Path("logs.json").write_text(json.dumps(trainer.state.log_history))
"""

_LIGHTNING = """
import sys; sys.path.insert(0, TESTS)
import test_lightning as t
from pathlib import Path
from torch.nn import functional as F
from thalweg.integrations.lightning import ThalwegCallback
class Synced(t.Keeps):
    def training_step(self, batch, index):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=True, prog_bar=True)
        return loss
    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)
trainer, module = t._fit(Path("."), t._made(Synced), ThalwegCallback(out="run.tw", cadence=1), devices=2, strategy="ddp",
                         max_epochs=2, val_check_interval=3, gradient_clip_val=0.4)
if trainer.global_rank == 0:
    Path("norms.txt").write_text(" ".join(map(repr, module.norms)))
"""


def _run(code: str, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", f"TESTS = {str(Path(__file__).parent)!r}\n{code}"],
            cwd=folder,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=180)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)[-3000:]


def test_a_trainer_on_two_ranks(tmp_path: Path) -> None:
    import json

    _run(_TRAINER, tmp_path)
    assert [p.name for p in tmp_path.glob("*.tw")] == ["run.tw"]
    run = open_run(tmp_path / "run.tw")
    logs = json.loads((tmp_path / "logs.json").read_text())
    np.testing.assert_array_equal(run["loss"].steps, np.arange(12))
    (said,) = run.events("one rank")
    assert said.details["signals"] == ["samples", "throughput/examples"] and said.details["ranks"] == 2
    norms = [h["grad_norm"] for h in logs if "grad_norm" in h]
    np.testing.assert_allclose(run["grad/norm_raw"].values[2::3], norms, rtol=1e-6)
    assert run["eval/loss"].steps.tolist() == [4, 8, 12]
    np.testing.assert_allclose(
        run["eval/loss"].values, [h["eval_loss"] for h in logs if "eval_loss" in h], rtol=1e-6
    )


def test_lightning_on_two_ranks_with_synchronized_metrics(tmp_path: Path) -> None:
    _run(_LIGHTNING, tmp_path)
    assert [p.name for p in tmp_path.glob("*.tw")] == ["run.tw"]
    run = open_run(tmp_path / "run.tw")
    norms = [float(n) for n in (tmp_path / "norms.txt").read_text().split()]
    np.testing.assert_allclose(run["grad/norm_raw"].values, norms, rtol=1e-5)
    assert run["val_loss"].steps.tolist() == [3, 6, 9, 12]
    assert run["train_loss_epoch"].steps.tolist() == [5, 11]
