"""The parameter table: names, ties, groups, what is frozen and what was forgotten."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from thalweg.tensor.table import build_table, fingerprint


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(x)))


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)  # type: ignore[arg-type]  # anything torch takes


def test_a_tie_is_one_row_with_an_alias() -> None:
    model = Tied()
    table = build_table(model, sgd(model.parameters()))
    assert table.names == ("embed.weight", "body.weight", "body.bias")
    assert [r.aliases for r in table.rows] == [("head.weight",), (), ()]
    assert table.elements == 28 + 16 + 4
    assert table.bytes == 4 * table.elements
    assert table.parameters[0] is model.head.weight


def test_frozen_and_forgotten_parameters_are_listed() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    table = build_table(model, sgd(model[2].parameters()))
    assert table.names == ("2.weight", "2.bias")
    assert table.frozen == ("0.weight", "0.bias")
    assert table.outside == ("1.weight", "1.bias")


def test_a_frozen_parameter_that_the_optimizer_holds_is_a_row_and_frozen() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    table = build_table(model, sgd(model.parameters()))
    assert table.names == ("weight", "bias")
    assert table.frozen == ("bias",)
    assert table.outside == ()


def test_rows_follow_the_optimizer_and_know_their_group() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = sgd(
        [{"params": [model[1].bias, model[0].weight]}, {"params": [model[1].weight, model[0].bias]}]
    )
    table = build_table(model, optimizer)
    assert [(r.name, r.group) for r in table.rows] == [
        ("1.bias", 0),
        ("0.weight", 0),
        ("1.weight", 1),
        ("0.bias", 1),
    ]
    assert table.fingerprint == fingerprint(optimizer.param_groups)


def test_a_parameter_given_twice_has_one_row() -> None:
    model = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = sgd([model.weight, model.weight, model.bias])
    assert build_table(model, optimizer).names == ("weight", "bias")


def test_what_the_model_does_not_have_is_named_by_its_place() -> None:
    model, stranger = nn.Linear(2, 2), nn.Parameter(torch.zeros(3))
    table = build_table(model, sgd([{"params": list(model.parameters())}, {"params": [stranger]}]))
    assert table.names == ("weight", "bias", "group1.0")


def test_without_an_optimizer_every_trainable_parameter_is_a_row() -> None:
    model = Tied()
    model.body.bias.requires_grad_(False)
    table = build_table(model, None)
    assert table.names == ("embed.weight", "body.weight")
    assert (table.frozen, table.outside) == (("body.bias",), ())


def test_an_added_group_changes_the_fingerprint() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = sgd(model[0].parameters())
    before = build_table(model, optimizer)
    optimizer.add_param_group({"params": list(model[1].parameters())})
    assert fingerprint(optimizer.param_groups) != before.fingerprint
    assert build_table(model, optimizer).names == ("0.weight", "0.bias", "1.weight", "1.bias")


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def test_names_are_the_users_own_under_wrappers(group: None) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    plain = build_table(model, sgd(model.parameters())).names
    compiled = torch.compile(model, backend="eager")
    wrapped = nn.parallel.DistributedDataParallel(model)
    both = torch.compile(wrapped, backend="eager")
    around = nn.parallel.DistributedDataParallel(compiled)
    for outer in (compiled, wrapped, both, around, nn.DataParallel(model)):
        assert build_table(outer, sgd(outer.parameters())).names == plain


def test_names_stay_unique_where_a_user_has_a_submodule_called_module() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.weight = nn.Parameter(torch.zeros(2))

    model = Holder()
    names = build_table(model, sgd(model.parameters())).names
    assert len(set(names)) == 3


def test_the_fingerprint_changes_with_added_and_with_replaced_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = sgd(model[0].parameters())
    before = fingerprint(optimizer.param_groups)
    optimizer.param_groups[0]["params"][-1] = nn.Parameter(torch.zeros(3))
    replaced = fingerprint(optimizer.param_groups)
    optimizer.add_param_group({"params": list(model[1].parameters())})
    assert len({before, replaced, fingerprint(optimizer.param_groups)}) == 3
