"""What every default instrument must do, whichever it is: a new one gets these tests by being in ``DEFAULT``."""

import copy
import importlib
import random
import re
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import Transformer, mlp, sequences, sgd, train, troubles, vectors
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import thalweg as tw
from thalweg.core import methods
from thalweg.core.bibliography import paper
from thalweg.record import Run
from thalweg.watching import Instrument, When
from thalweg.watching.instruments import DEFAULT

LOOP = {"loss", "lr", "lr/*", "time/step", "samples", "throughput/examples", "amp/scale", "amp/skipped"}

every = pytest.mark.parametrize("kind", DEFAULT, ids=lambda k: k.card.name)


def emitted(kind: type[Instrument]) -> set[str]:
    return {e.name + ("/*" if e.per_layer else "") for e in kind.emits}


def watched(kind: type[Instrument], model: nn.Module, optimizer: Any, **options: Any) -> tw.watching.Watch:
    return tw.watch(model, optimizer, probes=kind.card.name, cadence=1, **options)


def own_signals(run: Run) -> list[str]:
    return [n for n in run.names() if not any(fnmatchcase(n, p) for p in LOOP)]


# -- the card ---------------------------------------------------------------------------------------------


@every
def test_the_card_is_complete(kind: type[Instrument]) -> None:
    card = kind.card
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", card.name)
    assert card.kind == "instrument"
    assert card.summary.endswith(".")
    assert len(card.summary) <= 120
    assert card.cost
    for number in card.papers:
        assert paper(number).title
    for symbol in card.symbols:
        assert card.formula, f"{symbol} is a symbol of no formula"


@every
def test_the_card_names_the_signals_that_are_emitted(kind: type[Instrument]) -> None:
    for name in emitted(kind):
        assert any(fnmatchcase(name, pattern) for pattern in kind.card.signals), name
    for pattern in kind.card.signals:
        assert any(fnmatchcase(name, pattern) for name in emitted(kind)), pattern


@every
def test_one_file_holds_the_card_and_is_in_the_index(kind: type[Instrument]) -> None:
    module = importlib.import_module(kind.__module__)
    assert module.CARD is kind.card
    assert module.__doc__
    assert kind.__doc__
    assert kind.card in [c for c in methods(kind="instrument") if c.name == kind.card.name]


@every
def test_needs_and_moments_are_ones_that_the_plan_knows(kind: type[Instrument]) -> None:
    moments = kind.when if isinstance(kind.when, tuple) else (kind.when,)
    assert all(isinstance(m, When) for m in moments)
    assert kind.needs.shortest >= 1
    assert not kind.needs.rides or kind.needs.rides in {k.card.name for k in DEFAULT}
    assert kind.needs.forward == (When.FORWARD in moments)
    assert hasattr(kind, "state_dict") == hasattr(kind, "load_state_dict")


# -- situations -------------------------------------------------------------------------------------------


def plain() -> tuple[nn.Module, Any, Any]:
    model = mlp()
    return model, sgd(model), vectors(4)


def frozen() -> tuple[nn.Module, Any, Any]:
    model = mlp()
    model[0].requires_grad_(False)
    return model, sgd(model), vectors(4)


def tied() -> tuple[nn.Module, Any, Any]:
    model = Transformer()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2), sequences(4)


def several_groups() -> tuple[nn.Module, Any, Any]:
    model = mlp()
    groups = [
        {"params": model[0].parameters(), "lr": 0.1, "weight_decay": 0.1},
        {"params": model[1].parameters()},
        {"params": model[3].parameters(), "lr": torch.tensor(0.02)},
    ]
    return model, torch.optim.AdamW(groups, lr=1e-3, foreach=False), vectors(4)


class Branches(nn.Module):
    """A branch that is used every other time."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(10, 10), nn.Linear(10, 4)
        self.sometimes, self.never = nn.Linear(10, 10), nn.Linear(10, 10)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.trunk(x)
        return self.head(self.sometimes(x).relu() if self.calls % 2 else x)


def missing_gradients() -> tuple[nn.Module, Any, Any]:
    model = Branches()
    return model, sgd(model, momentum=0.9), vectors(4)


def sparse_gradients() -> tuple[nn.Module, Any, Any]:
    model = nn.Sequential(nn.Embedding(17, 6, sparse=True), nn.Linear(6, 17))
    return model, sgd(model), sequences(4)


class Nothing(nn.Module):
    """Gradients that are zero everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * 0.0


def zero_gradients() -> tuple[nn.Module, Any, Any]:
    model = Nothing()
    return model, torch.optim.Adam(model.parameters()), vectors(4)


def nan_gradients() -> tuple[nn.Module, Any, Any]:
    model = mlp()
    batches = vectors(4)
    batches[1][0][0, 0] = float("nan")
    return model, sgd(model, momentum=0.9), batches


def bfloat16() -> tuple[nn.Module, Any, Any]:
    model = mlp().bfloat16()
    return model, torch.optim.AdamW(model.parameters()), [(x.bfloat16(), y) for x, y in vectors(4)]


def float64() -> tuple[nn.Module, Any, Any]:
    model = mlp().double()
    return model, torch.optim.AdamW(model.parameters()), [(x.double(), y) for x, y in vectors(4)]


def mixed_types() -> tuple[nn.Module, Any, Any]:
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4).double())
    model[1].register_forward_hook(lambda module, args, output: output.double())
    return model, sgd(model, momentum=0.5, foreach=False), vectors(4)


def no_state_yet() -> tuple[nn.Module, Any, Any]:
    model = mlp()
    return model, torch.optim.Adam(model.parameters()), vectors(1)


class Scalar(nn.Module):
    """One-element parameters, with and without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4] * self.slope + self.offset


def one_element() -> tuple[nn.Module, Any, Any]:
    model = Scalar()
    return model, sgd(model, momentum=0.9, nesterov=True), vectors(4)


def empty_parameter() -> tuple[nn.Module, Any, Any]:
    model = mlp()
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3)))
    return model, sgd(model), vectors(4)


def complex_parameter() -> tuple[nn.Module, Any, Any]:
    class Phase(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = nn.Parameter(torch.ones(10, 4, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x.to(torch.complex64) @ self.turn.conj()).abs()

    model = Phase()
    return model, sgd(model, momentum=0.9), vectors(4)


def no_optimizer() -> tuple[nn.Module, Any, Any]:
    return mlp(), None, vectors(4)


SITUATIONS = (
    plain,
    frozen,
    tied,
    several_groups,
    missing_gradients,
    sparse_gradients,
    zero_gradients,
    nan_gradients,
    bfloat16,
    float64,
    mixed_types,
    no_state_yet,
    one_element,
    empty_parameter,
    complex_parameter,
)
everywhere = pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.__name__)


@every
@everywhere
def test_it_works_and_writes_its_own_signals_only(
    kind: type[Instrument], situation: Callable[[], Any]
) -> None:
    torch.manual_seed(0)
    model, optimizer, batches = situation()
    watch = watched(kind, model, optimizer)
    losses = train(model, optimizer, batches, watch)
    watch.close()
    run = tw.open_run(watch.path)
    assert troubles(run) == []
    assert run["loss"].values == pytest.approx(np.float32(losses), nan_ok=True)
    allowed = emitted(kind)
    for name in own_signals(run):
        assert any(fnmatchcase(name, pattern) for pattern in allowed), name


@every
def test_it_writes_something_where_all_it_needs_is_there(kind: type[Instrument]) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = watched(kind, model, optimizer)
    batches = vectors(9)
    if kind.card.name == "nonfinite-gradient":
        batches[6][0][:] = float("nan")
    for i, (x, y) in enumerate(batches[:8]):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        if i % 2:
            optimizer.step()
            optimizer.zero_grad()
    watch.close()
    run = tw.open_run(watch.path)
    assert troubles(run) == []
    wanted = {n for n in emitted(kind) if "device" not in n and n not in NOT_WITH_ADAM}
    for pattern in wanted:
        assert any(fnmatchcase(n, pattern) for n in own_signals(run)), pattern


NOT_WITH_ADAM = {"hyper/momentum/*", "hyper/dampening/*", "hyper/alpha/*"}


@every
def test_it_works_without_an_optimizer(kind: type[Instrument]) -> None:
    torch.manual_seed(0)
    model = mlp()
    watch = watched(kind, model, None)
    for x, y in vectors(4):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        watch.step()
        model.zero_grad()
    watch.close()
    run = tw.open_run(watch.path)
    assert troubles(run) == []
    assert run["time/step"].steps.tolist() == [0, 1, 2, 3]


@every
def test_it_works_where_parameters_are_added_later(kind: type[Instrument]) -> None:
    torch.manual_seed(0)
    model = mlp()
    model[3].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    watch = watched(kind, model, optimizer)
    train(model, optimizer, vectors(3), watch)
    model[3].requires_grad_(True)
    optimizer.add_param_group({"params": list(model[3].parameters()), "lr": 1e-3})
    train(model, optimizer, vectors(3), watch)
    watch.close()
    run = tw.open_run(watch.path)
    assert troubles(run) == []
    assert run.events("parameters changed")[0].details["added"] == ["3.weight", "3.bias"]
    assert run["loss"].steps.tolist() == list(range(6))


# -- it changes nothing -----------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Dropout, BatchNorm and Python's and NumPy's randomness."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(10, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * (1 + 0.1 * random.random()) + 0.1 * np.random.rand())


def everything(model: nn.Module, optimizer: Any) -> list[Any]:
    return copy.deepcopy(
        [
            dict(model.state_dict()),
            [p.grad for p in model.parameters()],
            [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            optimizer.state_dict(),
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state(),
            Path.cwd(),
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.allow_tf32,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
        ]
    )


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (Tensor, np.ndarray)):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def noisy_run(attach: Callable[[nn.Module, Any], Any], make: Callable[[nn.Module], Any]) -> list[Any]:
    torch.manual_seed(5)
    random.seed(6)
    np.random.seed(7)
    model = Noisy()
    optimizer = make(model)
    watch = attach(model, optimizer)
    states = []
    for i, (x, y) in enumerate(vectors(6)):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        if i % 2 == 0:
            continue
        states.append(everything(model, optimizer))
        optimizer.step()
        states.append(everything(model, optimizer))
        optimizer.zero_grad()
    if watch is not None:
        watch.close()
    return [*states, everything(model, optimizer)]


OPTIMIZERS = {
    "sgd nesterov": lambda m: sgd(m, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2),
}
BARE: dict[str, list[Any]] = {}


@every
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_changes_nothing(kind: type[Instrument], name: str, tmp_path: Path) -> None:
    if name not in BARE:
        BARE[name] = noisy_run(lambda model, optimizer: None, OPTIMIZERS[name])
    seen = noisy_run(lambda model, optimizer: watched(kind, model, optimizer), OPTIMIZERS[name])
    for bare, with_watch in zip(BARE[name], seen, strict=True):
        bare[8] = with_watch[8] = None if with_watch[8] == tmp_path else with_watch[8]
        assert same(bare, with_watch)


# -- it waits for nothing ---------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Notes each operation that would wait for an accelerator and that was asked for by an instrument."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name.startswith(self.NAMES) or masks:
            frame, files = sys._getframe(), []
            while frame is not None:
                files.append(frame.f_code.co_filename)
                frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
            if any("watching/instruments" in f for f in files) and "sumsq.py" not in "".join(files):
                self.found.append(name)
        return func(*args, **(kwargs or {}))


@every
def test_it_does_not_wait_for_the_device(kind: type[Instrument]) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = watched(kind, model, optimizer)
    batches = vectors(9)[:8]
    batches[6][0][:] = float("nan")
    with Waits() as waits:
        for i, (x, y) in enumerate(batches):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
    watch.close()
    assert own_signals(tw.open_run(watch.path))
    allowed = 4 if kind.card.name == "nonfinite-gradient" else 0  # reads the norm, on the CPU only
    assert len(waits.found) <= allowed, waits.found


def test_the_guard_sees_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from thalweg.watching.instruments.zero_gradient import ZeroGradient

    plain = ZeroGradient.measure

    def waiting(self: ZeroGradient, view: Any) -> Any:
        measured = plain(self, view)
        assert measured is not None
        exec(  # as if the line stood in an instrument's file
            compile("tensor.sum().item()", "watching/instruments/waiting.py", "exec"),
            {"tensor": measured.values["filled"]},
        )
        return measured

    monkeypatch.setattr(ZeroGradient, "measure", waiting)
    model = mlp()
    optimizer = sgd(model)
    watch = watched(ZeroGradient, model, optimizer)
    with Waits() as waits:
        train(model, optimizer, vectors(2), watch)
    assert waits.found == ["_local_scalar_dense"] * 2
