"""The values are those of torch's, Transformers' and timm's own schedulers, where they have the schedule."""

from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg.schedules.shape import Schedule

torch = pytest.importorskip("torch")
from torch.optim import lr_scheduler  # noqa: E402

s = tw.schedules
PEAK = 3e-3


def optimizer(rate: float = PEAK, **options: Any) -> Any:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate, **options)


def rates(opt: Any, scheduler: Any, n: int, key: str = "lr") -> list[float]:
    """What n updates are made with."""
    out = []
    for _ in range(n):
        out.append(opt.param_groups[0][key])
        opt.step()
        scheduler.step()
    return out


def assert_equal(schedule: Schedule, theirs: list[float]) -> None:
    np.testing.assert_allclose(schedule(np.arange(len(theirs))), theirs, rtol=1e-12, atol=1e-12 * PEAK)


def in_torch(make: Any, n: int, **options: Any) -> list[float]:
    opt = optimizer(**options)
    return rates(opt, make(opt), n)


TORCH = {
    "constant": (lambda o: lr_scheduler.ConstantLR(o, factor=1.0), s.Constant(peak=PEAK)),
    "linear": (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, 90), s.Linear(start=PEAK, end=0.1 * PEAK, total=90)),
    "linear warm-up": (lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, 30), s.WarmUp(start=0.2 * PEAK, peak=PEAK, total=30)),
    "exponential": (lambda o: lr_scheduler.ExponentialLR(o, 0.97), s.Exponential(peak=PEAK, decay=0.97)),
    "staircase": (lambda o: lr_scheduler.StepLR(o, 13, 0.3), s.Steps(peak=PEAK, every=13, factor=0.3)),
    "milestones": (
        lambda o: lr_scheduler.MultiStepLR(o, [5, 30, 31], 0.3),
        s.Steps(peak=PEAK, milestones=(5, 30, 31), factor=0.3),
    ),
    "polynomial": (lambda o: lr_scheduler.PolynomialLR(o, 80, 1.7), s.Polynomial(peak=PEAK, total=80, power=1.7)),
    "restarts": (
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2, 1e-5),
        s.CosineRestarts(peak=PEAK, period=10, growth=2, final=1e-5),
    ),
    "restarts of one length": (
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 1),
        s.CosineRestarts(peak=PEAK, period=7, growth=1),
    ),
    "one after the other": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 10), lr_scheduler.ExponentialLR(o, 0.9)], [10]
        ),
        s.Exponential(peak=PEAK, decay=0.9).warmed(10, first=0.1 * PEAK),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "schedule"), TORCH.values(), ids=TORCH)
def test_torch(make: Any, schedule: Schedule) -> None:
    assert_equal(schedule, in_torch(make, 120))


def test_torch_cosine_up_to_its_end() -> None:
    # torch's recursion goes up again after T_max
    theirs = in_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, 100, 1e-5), 101)
    assert_equal(s.Cosine(peak=PEAK, final=1e-5, total=100), theirs)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_torch_cyclical(mode: Any) -> None:
    theirs = in_torch(
        lambda o: lr_scheduler.CyclicLR(o, 1e-4, PEAK, 17, mode=mode, gamma=0.99, cycle_momentum=False), 120
    )
    assert_equal(s.Cyclical(low=1e-4, high=PEAK, half=17, mode=mode, gamma=0.99), theirs)


@pytest.mark.parametrize("total", [20, 100, 137])
@pytest.mark.parametrize(("shape", "theirs"), [("cosine", "cos"), ("linear", "linear")])
@pytest.mark.parametrize("three_phase", [False, True])
def test_torch_one_cycle_rate_and_momentum(total: int, shape: Any, theirs: Any, three_phase: bool) -> None:
    def make(opt: Any) -> Any:
        return lr_scheduler.OneCycleLR(opt, PEAK, total, anneal_strategy=theirs, three_phase=three_phase)

    ours = s.OneCycle(peak=PEAK, total=total, shape=shape, three_phase=three_phase)
    opt = optimizer(momentum=0.9)
    scheduler = make(opt)
    found: dict[str, list[float]] = {"lr": [], "momentum": []}
    for t in range(total):
        for key, values in found.items():
            values.append(opt.param_groups[0][key])
        opt.step()
        if t < total - 1:
            scheduler.step()
    assert_equal(ours, found["lr"])
    assert_equal(ours.momentum(), found["momentum"])


def test_torch_radam_makes_the_steps_of_its_warm_up() -> None:
    # with a gradient that is always 1, Adam's step is the rate, and RAdam's the rate times its factor
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = torch.optim.RAdam([weight], lr=1e-3, betas=(0.9, 0.99), eps=0.0)
    moved = []
    for _ in range(300):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        opt.step()
        moved.append(before - weight.item())
    factor = s.RAdamWarmUp(peak=1e-3, beta2=0.99)(np.arange(300))
    begun = factor > 0
    assert begun.sum() == 295 and (np.array(moved)[~begun] > 0).all()
    np.testing.assert_allclose(factor[begun], np.array(moved)[begun], rtol=1e-11)


# -- Transformers ---------------------------------------------------------------------------------------------

HUGGING_FACE = {
    "get_constant_schedule_with_warmup": (
        {"num_warmup_steps": 10}, s.Constant(peak=PEAK).warmed(10)),
    "get_linear_schedule_with_warmup": (
        {"num_warmup_steps": 10, "num_training_steps": 90}, s.Polynomial(peak=PEAK, total=90, warmup=10)),
    "get_cosine_schedule_with_warmup": (
        {"num_warmup_steps": 10, "num_training_steps": 90}, s.Cosine(peak=PEAK, total=90, warmup=10)),
    "get_cosine_with_min_lr_schedule_with_warmup": (
        {"num_warmup_steps": 10, "num_training_steps": 90, "min_lr": 1e-4},
        s.Cosine(peak=PEAK, total=90, warmup=10, final=1e-4)),
    "get_polynomial_decay_schedule_with_warmup": (
        {"num_warmup_steps": 10, "num_training_steps": 90, "lr_end": 1e-5, "power": 2.0},
        s.Polynomial(peak=PEAK, total=90, warmup=10, power=2.0, final=1e-5)),
    "get_inverse_sqrt_schedule": (
        {"num_warmup_steps": 10, "timescale": 50}, s.InverseSqrt(peak=PEAK, warmup=10, timescale=50)),
    "get_cosine_with_hard_restarts_schedule_with_warmup": (
        {"num_warmup_steps": 10, "num_training_steps": 90, "num_cycles": 4},
        s.CosineRestarts(peak=PEAK, period=20, growth=1, total=80).warmed(10)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "schedule"), [(k, *v) for k, v in HUGGING_FACE.items()], ids=HUGGING_FACE
)
def test_transformers(name: str, options: dict[str, Any], schedule: Schedule) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    make = getattr(optimization, name)
    assert_equal(
        schedule, in_torch(lambda o: make(o, **options), 90 if "num_training_steps" in options else 200)
    )


@pytest.mark.parametrize(
    ("shape", "theirs"), [("linear", "linear"), ("sqrt", "1-sqrt"), ("cosine", "cosine")]
)
def test_transformers_wsd(shape: Any, theirs: str) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    options = {"num_warmup_steps": 10, "num_decay_steps": 30, "num_training_steps": 100, "decay_type": theirs}
    ours = s.WSD(peak=PEAK, total=100, warmup=10, decay=30, shape=shape)
    assert_equal(ours, in_torch(lambda o: optimization.get_wsd_schedule(o, **options), 120))


# -- timm -----------------------------------------------------------------------------------------------------


def in_timm(module: str, name: str, n: int, **options: Any) -> list[float]:
    make = getattr(pytest.importorskip(f"timm.scheduler.{module}"), name)
    opt = optimizer()
    scheduler = make(opt, **options)
    out = []
    for t in range(n):
        scheduler.step(t)
        out.append(opt.param_groups[0]["lr"])
    return out


TIMM = {
    "cosine": (
        ("cosine_lr", "CosineLRScheduler", {"t_initial": 90, "lr_min": 1e-5}),
        s.Cosine(peak=PEAK, total=90, final=1e-5)),
    "cosine after a warm-up": (
        ("cosine_lr", "CosineLRScheduler", {"t_initial": 80, "warmup_t": 10, "warmup_lr_init": 1e-4, "warmup_prefix": True}),
        s.Cosine(peak=PEAK, total=90, warmup=10, start=1e-4)),
    "restarts": (
        ("cosine_lr", "CosineLRScheduler", {"t_initial": 9, "cycle_mul": 2.0, "cycle_limit": 9}),
        s.CosineRestarts(peak=PEAK, period=9, growth=2)),
    "polynomial": (
        ("poly_lr", "PolyLRScheduler", {"t_initial": 90, "power": 0.5, "lr_min": 1e-5}),
        s.Polynomial(peak=PEAK, total=90, power=0.5, final=1e-5)),
    "staircase": (
        ("step_lr", "StepLRScheduler", {"decay_t": 20, "decay_rate": 0.4}), s.Steps(peak=PEAK, every=20, factor=0.4)),
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "schedule"), TIMM.values(), ids=TIMM)
def test_timm(theirs: tuple[str, str, dict[str, Any]], schedule: Schedule) -> None:
    module, name, options = theirs
    assert_equal(schedule, in_timm(module, name, 100, **options))
