"""Of what a rank has only a part, where every rank writes a file of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thalweg.tensor.local import counts_here, mesh_size
from thalweg.tensor.table import ParamTable, Row
from thalweg.watching.contracts import Array


@dataclass(frozen=True)
class Sharing:
    """What the files of several ranks are joined for.

    Attributes:
        world: how many ranks write; 1 where one writes alone.
        sharded: names of the rows of which every rank holds a part.
        elsewhere: names of the rows that are counted on another rank: this one holds a replica.
        batch: whether every rank sees examples of its own.
    """

    world: int = 1
    sharded: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    batch: bool = False

    def concerns(self, instrument: Any, layer: str = "") -> bool:
        """Whether this rank's result is a part: of a layer, or of the whole model."""
        if instrument.needs.quantities:
            return layer in self.sharded if layer else bool(self.sharded)
        return self.batch if instrument.needs.forward else self.world > 1

    def written_here(self, layer: str) -> bool:
        """Whether this rank writes a layer: replicas beside shards are written where they are counted."""
        return not self.sharded or layer in self.sharded or layer not in self.elsewhere

    def counted(self, raw: Mapping[str, Array], layers: Sequence[str]) -> Mapping[str, Array]:
        """Sums with zeros for the rows that are counted on another rank."""
        there = [i for i, layer in enumerate(layers) if layer in self.elsewhere]
        if not self.sharded or not there:
            return raw
        return {k: v if k.startswith("same:") or v.ndim < 2 else _without(v, there) for k, v in raw.items()}


def _without(values: Array, columns: Sequence[int]) -> Array:
    values = values.copy()
    values[:, columns] = 0.0
    return values


def readable(row: Row, world: int) -> bool:
    """Whether a row's parts can be joined, or it is whole: shards over some of the ranks only can't be."""
    return not row.sharded or (world > 1 and mesh_size(row.parameter) == world)


def sharing_of(table: ParamTable, rank: int, world: int, data_ranks: int) -> Sharing:
    """What is shared among the ranks that write, of the rows looked at and of the batch.

    Args:
        table: the rows that are looked at.
        rank, world: this rank among those that write.
        data_ranks: over how many ranks the batch is split.
    """
    if world == 1:
        return Sharing()
    return Sharing(
        world,
        frozenset(r.name for r in table.rows if r.sharded),
        frozenset(r.name for r in table.rows if not counts_here(r.parameter, rank)),
        data_ranks == world,
    )
