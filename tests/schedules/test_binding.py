"""`bind`: numbers into parameter groups, of torch's optimizers and of anything else that has them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from thalweg.core.errors import UsageError

s = tw.schedules
FALLING = s.Linear(start=1.0, total=10)


class Groups:
    """All that `bind` asks of an optimizer."""

    def __init__(self, *groups: dict[str, Any]) -> None:
        self.param_groups = list(groups)


def test_the_first_value_is_written_at_once_and_the_next_after_each_update() -> None:
    optimizer = Groups({"lr": 0.1}, {"lr": 0.1})
    handle = FALLING.bind(optimizer)
    seen = []
    for _ in range(12):
        seen.append([group["lr"] for group in optimizer.param_groups])
        assert handle.value == seen[-1][0]
        handle.step()
    assert pytest.approx(np.array([FALLING(np.arange(12))] * 2)) == np.array(seen).T


def test_any_number_of_a_group_can_have_a_schedule() -> None:
    optimizer = Groups({"lr": 1.0, "weight_decay": 0.1, "momentum": 0.9, "betas": (0.9, 0.999)})
    cycle = s.OneCycle(peak=1.0, total=20)
    handles = [
        s.Linear(start=0.1, end=0.3, total=10).bind(optimizer, "weight_decay"),
        cycle.bind(optimizer),
        cycle.momentum().bind(optimizer, "momentum"),
        cycle.momentum(high=0.98, low=0.8).bind(optimizer, "betas.0"),
    ]
    for handle in handles:
        handle.goto(5)
    group = optimizer.param_groups[0]
    assert group["weight_decay"] == pytest.approx(0.2) and group["lr"] == pytest.approx(1.0)
    assert group["momentum"] == pytest.approx(0.85)
    assert group["betas"] == pytest.approx((0.8, 0.999)) and type(group["betas"]) is tuple


def test_groups_with_different_rates_are_refused_unless_it_is_said_which() -> None:
    def optimizer() -> Groups:
        return Groups({"lr": 0.1}, {"lr": 0.01})

    with pytest.raises(UsageError, match=r"different values of lr: \[0.1, 0.01\].*group=.*relative=True"):
        FALLING.bind(optimizer())
    one = optimizer()
    FALLING.bind(one, group=-1).step()
    assert [g["lr"] for g in one.param_groups] == pytest.approx([0.1, 0.9])
    each = optimizer()
    FALLING.bind(each, relative=True).step()
    assert [g["lr"] for g in each.param_groups] == pytest.approx([0.09, 0.009])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "rate"}, "no 'rate'; they have lr, betas"),
        ({"key": "betas"}, "is no number"),
        ({"key": "betas.2"}, "is no number"),
        ({"key": "betas.x"}, "is no number"),
        ({"group": 1}, "has 1 groups"),
    ],
)
def test_what_is_not_there_is_refused_in_words(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FALLING.bind(Groups({"params": [], "lr": 0.1, "betas": (0.9, 0.99)}), **options)


def test_no_groups_a_negative_update_and_a_foreign_state_are_refused() -> None:
    with pytest.raises(UsageError, match="no parameter groups"):
        FALLING.bind(Groups())
    handle = FALLING.bind(Groups({"lr": 0.1}))
    with pytest.raises(UsageError, match="count from 0"):
        handle.goto(-1)
    with pytest.raises(UsageError, match="of 2 groups"):
        handle.load_state_dict({"at": 3, "base": [1.0, 2.0]})


@given(stop=st.integers(0, 40), total=st.integers(1, 40), relative=st.booleans())
@settings(max_examples=40, deadline=None)
def test_resumed_at_any_step_it_goes_on_as_if_it_had_not_stopped(
    stop: int, total: int, relative: bool
) -> None:
    schedule = s.WSD(peak=0.3, total=total, warmup=0.2, decay=0.3)

    def optimizer() -> Groups:
        return Groups({"lr": 0.1}, {"lr": 0.2 if relative else 0.1})

    whole, first, resumed = optimizer(), optimizer(), optimizer()
    straight, before = schedule.bind(whole, relative=relative), schedule.bind(first, relative=relative)
    for _ in range(stop):
        straight.step()
        before.step()
    after = schedule.bind(resumed, relative=relative)
    # as torch's optimizers do it: loading brings the rates of then, in groups that are new objects
    resumed.param_groups = [dict(group) for group in first.param_groups]
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for _ in range(20):
        assert [g["lr"] for g in resumed.param_groups] == [g["lr"] for g in whole.param_groups]
        straight.step()
        after.step()


# -- with torch -----------------------------------------------------------------------------------------------


def train(torch: Any, steps: int, stop: int | None = None) -> Any:
    """A small network's weights after some steps of AdamW; with ``stop``, saved and loaded anew there."""

    def make() -> Any:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1), weight_decay=0.1)
        handles = [
            s.WSD(peak=0.05, total=steps, warmup=3, decay=0.3).bind(optimizer),
            s.Linear(start=0.1, total=steps).bind(optimizer, "weight_decay"),
        ]
        return model, optimizer, handles

    model, optimizer, handles = make()
    data = torch.randn(steps, 8, 4, generator=torch.Generator().manual_seed(1))
    for step in range(steps):
        if step == stop:
            saved = [model.state_dict(), optimizer.state_dict(), *(h.state_dict() for h in handles)]
            model, optimizer, handles = make()
            for part, state in zip([model, optimizer, *handles], saved, strict=True):
                part.load_state_dict(state)
        optimizer.zero_grad()
        model(data[step]).square().mean().backward()
        optimizer.step()
        for handle in handles:
            handle.step()
    return model.weight.detach().clone()


@pytest.mark.parametrize("stop", [0, 1, 7, 19])
def test_a_training_run_resumed_is_the_same_run(stop: int) -> None:
    torch = pytest.importorskip("torch")
    assert torch.equal(train(torch, 20), train(torch, 20, stop))


def test_tensors_are_filled_in_place() -> None:
    torch = pytest.importorskip("torch")
    rate = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(
        [torch.nn.Parameter(torch.zeros(2))], lr=rate, foreach=False, capturable=True
    )
    held = optimizer.param_groups[0]["lr"]
    handle = FALLING.bind(optimizer)
    handle.step()
    assert optimizer.param_groups[0]["lr"] is held and held.item() == pytest.approx(0.9)


@pytest.mark.slow
def test_a_compiled_optimizer_is_not_compiled_again_when_its_rate_is_a_tensor() -> None:
    torch = pytest.importorskip("torch")
    counters = torch._dynamo.utils.counters

    def compilations(rate: Any) -> int:
        torch._dynamo.reset()
        weight = torch.nn.Parameter(torch.zeros(3))
        weight.grad = torch.ones(3)
        optimizer = torch.optim.SGD([weight], lr=rate)
        handle = FALLING.bind(optimizer)
        step = torch.compile(optimizer.step, backend="aot_eager", fullgraph=False)
        step()
        handle.step()
        step()  # a second one may be needed once the state is there
        counters.clear()
        for _ in range(4):
            handle.step()
            step()
        return int(counters["stats"]["unique_graphs"])

    assert compilations(torch.tensor(0.1)) == 0
    assert compilations(0.1) == 4  # a float: anew at every change
