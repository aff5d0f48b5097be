"""The watched run is the same run, bit for bit: weights, buffers, gradients, optimizer state, modes, flags, randomness."""

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import thalweg as tw
from acceptance.fingerprint import differences, fingerprint, gradients, hooks
from thalweg.watching.instruments import DEFAULT

STEPS = 10
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "SGD with Nesterov momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=3e-3),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=3e-3, fused=True),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4, line_search_fn="strong_wolfe"),
}
WATCHES: dict[str, dict[str, Any]] = {
    "every step": {"cadence": 1},
    "auto": {"cadence": "auto"},
    "fixed": {"cadence": "fixed"},
    "only what is logged": {"probes": "none"},
    "tiny memory": {"cadence": 1, "memory": 1 << 16},
}


class Digits(Dataset[tuple[Tensor, int]]):
    """MNIST digits, shifted and darkened by Python's, NumPy's and torch's random numbers."""

    def __init__(self, part: str = "train") -> None:
        data = tw.data.mnist_5k()
        count = 160
        images = data.x_train if part == "train" else data.x_test
        self.x = torch.from_numpy(images[:count]).float().permute(0, 3, 1, 2) / 255
        self.y = (data.y_train if part == "train" else data.y_test)[:count].astype(int).tolist()
        self.part = part

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = self.x[index]
        if self.part == "train":
            x = torch.roll(x, (random.randint(-2, 2), int(np.random.randint(-2, 3))), (1, 2))
            x = x * np.float32(np.random.uniform(0.8, 1.2)) + 0.01 * torch.randn(())
        return x, self.y[index]


def network() -> nn.Module:
    """BatchNorm, ReLU in place, two dropouts, a GroupNorm, two Linears."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, 2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Conv2d(6, 8, 3, 2),
        nn.GroupNorm(8, 8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(200, 20),
        nn.Tanh(),
        nn.Linear(20, 10),
    )


@dataclass
class Outcome:
    """What a run left behind."""

    state: dict[str, str]
    gradients: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def run(
    optimizer_of: Callable[[Any], torch.optim.Optimizer],
    path: Path | None,
    *,
    workers: int = 0,
    model_of: Callable[[], nn.Module] = network,
    **options: Any,
) -> Outcome:
    """Train for `STEPS` steps, with an evaluation after each third, watched if there is a path."""
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    model = model_of()
    optimizer = optimizer_of(model.parameters())
    bare, folder = hooks(model, optimizer), str(Path.cwd())
    loader = DataLoader(Digits(), batch_size=16, shuffle=True, num_workers=workers)
    outcome = Outcome({})
    with tw.watch(model, optimizer, out=path, **options) if path else nullcontext() as watch:
        for step, (x, y) in enumerate(endless(loader)):
            if step == STEPS:
                break
            outcome.losses.append(one_step(model, optimizer, x, y, watch))
            outcome.gradients.append(gradients(model))
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            if step % 3 == 2:
                outcome.evaluations.append(evaluate(model, watch))
        outcome.state = fingerprint(model, optimizer)
    assert folder in outcome.state.pop("folder")
    if path:
        assert differences(bare, hooks(model, optimizer)) == []
        outcome.names = tw.open_run(path).names()
    return outcome


def endless(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, watch: Any) -> float:
    """One update, by a closure where the optimizer wants one."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        loss = optimizer.step(closure)
    else:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
    if watch is not None:
        watch.log(loss=loss, tokens=len(x))
    if not isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model: nn.Module, watch: Any) -> float:
    """Accuracy on held-out digits; the model is left in the mode it was in."""
    model.eval()
    digits = Digits("test")
    right = (model(digits.x).argmax(1) == torch.tensor(digits.y)).float().mean()
    model.train()
    if watch is not None:
        watch.log({"eval/accuracy": right})
    return float(right)


def assert_same(plain: Outcome, watched: Outcome) -> None:
    assert watched.losses == plain.losses
    assert watched.evaluations == plain.evaluations
    assert watched.gradients == plain.gradients
    assert differences(plain.state, watched.state) == []
    assert len(plain.state) > 60


@pytest.fixture(scope="module")
def plain() -> dict[str, Outcome]:
    """Each optimizer's unwatched run."""
    return {name: run(make, None) for name, make in OPTIMIZERS.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("watch", WATCHES)
def test_a_watched_run_is_bit_identical(
    optimizer: str, watch: str, plain: dict[str, Outcome], tmp_path: Path
) -> None:
    watched = run(OPTIMIZERS[optimizer], tmp_path / "run.tw", **WATCHES[watch])
    assert_same(plain[optimizer], watched)


def test_two_unwatched_runs_are_identical_and_other_seeds_are_not(plain: dict[str, Outcome]) -> None:
    """Without this, the test above would say nothing."""
    assert_same(plain["AdamW"], run(OPTIMIZERS["AdamW"], None))
    other = run(OPTIMIZERS["AdamW"], None, model_of=lambda: (torch.rand(1), network())[1])
    changed = differences(plain["AdamW"].state, other.state)
    for kind in ("weight 0.weight", "buffer 1.running_mean", "optimizer state exp_avg of 9.weight"):
        assert kind in changed


def test_a_fingerprint_sees_each_kind_of_change() -> None:
    """One thing is changed at a time; exactly that must differ."""
    model = network()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    model(torch.randn(4, 1, 28, 28)).sum().backward()
    optimizer.step()
    weight = model[0].weight
    state = optimizer.state[weight]

    def nudge(tensor: Tensor) -> None:
        tensor.detach().view(-1)[0].add_(1e-3)

    changes: dict[str, Callable[[], Any]] = {
        "weight 0.weight": lambda: nudge(weight),
        "grad 0.weight": lambda: nudge(weight.grad),
        "buffer 1.running_var": lambda: nudge(model[1].running_var),
        "optimizer state exp_avg of 0.weight": lambda: nudge(state["exp_avg"]),
        "mode 8": lambda: model[8].eval(),
        "group 0 lr": lambda: optimizer.param_groups[0].update(lr=1.0),
        "random state of python": random.random,
        "random state of numpy": np.random.rand,
        "random state of torch": lambda: torch.rand(1),
    }
    for name, change in changes.items():
        before = fingerprint(model, optimizer)
        change()
        assert differences(before, fingerprint(model, optimizer)) == [name]


def test_watching_every_step_measured_every_default_instrument(tmp_path: Path) -> None:
    """An instrument that was silent would be identical for nothing; the noise scale needs accumulation."""
    names = run(OPTIMIZERS["AdamW"], tmp_path / "run.tw", cadence=1).names
    for kind in DEFAULT:
        if kind.card.name not in ("nonfinite-gradient", "noise-scale"):
            starts = [s.removesuffix("/*") for s in kind.card.signals]
            assert any(n == s or n.startswith(s + "/") for n in names for s in starts), kind.card.name
    assert {"loss", "tokens", "eval/accuracy"} <= set(names)


def test_backend_flags_stay(tmp_path: Path) -> None:
    """Flags that a user has turned are found as they were left."""
    threads = torch.get_num_threads()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, True
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    try:
        watched = run(OPTIMIZERS["AdamW"], tmp_path / "run.tw", cadence=1)
        assert_same(run(OPTIMIZERS["AdamW"], None), watched)
        assert watched.state["flag cudnn"] == "(True, True, True)"
        assert watched.state["flag deterministic"] == "True"
        assert watched.state["flag matmul precision"] == "'medium'"
    finally:
        torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_working_types_are_identical_too(dtype: torch.dtype, tmp_path: Path) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network().to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.to(dtype))

    make = OPTIMIZERS["SGD with momentum"]
    assert_same(run(make, None, model_of=Cast), run(make, tmp_path / "run.tw", model_of=Cast, cadence=1))


def test_a_watch_that_is_closed_midway_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    def half(path: Path | None) -> dict[str, str]:
        torch.manual_seed(5)
        model = network()
        optimizer = OPTIMIZERS["AdamW"](model.parameters())
        watch = tw.watch(model, optimizer, out=path, cadence=1) if path else None
        digits = Digits("test")
        for step in range(6):
            one_step(
                model, optimizer, digits.x[:32], torch.tensor(digits.y[:32]), watch if step < 3 else None
            )
            optimizer.zero_grad()
            if watch is not None and step == 3:
                watch.close()
        return fingerprint(model, optimizer)

    assert differences(half(None), half(tmp_path / "run.tw")) == []


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_see_the_same_randomness(
    context: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_loader = DataLoader.__init__

    def with_context(self: Any, *args: Any, **kwargs: Any) -> None:
        plain_loader(self, *args, multiprocessing_context=context, **kwargs)

    monkeypatch.setattr(DataLoader, "__init__", with_context)
    make = OPTIMIZERS["AdamW"]
    assert_same(run(make, None, workers=2), run(make, tmp_path / "run.tw", workers=2, cadence=1))
