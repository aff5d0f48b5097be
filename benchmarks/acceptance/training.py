"""The training loop of the grid: a small convolutional network on MNIST's digits, in every way a cell asks for."""

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import thalweg as tw
from acceptance.cells import BATCH, MICRO_BATCHES, TRIES, Cell
from acceptance.fingerprint import gradients
from thalweg.watching import Watch

CLIP = {"clipping": 0.8, "accumulation": math.inf}
"""Limits of the norm; the infinite one only with FSDP2, where the noise scale needs the norm before any clipping."""

SCALE = {"init_scale": 2.0**12, "growth_interval": 3, "growth_factor": 2.0**14, "backoff_factor": 2.0**-14}
"""The fourth try overflows, is skipped, and the scale falls back: all of it within six tries."""

DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Network(nn.Module):
    """Two convolutions, a BatchNorm, dropout, two Linears, and a gain of one element (an empty shard on rank 1)."""

    def __init__(self, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv2d(1, 8, 3, 2, 1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, 2, 1)
        self.dropout = nn.Dropout(0.1)
        self.fc1 = nn.Linear(144, 24)
        self.fc2 = nn.Linear(24, 10)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = checkpoint(self.middle, x, use_reentrant=False) if self.checkpointing else self.middle(x)
        return self.fc2(x * self.gain)

    def middle(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(x)), 3, 2).flatten(1)
        return F.relu(self.fc1(self.dropout(x)))


@dataclass
class Setup:
    """Everything one run needs, freshly seeded."""

    cell: Cell
    network: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    rank: int

    @property
    def clips(self) -> bool:
        """Whether the loop calls clip_grad_norm_, and unscales before it."""
        technique = self.cell.technique
        return technique == "clipping" or (technique == "accumulation" and self.cell.ranks == "fsdp2")


class Observer:
    """What the loop tells of itself, for whoever wants to add things up by hand; here nobody does."""

    def forward(self, micro: int) -> None:
        """A forward begins."""

    def backward(self, micro: int, logits: Tensor, loss: Tensor) -> None:
        """The backward of that forward is done."""

    def gradient(self) -> None:
        """Gradients are final; the update comes next."""

    def updated(self) -> None:
        """The optimizer's step was called."""

    def clipped(self, total: Tensor) -> None:
        """Gradients were clipped; their norm before was ``total``."""


def set_up(cell: Cell, rank: int, backend: str) -> Setup:
    """Seed everything, then make the network, wrapped and compiled, its optimizer and scaler."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    network = Network(cell.technique == "checkpointing")
    model: Any = network
    if cell.ranks == "fsdp2":
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
        fully_shard(network.fc1, mesh=mesh)
        fully_shard(network, mesh=mesh)
    elif cell.ranks == "ddp":
        model = DistributedDataParallel(network)
    if cell.mode == "compiled":
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = torch.compile(model, backend=backend)
    torch.manual_seed(100 + rank)  # dropout differs between ranks
    scaler = torch.amp.GradScaler("cpu", **SCALE) if cell.precision == "fp16" else None
    return Setup(cell, network, model, _optimizer(cell, network), scaler, rank)


def _optimizer(cell: Cell, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW; SGD with Nesterov's momentum under accumulation, plain momentum under a closure. Two groups.

    Torch's fused SGD takes no DTensor, so that FSDP2 with a fused optimizer is always AdamW.
    """
    weights = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0, "lr": 2e-3}]
    kernel: dict[str, Any] = {cell.kernel: True}
    if cell.technique in ("accumulation", "closure") and (cell.ranks, cell.kernel) != ("fsdp2", "fused"):
        nesterov = cell.technique == "accumulation"
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=nesterov, **kernel)
    return torch.optim.AdamW(groups, lr=3e-3, **kernel)


def digits() -> tuple[Tensor, Tensor]:
    """Training digits as floats, and their classes."""
    data = tw.data.mnist_5k()
    count = 2 * TRIES * MICRO_BATCHES * BATCH
    return (
        torch.from_numpy(data.x_train[:count]).float().permute(0, 3, 1, 2) / 255,
        torch.from_numpy(data.y_train[:count]).long(),
    )


def train(setup: Setup, data: tuple[Tensor, Tensor], observer: Observer, watch: Watch | None) -> list[str]:
    """Train for `TRIES` tries; the fingerprint of the gradients after each, before they are zeroed."""
    setup.model.train()
    marks = []
    for tick in range(TRIES):
        for group in setup.optimizer.param_groups:
            group["lr"] *= 0.9
        _one_try(setup, data, tick, observer, watch)
        marks.append(gradients(setup.network))
        setup.optimizer.zero_grad()
    return marks


def _one_try(setup: Setup, data: tuple[Tensor, Tensor], tick: int, observer: Observer, watch: Any) -> None:
    def forward_and_backward(micro: int) -> Tensor:
        x, y = _batch(data, tick, micro, setup.rank)
        observer.forward(micro)
        with _autocast(setup.cell):
            logits = setup.model(x)
            loss = F.cross_entropy(logits, y)
        part = loss / micros
        (part if setup.scaler is None else setup.scaler.scale(part)).backward()
        observer.backward(micro, logits, loss)
        if watch is not None:
            watch.log(loss=loss)
        return loss

    def closure() -> Tensor:
        setup.optimizer.zero_grad()
        loss = forward_and_backward(0)
        observer.gradient()
        return loss

    micros = MICRO_BATCHES if setup.cell.technique == "accumulation" else 1
    if setup.cell.technique == "closure":
        _step(setup, closure)
        observer.updated()
        return
    for micro in range(micros):
        with _without_sync(setup, micro < micros - 1):
            forward_and_backward(micro)
    if setup.clips:
        _clip(setup, observer, watch)
    observer.gradient()
    _step(setup, None)
    observer.updated()


def _step(setup: Setup, closure: Callable[[], Tensor] | None) -> None:
    arguments = {} if closure is None else {"closure": closure}
    if setup.scaler is None:
        setup.optimizer.step(**arguments)
    else:
        setup.scaler.step(setup.optimizer, **arguments)
        setup.scaler.update()


def _clip(setup: Setup, observer: Observer, watch: Any) -> None:
    if setup.scaler is not None:
        setup.scaler.unscale_(setup.optimizer)
    limit = CLIP[setup.cell.technique]
    if watch is not None:
        watch.clip_grad_norm_(limit)
        return
    parameters = [p for g in setup.optimizer.param_groups for p in g["params"]]
    observer.clipped(torch.nn.utils.clip_grad_norm_(parameters, limit))


def _batch(data: tuple[Tensor, Tensor], tick: int, micro: int, rank: int) -> tuple[Tensor, Tensor]:
    start = ((tick * MICRO_BATCHES + micro) * 2 + rank) * BATCH
    return data[0][start : start + BATCH], data[1][start : start + BATCH]


@contextlib.contextmanager
def _autocast(cell: Cell) -> Iterator[None]:
    dtype = DTYPES[cell.precision]
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        yield


def _without_sync(setup: Setup, wanted: bool) -> Any:
    """DDP's no_sync for every micro-batch but the last."""
    wrapped = getattr(setup.model, "_orig_mod", setup.model)
    if wanted and isinstance(wrapped, DistributedDataParallel):
        return wrapped.no_sync()
    return contextlib.nullcontext()
