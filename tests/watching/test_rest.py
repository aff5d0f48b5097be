"""Steps at which nothing is due: the hook before the optimizer's step rests, and nothing is missed by that."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_training import mlp, record_of, sgd, steps_of, train, troubles, vectors
from torch import Tensor, nn

import thalweg as tw
from thalweg.watching.governor import Governor
from thalweg.watching.instruments import DEFAULT
from thalweg.watching.track import FINGERPRINT_EVERY


def rare_watch(model: nn.Module, optimizer: Any, cadence: int = 1000) -> Any:
    """After the first step nothing is due for a long time."""
    return tw.watch(model, optimizer, cadence=cadence)


@given(
    step=st.integers(0, 500), cadence=st.sampled_from([1, 2, 7, 10, 100]), off=st.integers(0, len(DEFAULT))
)
def test_nothing_is_due_while_the_governor_says_so(step: int, cadence: int, off: int) -> None:
    governor = Governor([kind() for kind in DEFAULT], 0.03, cadence)
    for planned in governor.planned[:off]:
        governor.switch_off(planned.name)
    until = governor.idle_until(step)
    assert all(governor.plan(s).idle for s in range(step, int(min(until, step + 200))))
    assert until == float("inf") or not governor.plan(int(until)).idle


def test_no_instrument_is_never_due() -> None:
    assert Governor([], 0.03).idle_until(3) == float("inf")


@pytest.mark.parametrize("first", range(1, 12))
def test_a_closure_given_late_is_followed_from_the_next_step_on(first: int) -> None:
    """Three evaluations a step: the value of the first counts, at every step but the one that met the resting hook."""
    model = mlp()
    optimizer = ThreeEvaluations(model.parameters(), lr=0.01)
    watch = rare_watch(model, optimizer)
    logged: dict[int, list[float]] = {}
    for step, (x, y) in enumerate(vectors(20)):

        def closure(x: Tensor = x, y: Tensor = y, step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            watch.log(loss=loss)
            logged.setdefault(step, []).append(loss.item())
            return loss

        if step >= first:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    record = record_of(watch)
    seen = steps_of(record, "loss")
    assert sorted(seen) == list(range(20))
    for step in set(range(20)) - {first}:
        assert seen[step] == pytest.approx(logged[step][0], rel=1e-6)
    assert len(logged[19]) == 3
    assert troubles(record) == []


class ThreeEvaluations(torch.optim.Optimizer):
    """Gradient descent that asks a closure three times, and moves after each."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = None
        for _ in range(3 if closure is not None else 1):
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p -= group["lr"] * p.grad
        return loss


def test_a_group_added_while_nothing_is_due_is_noticed_soon() -> None:
    model = mlp()
    head = nn.Linear(3, 3)
    optimizer = sgd(model)
    watch = rare_watch(model, optimizer)
    train(model, optimizer, vectors(13), watch)
    optimizer.add_param_group({"params": list(head.parameters())})
    train(model, optimizer, vectors(FINGERPRINT_EVERY), watch)
    changes = record_of(watch).events("parameters changed")
    assert len(changes) == 1
    assert 13 <= changes[0].step <= 13 + FINGERPRINT_EVERY


def test_skips_by_a_fused_optimizer_count_also_while_nothing_is_due() -> None:
    """``found_inf`` appears in the middle of the run: an update that it skips is none."""
    model = mlp()
    optimizer = ThreeEvaluations(model.parameters(), lr=0.01)
    watch = rare_watch(model, optimizer)
    for step, batch in enumerate(vectors(20)):
        if step >= 5:
            optimizer.found_inf = torch.tensor(float(step in (5, 8)))
        train(model, optimizer, [batch], watch)
    assert sorted(steps_of(record_of(watch), "lr")) == list(range(18))
