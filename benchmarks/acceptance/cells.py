"""The five factors of the grid, its 180 cells, and a subset in which every pair of levels occurs."""

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from itertools import combinations, product

TRIES = 6
BATCH = 16
MICRO_BATCHES = 2
LEVELS: dict[str, tuple[str, ...]] = {
    "mode": ("eager", "compiled"),
    "precision": ("float32", "bf16", "fp16"),
    "kernel": ("foreach", "fused"),
    "ranks": ("one", "ddp", "fsdp2"),
    "technique": ("plain", "accumulation", "clipping", "closure", "checkpointing"),
}


@dataclass(frozen=True)
class Cell:
    """One way of training: a level of each factor."""

    mode: str
    precision: str
    kernel: str
    ranks: str
    technique: str

    @property
    def name(self) -> str:
        """The levels, joined."""
        return "/".join(astuple(self))

    @property
    def world(self) -> int:
        """How many processes it takes."""
        return 1 if self.ranks == "one" else 2

    @classmethod
    def named(cls, name: str) -> "Cell":
        """The cell of that name."""
        return cls(*name.split("/"))


INDUCTOR = frozenset(
    {
        "compiled/float32/foreach/one/plain",
        "compiled/bf16/fused/one/accumulation",
        "compiled/float32/fused/ddp/checkpointing",
    }
)
"""Cells that the whole grid compiles with inductor, which takes long; the others use the backend aot_eager."""


def all_cells() -> list[Cell]:
    """The whole grid."""
    return [Cell(*levels) for levels in product(*LEVELS.values())]


def pairs_of(cell: Cell) -> set[tuple[tuple[str, str], ...]]:
    """Every two levels that occur together in a cell."""
    return set(combinations(asdict(cell).items(), 2))


def impossible(cell: Cell) -> bool:
    """Whether torch refuses the combination: a GradScaler takes no closure."""
    return cell.precision == "fp16" and cell.technique == "closure"


def covering() -> list[Cell]:
    """A small subset in which every possible pair of levels occurs, and one impossible cell: greedy, always the same."""
    cells = [c for c in all_cells() if not impossible(c)]
    wanted = set().union(*map(pairs_of, cells))
    chosen = [next(filter(impossible, all_cells()))]
    while wanted:
        best = max(cells, key=lambda c: (len(pairs_of(c) & wanted), c.mode == "eager"))
        chosen.append(best)
        wanted -= pairs_of(best)
    return chosen


def columns() -> list[tuple[str, ...]]:
    """Mode, precision and kernel of each column of the table."""
    return list(product(*(LEVELS[f] for f in ("mode", "precision", "kernel"))))


def rows() -> list[tuple[str, ...]]:
    """Ranks and technique of each row of the table."""
    return list(product(*(LEVELS[f] for f in ("ranks", "technique"))))


def matching(cells: Iterable[Cell], levels: Iterable[str]) -> list[Cell]:
    """The cells that have all of these levels."""
    return [c for c in cells if set(levels) <= {getattr(c, f.name) for f in fields(c)}]
