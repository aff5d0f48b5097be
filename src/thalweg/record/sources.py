"""What every form of a run file offers a reader: parts (one process's writing each), signals, rows, events."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import Ints
from thalweg.record.overview import Overview
from thalweg.record.signals import SignalSpec


@dataclass(frozen=True)
class Segment:
    """What one process wrote of a run: a segment (a start or a resumption) on one rank.

    Attributes:
        id: number of the segment, from 0.
        rank: which rank wrote it.
        world: how many ranks write files.
        first_step: it replaces earlier segments from this step on.
        started: Unix seconds.
        ended: Unix seconds; None while it is being written; for a killed one its last sign of life.
        reason: "closed", "exit", "killed" (the file has no end), the name of an exception; "" while it is written.
        path: the file it is in.
        live: whether its writer is at work.
    """

    id: int
    rank: int
    world: int
    first_step: int
    started: float
    ended: float | None
    reason: str
    path: Path
    live: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happened in a run; see `Recorder.event`."""

    kind: str
    step: int | None
    time: float
    severity: str
    source: str
    clock: str
    segment: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as stored: steps [n] in no particular order, times [n] in microseconds, values [n, *shape]."""

    steps: Ints
    times: Ints
    values: NDArray[Any]


class Source(Protocol):
    """A run file opened for reading. Steps and times are in file order, and may repeat."""

    path: Path
    run_id: str
    parent: str | None
    meta: dict[str, Any]
    warnings: list[str]

    def segments(self) -> list[Segment]:
        """The parts in this file."""

    def specs(self) -> dict[str, SignalSpec]:
        """Name -> declaration, in the order of declaration; of several versions the latest."""

    def spec(self, name: str, part: Segment) -> SignalSpec:
        """The declaration of a signal as the part stored it."""

    def wrote(self, name: str, part: Segment) -> bool:
        """Whether the part holds rows of the signal."""

    def column(self, name: str, part: Segment) -> tuple[Ints, NDArray[Any]]:
        """A signal's steps [n] and values [n, *shape]."""

    def times(self, name: str, part: Segment) -> tuple[Ints, Ints]:
        """A signal's steps [n] and wall times [n] in microseconds."""

    def wall(self, clock: str, part: Segment) -> tuple[Ints, Ints]:
        """Steps and wall times of everything on a clock."""

    def first_on(self, clock: str, part: Segment) -> int | None:
        """The lowest step the part wrote on a clock."""

    def events(self, part: Segment) -> list[Event]:
        """What happened, in the order it was recorded."""

    def overview(self) -> Overview:
        """Counts and last values."""

    def refresh(self) -> bool:
        """Take in what was appended; False if the file under the name is another one now."""

    def close(self) -> None:
        """Give the file back."""


def concatenated(parts: list[Any], empty: NDArray[Any]) -> NDArray[Any]:
    """The arrays one behind the other; a single one as it is."""
    if not parts:
        return empty
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def file_identity(stat: os.stat_result) -> tuple[int, int]:
    """What tells a file from another one that takes its name."""
    return stat.st_dev, stat.st_ino


def chained(parts: Iterator[tuple[Ints, Any]]) -> tuple[Ints, Any]:
    """Pairs of arrays, joined each."""
    pairs = list(parts)
    none = np.empty(0, np.int64)
    return concatenated([p[0] for p in pairs], none), concatenated([p[1] for p in pairs], none)
