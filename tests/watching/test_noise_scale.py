"""The gradient noise scale against models whose gradient covariance is known."""

from typing import Any

import numpy as np
import pytest
import torch
from small_training import mlp, record_of, sgd, steps_of, troubles, vectors
from torch import Tensor, nn

import thalweg as tw
from thalweg.record import Run


class Drift(nn.Module):
    """A linear model whose per-example gradient is the example itself: mean G, covariance S known."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


MEAN, SPREAD, SIZE = 0.3, 2.0, 16
TRUE_SQUARED = MEAN**2 * SIZE
TRUE_TRACE = SPREAD**2 * SIZE


def drift_run(
    updates: int, *, micro: int = 4, batch: int = 8, divide: bool = True, seed: int = 0, **options: Any
) -> Run:
    g = torch.Generator().manual_seed(seed)
    model = Drift(SIZE)
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale", **options)
    for _ in range(updates):
        for _ in range(micro):
            x = MEAN + SPREAD * torch.randn(batch, SIZE, generator=g)
            loss = model(x).mean()
            (loss / micro if divide else loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    run = record_of(watch)
    assert troubles(run) == []
    return run


def interval(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), 4 * float(values.std() / np.sqrt(len(values)))


@pytest.mark.parametrize("micro", [2, 5])
def test_trace_and_gradient_are_unbiased(micro: int) -> None:
    run = drift_run(300, micro=micro, divide=False)
    for name, truth in (("noise/trace", TRUE_TRACE), ("noise/gradient_squared", TRUE_SQUARED)):
        mean, error = interval(run[name].values)
        assert abs(mean - truth) < error
        assert error < 0.5 * truth


@pytest.mark.parametrize("divide", [True, False])
def test_the_noise_scale_is_in_examples_whether_the_loss_was_divided_or_not(divide: bool) -> None:
    run = drift_run(250, divide=divide)
    trace, squared = run["noise/trace"].values, run["noise/gradient_squared"].values
    ratio = trace.mean() / squared.mean()
    truth = TRUE_TRACE / TRUE_SQUARED
    relative = np.sqrt((trace.std() / trace.mean()) ** 2 + (squared.std() / squared.mean()) ** 2) / np.sqrt(
        250
    )
    assert abs(ratio / truth - 1) < 4 * relative
    assert run["noise/scale"].spec.unit == "examples"
    assert np.median(run["noise/scale"].values[50:]) == pytest.approx(truth, rel=0.35)


def test_division_cancels_in_the_scale() -> None:
    divided, whole = drift_run(30, divide=True), drift_run(30, divide=False)
    np.testing.assert_allclose(divided["noise/scale"].values, whole["noise/scale"].values, rtol=1e-4)


def test_by_hand_in_float64() -> None:
    g = torch.Generator().manual_seed(3)
    model, batch, micro = Drift(SIZE), 4, 3
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
    wanted = []
    for _ in range(5):
        means = []
        for _ in range(micro):
            x = MEAN + SPREAD * torch.randn(batch, SIZE, generator=g)
            model(x).mean().backward()
            means.append(x.double().mean(0))
        small = float(means[0].square().sum())
        big = float(torch.stack(means).mean(0).square().sum())
        b, B = batch, batch * micro
        wanted.append(((B * big - b * small) / (B - b), (small - big) / (1 / b - 1 / B)))
        optimizer.step()
        optimizer.zero_grad()
    run = record_of(watch)
    np.testing.assert_allclose(run["noise/gradient_squared"].values, [w[0] for w in wanted], rtol=1e-4)
    np.testing.assert_allclose(run["noise/trace"].values, [w[1] for w in wanted], rtol=1e-4)


def accumulating(
    watch: Any, model: nn.Module, optimizer: Any, *, micro: int = 2, updates: int = 4, **how: Any
) -> None:
    for i in range(updates):
        for x, y in vectors(micro + 1, seed=i)[:micro]:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            (how["scaler"].scale(loss) if "scaler" in how else loss).backward()
        how.get("clip", lambda: None)()
        if "scaler" in how:
            how["scaler"].step(optimizer)
            how["scaler"].update()
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=how.get("set_to_none", True))


def plain_scale(updates: int = 4, **how: Any) -> dict[int, float]:
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
    accumulating(watch, model, optimizer, updates=updates, **how)
    return steps_of(record_of(watch), "noise/trace")


def test_gradients_that_are_zeroed_in_place() -> None:
    assert plain_scale(set_to_none=False) == pytest.approx(plain_scale())


def test_clipping_does_not_touch_the_estimate() -> None:
    """The big batch is seen after clipping, the small one before it: the raw norm has to be used."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
    accumulating(watch, model, optimizer, clip=lambda: watch.clip_grad_norm_(0.01))
    run = record_of(watch)
    assert run.get("noise/trace") is None or steps_of(run, "noise/trace") == pytest.approx(
        plain_scale(), rel=1e-4
    )


def test_torchs_own_clipping_leaves_the_noise_scale_out_and_says_so() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
    clip = lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)  # noqa: E731
    accumulating(watch, model, optimizer, clip=clip)
    run = record_of(watch)
    assert troubles(run) == []
    assert "noise/scale" not in run
    (event,) = run.events("not recorded")
    assert event.details["signals"] == ["noise/scale", "noise/trace", "noise/gradient_squared"]
    assert "watch.clip_grad_norm_" in event.details["text"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_scale_does_not_touch_the_estimate(fused: bool) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model, lr=0.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale", scaler=scaler)
    accumulating(watch, model, optimizer, scaler=scaler)
    run = record_of(watch)
    assert run.get("noise/trace") is None or steps_of(run, "noise/trace") == pytest.approx(
        plain_scale(), rel=1e-3
    )


def test_two_forwards_before_one_backward_are_no_accumulation() -> None:
    for set_to_none in (True, False):
        model = mlp()
        optimizer = sgd(model)
        watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
        for (x, y), (x2, y2) in zip(vectors(4), vectors(4, seed=1), strict=True):
            loss = sum(torch.nn.functional.cross_entropy(model(a), b) for a, b in ((x, y), (x2, y2)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
        run = record_of(watch)
        assert troubles(run) == []
        assert not np.isfinite(run["noise/trace"].values).any() if "noise/trace" in run else True


def test_micro_batches_of_unequal_size_are_left_out() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
    for x, y in vectors(2):
        torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert "noise/trace" not in record_of(watch)


def test_no_accumulation_no_estimate() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1, probes="noise-scale")
    for x, y in vectors(4):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert "noise/scale" not in record_of(watch)


def test_the_averages_go_on_after_a_resumption() -> None:
    from thalweg.watching.instruments import NoiseScale

    first = NoiseScale()
    facts = {"batches": np.array([4.0]), "examples": np.array([8.0])}
    for i in range(5):
        first.finish({"small": np.array([9.0 + i]), "big": np.array([100.0])}, facts, ())
    second = NoiseScale()
    second.load_state_dict(first.state_dict())
    more = {"small": np.array([8.0]), "big": np.array([99.0])}
    assert first.finish(more, facts, ())["noise/scale"] == second.finish(more, facts, ())["noise/scale"]
