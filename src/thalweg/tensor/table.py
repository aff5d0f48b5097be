"""The parameter table: which tensors an optimizer updates, under which names, in which groups.

One row a parameter that the optimizer holds, in the optimizer's own order. A parameter shared by two layers has
one row, its first name, and the other names as aliases. What the model has and the optimizer has not is listed
apart: a layer that was forgotten, or frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.tensor.local import is_sharded
from thalweg.tensor.unwrapping import named_parameters


@dataclass(frozen=True)
class Row:
    """One parameter: its name, other names, place in the optimizer, and whether this rank holds only a shard."""

    name: str
    aliases: tuple[str, ...]
    parameter: Tensor
    group: int
    sharded: bool


@dataclass(frozen=True)
class ParamTable:
    """The rows of one optimizer, and what stands outside it.

    Attributes:
        rows: one a parameter.
        names: the rows' names, unique.
        frozen: names of the model's parameters that need no gradient.
        outside: names of trainable parameters that this table's optimizer was not given.
        fingerprint: changes when parameters or groups are added or replaced by others.
    """

    rows: tuple[Row, ...]
    frozen: tuple[str, ...]
    outside: tuple[str, ...]
    fingerprint: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The rows' names."""
        return tuple(r.name for r in self.rows)

    @property
    def parameters(self) -> list[Tensor]:
        """The rows' parameters."""
        return [r.parameter for r in self.rows]

    @property
    def elements(self) -> int:
        """How many elements this rank holds of all rows."""
        return sum(_local_elements(r.parameter) for r in self.rows)

    @property
    def bytes(self) -> int:
        """Bytes of all rows on this rank."""
        return sum(_local_elements(r.parameter) * r.parameter.element_size() for r in self.rows)


def _local_elements(parameter: Tensor) -> int:
    shard = getattr(parameter, "_local_tensor", parameter)
    return int(shard.numel())


def fingerprint(groups: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """Size and last parameter of each group: cheap to take at every step.

    Changed by ``add_param_group``, and where a group's parameters are replaced by others.
    """
    return tuple([mark for g in groups if (held := g["params"]) for mark in (len(held), id(held[-1]))])


def build_table(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> ParamTable:
    """The table of the parameters that ``optimizer`` updates; of all trainable ones where it is None.

    A parameter of the optimizer that the model doesn't have is named ``group<i>.<j>``; where cleaning gives two
    parameters one name, the later one gets ``@<i>.<j>``, its place in the optimizer, after it.
    """
    names: dict[int, list[str]] = {}
    by_id: dict[int, nn.Parameter] = {}
    for name, parameter in named_parameters(model):
        names.setdefault(id(parameter), []).append(name)
        by_id[id(parameter)] = parameter
    groups: Sequence[dict[str, Any]] = (
        optimizer.param_groups
        if optimizer is not None
        else [{"params": [p for p in by_id.values() if p.requires_grad]}]
    )
    rows: list[Row] = []
    held: set[int] = set()
    given: set[str] = set()
    for g, group in enumerate(groups):
        for j, parameter in enumerate(group["params"]):
            if id(parameter) in held:
                continue
            held.add(id(parameter))
            known = names.get(id(parameter), [f"group{g}.{j}"])
            name = known[0] if known[0] not in given else f"{known[0]}@{g}.{j}"
            given.add(name)
            rows.append(Row(name, tuple(known[1:]), parameter, g, is_sharded(parameter)))
    return ParamTable(
        rows=tuple(rows),
        frozen=tuple(names[i][0] for i, p in by_id.items() if not p.requires_grad),
        outside=tuple(names[i][0] for i, p in by_id.items() if p.requires_grad and i not in held),
        fingerprint=fingerprint(groups),
    )
