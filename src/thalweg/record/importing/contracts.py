"""What an importer gives: columns of numbers as the log holds them, in the order of the log, and nothing guessed.

Roles, segments and repeats are the business of `thalweg.record.importing.assembling`, which treats all formats
alike. So an importer only reads: it is a module with

    CARD = Card(name="csv-table", kind="importer", ...)
    def accepts(path: Path) -> float        # 0: no; 1: certain. Reads a few kilobytes at most, never raises.
    def read(path: Path, names: NameMap) -> Iterator[Imported]
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.record.codecs import Ints
from thalweg.record.signals import Role

Floats = NDArray[np.float64]


@dataclass(kw_only=True)
class Column:
    """One signal of a log, as read: in the order of the log, repeats and rewinds included.

    Attributes:
        name: what the log calls it.
        steps: [n] int64 steps, rows or epochs, whatever `clock` says.
        values: [n] float64; NaN and infinities as the log has them.
        times: [n] float64 Unix seconds; None where the log has none.
        order: [n] int64 place of each value in the log, the same for all columns of one row (a line's number), so that
            a resumption is cut at one place in all of them; None where the format has no such order.
        clock: "updates" for steps of training, "epochs" or "rows" where the log has nothing better.
        role: where the format itself says what it is; "" leaves it to the name.
        window: how many steps one value is the mean of; 1 for single steps, 0 where it is a mean of unknown length.
        estimator: how values were thinned or averaged, in words ("sampled to 500 points", "mean since the last row").
        unit: unit of the values, where the log says it.
    """

    name: str
    steps: Ints
    values: Floats
    times: Floats | None = None
    order: Ints | None = None
    clock: str = "updates"
    role: Role = ""
    window: int = 1
    estimator: str = ""
    unit: str = ""


@dataclass(kw_only=True)
class Part:
    """What one process wrote: a start or a resumption. Later parts replace earlier ones from their first step.

    Attributes:
        columns: its signals.
        started: Unix seconds; 0 where the log doesn't say.
        ended: Unix seconds of its last sign of life; 0 where the log doesn't say.
    """

    columns: list[Column]
    started: float = 0.0
    ended: float = 0.0


@dataclass(kw_only=True)
class Imported:
    """One run of a log.

    Attributes:
        path: the file or folder it was read from.
        name: what to call it.
        format: name of the importer's card.
        parts: what each process wrote, in the order of time; importers that can't tell give one.
        config: the run's settings, where the log has them.
        environment: versions and hardware, where the log has them.
        summary: results that the log states by itself (a best metric, means over the whole run).
        tags: words to find it by.
        notes: facts for the reader of the record ("histories of W&B are sampled").
        warnings: what could not be read, or was damaged, in words with the place.
        live: whether the log is still being written, as far as its files tell.
    """

    path: Path
    name: str
    format: str
    parts: list[Part]
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    live: bool = False


@dataclass(frozen=True)
class NameMap:
    """What the user says of the names in a log: ``--map loss=train/my_loss``.

    Attributes:
        wanted: a role's word ("loss", "eval_loss", "lr", "grad_norm", "tokens", "step", "epoch", "time", ...) or a new
            name -> the name in the log.
        pattern: a regular expression with named groups for text logs; "" for the known ones.
    """

    wanted: Mapping[str, str] = field(default_factory=dict)
    pattern: str = ""

    def column(self, word: str) -> str | None:
        """The log's name for a word, if the user gave one."""
        return self.wanted.get(word)


class Importer(Protocol):
    """One format; a module serves."""

    CARD: Card

    def accepts(self, path: Path) -> float:
        """How sure it is that it can read the path, from 0 to 1."""

    def read(self, path: Path, names: NameMap) -> Iterator[Imported]:
        """The runs there, one after the other.

        Raises:
            RunFileError: nothing there can be read; the message says what was expected, what was found, and where.
        """
