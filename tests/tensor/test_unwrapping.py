"""Wrappers of models and optimizers, and names without their prefixes."""

import pytest
import torch
from torch import nn

from thalweg.tensor.unwrapping import (
    clean_name,
    inner_model,
    inner_optimizer,
    is_compiled,
    named_parameters,
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("weight", "weight"),
        ("_orig_mod.0.weight", "0.weight"),
        ("module.0.weight", "0.weight"),
        ("module._orig_mod.module.0.weight", "0.weight"),
        ("blocks.0.module.weight", "blocks.0.module.weight"),
        ("blocks.0._checkpoint_wrapped_module.weight", "blocks.0.weight"),
        ("_fsdp_wrapped_module.blocks.1._fsdp_wrapped_module.bias", "blocks.1.bias"),
        ("blocks.2._orig_mod.bias", "blocks.2.bias"),
        ("module_list.0.weight", "module_list.0.weight"),
        ("", ""),
    ],
)
def test_clean_names(given: str, wanted: str) -> None:
    assert clean_name(given) == wanted


def test_a_compiled_part_and_a_checkpoint_wrapper_leave_no_trace() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = nn.Sequential(
        torch.compile(nn.Linear(2, 2), backend="eager"), checkpoint_wrapper(nn.Linear(2, 2))
    )
    assert [n for n, _ in named_parameters(model)] == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_what_counts_as_compiled() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert not is_compiled(model)
    assert is_compiled(torch.compile(model, backend="eager"))
    part = nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"))
    assert is_compiled(part)
    model.compile(backend="eager")
    assert is_compiled(model)


def test_the_model_inside() -> None:
    model = nn.Linear(2, 2)
    compiled = torch.compile(model, backend="eager")
    for outer in (model, compiled, nn.DataParallel(compiled), torch.optim.swa_utils.AveragedModel(model)):
        assert type(inner_model(outer)) is nn.Linear
    assert inner_model(nn.DataParallel(compiled)) is model
    holder = nn.Sequential(model)
    holder.module = nn.Linear(1, 1)
    assert inner_model(holder) is holder


def test_the_optimizer_inside() -> None:
    class Wrapper:
        def __init__(self, inner: object) -> None:
            self.optimizer = inner

    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert inner_optimizer(plain) is plain
    assert inner_optimizer(Wrapper(Wrapper(plain))) is not plain  # only wrappers of optimizers are opened
    assert inner_optimizer(Wrapper(plain)) is plain
    circle = Wrapper(None)
    circle.optimizer = circle
    assert inner_optimizer(circle) is circle


def test_the_optimizer_that_a_sharpness_aware_one_lets_step() -> None:
    class Sharpness(torch.optim.Optimizer):
        def __init__(self, groups: list[dict[str, object]], base: torch.optim.Optimizer) -> None:
            super().__init__([nn.Parameter(torch.zeros(1))], {})
            self.base_optimizer, self.param_groups = base, groups

    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert inner_optimizer(Sharpness(plain.param_groups, plain)) is plain
    other = Sharpness([], plain)
    assert inner_optimizer(other) is other
