"""`MemorySource`: an imported log behind the interface of a run file, so that `Run` needs to know of nothing else."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import Ints
from thalweg.record.overview import Overview, loss_name
from thalweg.record.signals import SignalSpec
from thalweg.record.sources import Event, Segment, concatenated

Table = dict[str, tuple[Ints, NDArray[Any], Ints]]  # signal -> steps, values, times in microseconds


class MemorySource:
    """Signals held in memory, a table for each segment.

    Attributes:
        path: the log it came from.
        run_id: a digest of path and name, so that the same log is the same run.
        parent: None; other tools' logs name no parent.
        meta: name, config, environment, tags.
        warnings: what could not be read, in words.
    """

    parent: str | None = None

    def __init__(
        self,
        path: Path,
        run_id: str,
        meta: dict[str, Any],
        specs: dict[str, SignalSpec],
        parts: list[tuple[Segment, Table]],
        *,
        events: list[Event],
        warnings: list[str],
        changed: Callable[[], bool],
    ) -> None:
        self.path, self.run_id, self.meta = path, run_id, meta
        self.warnings = warnings
        self._specs = specs
        self._tables = {part.id: table for part, table in parts}
        self._segments = [part for part, _ in parts]
        self._events = events
        self._changed = changed

    def segments(self) -> list[Segment]:
        """What each process wrote."""
        return list(self._segments)

    def specs(self) -> dict[str, SignalSpec]:
        """Name -> declaration."""
        return self._specs

    def spec(self, name: str, part: Segment) -> SignalSpec:
        """The declaration of a signal."""
        return self._specs[name]

    def wrote(self, name: str, part: Segment) -> bool:
        """Whether the part holds rows of the signal."""
        return name in self._tables[part.id]

    def column(self, name: str, part: Segment) -> tuple[Ints, NDArray[Any]]:
        """A signal's steps and values."""
        steps, values, _ = self._tables[part.id].get(name, _NOTHING)
        return steps, values

    def times(self, name: str, part: Segment) -> tuple[Ints, Ints]:
        """A signal's steps and wall times."""
        steps, _, times = self._tables[part.id].get(name, _NOTHING)
        return steps, times

    def wall(self, clock: str, part: Segment) -> tuple[Ints, Ints]:
        """Steps and wall times of everything on a clock."""
        mine = [self._tables[part.id][n] for n in self._on(clock, part)]
        none = np.empty(0, np.int64)
        return concatenated([row[0] for row in mine], none), concatenated([row[2] for row in mine], none)

    def first_on(self, clock: str, part: Segment) -> int | None:
        """The lowest step the part has on a clock."""
        return min((int(self._tables[part.id][n][0].min()) for n in self._on(clock, part)), default=None)

    def events(self, part: Segment) -> list[Event]:
        """What the common layer noted while it read."""
        return [event for event in self._events if event.segment == part.id]

    def overview(self) -> Overview:
        """Counts and last values."""
        view = Overview(signals=len(self._specs), last_loss=math.nan)
        loss = loss_name(self._specs)
        for part in self._segments:
            for name, (steps, values, times) in self._tables[part.id].items():
                clock = self._specs[name].clock
                view.points += len(values)
                view.steps[clock] = max(view.steps.get(clock, 0), int(steps.max()))
                view.last_time = max(view.last_time, float(times.max()) / 1e6)
                if name == loss:
                    view.last_loss = float(values[-1])
        return view

    def refresh(self) -> bool:
        """False if the log has grown or changed: it is read anew then."""
        return not self._changed()

    def close(self) -> None:
        """Nothing is held open."""

    def _on(self, clock: str, part: Segment) -> list[str]:
        return [name for name in self._tables[part.id] if self._specs[name].clock == clock]


_NOTHING: tuple[Ints, NDArray[Any], Ints] = (
    np.empty(0, np.int64),
    np.empty(0, np.float32),
    np.empty(0, np.int64),
)
