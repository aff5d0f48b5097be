"""Reading a log, finished, killed or still being written."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.blocks import Blocks
from thalweg.record.codecs import DecodeError, Ints
from thalweg.record.frames import (
    BLOCK,
    DECLARE,
    END,
    EVENT,
    FORMAT,
    HEADER_SIZE,
    LAYOUT,
    META,
    START,
    SUMMARY,
    Frame,
    Scan,
    format_of,
    scan,
)
from thalweg.record.liveness import is_alive
from thalweg.record.migrations import refuse_newer, upgrade_record
from thalweg.record.overview import Overview, loss_name
from thalweg.record.payloads import (
    LayoutSpec,
    get_declarations,
    get_layout,
    get_mapping,
)
from thalweg.record.signals import SignalSpec
from thalweg.record.sources import Event, Segment, chained, file_identity

_MAX_WARNINGS = 50


class LogSource:
    """A log as a `Source`. Opens the file, checks every frame, and keeps where the blocks lie.

    Raises:
        RunFileError: it isn't a log, was written by a newer version, or nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = ""
        self.parent: str | None = None
        self.meta: dict[str, Any] = {}
        self.warnings: list[str] = []
        self._start: dict[str, Any] = {}
        self._end: dict[str, Any] | None = None
        self._live = False
        self._dropped = 0
        self._specs: dict[int, SignalSpec] = {}
        self._named: dict[str, SignalSpec] = {}
        self._layouts: dict[int, LayoutSpec] = {}
        self._events: list[Event] = []
        self._where: dict[str, list[tuple[int, int]]] | None = None
        self._state = Scan()
        self._fd = -1
        self._fd = _open(path)
        self._blocks = Blocks(path, self._fd, self._layouts, self._warn)
        try:
            self._version = self._check_head()
            self._scan()
            if not self._start:
                self._without_start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def refresh(self) -> bool:
        """Take in what was appended; False if the file under the name is another one now."""
        try:
            if file_identity(self.path.stat()) != file_identity(os.fstat(self._fd)):
                return False
        except FileNotFoundError:
            self._warn("the file was removed; what was read of it before is still shown")
            return True
        self._scan()
        return True

    @property
    def number(self) -> int:
        """The segment's number."""
        return _count(self._start.get("segment"))

    @property
    def gave_up(self) -> bool:
        """Whether the file is so damaged that a part of it was left unread."""
        return self._state.gave_up

    def segments(self) -> list[Segment]:
        """The one part in this file."""
        live, end = self._live, self._end or {}
        ended = _seconds(end.get("ended"))
        if self._end is None and not live:
            ended = os.fstat(self._fd).st_mtime
        part = Segment(
            id=self.number,
            rank=_count(self._start.get("rank")),
            world=max(1, _count(self._start.get("world"))),
            first_step=_count(self._start.get("first_step")),
            started=_seconds(self._start.get("started")) or 0.0,
            ended=ended,
            reason="" if live else str(end.get("reason", "killed")),
            path=self.path,
            live=live,
        )
        return [part]

    def specs(self) -> dict[str, SignalSpec]:
        """Name -> declaration, in the order of declaration."""
        return {spec.name: spec for _, spec in sorted(self._specs.items())}

    def spec(self, name: str, part: Segment) -> SignalSpec:
        """The declaration of a signal."""
        if name not in self._named:
            self._named = self.specs()
        return self._named[name]

    def wrote(self, name: str, part: Segment) -> bool:
        """Whether there are rows of the signal."""
        return bool(self._places(name))

    def column(self, name: str, part: Segment) -> tuple[Ints, NDArray[Any]]:
        """A signal's steps [n] and values [n, *shape]."""
        return chained(part for place in self._places(name) for part in self._blocks.columns(*place))

    def times(self, name: str, part: Segment) -> tuple[Ints, Ints]:
        """A signal's steps [n] and wall times [n] in microseconds."""
        return chained(self._blocks.times(layout) for layout, _ in self._places(name))

    def wall(self, clock: str, part: Segment) -> tuple[Ints, Ints]:
        """Steps and wall times of everything on a clock."""
        return chained(self._blocks.times(layout) for layout in self._blocks.on(clock))

    def first_on(self, clock: str, part: Segment) -> int | None:
        """The lowest step on a clock."""
        return min((self._blocks.index[i].first for i in self._blocks.on(clock)), default=None)

    def events(self, part: Segment) -> list[Event]:
        """What happened."""
        return list(self._events)

    def overview(self) -> Overview:
        """Counted from what is in the file."""
        out = Overview(signals=len(self._specs), dropped=self._dropped)
        for number, held in self._blocks.index.items():
            if (layout := self._layouts.get(number)) is not None:
                out.points += held.rows * layout.row_items
                out.steps[layout.clock] = max(held.last, out.steps.get(layout.clock, held.last))
        name = loss_name({k: v for k, v in self.specs().items() if self._places(k)})
        if name is not None:
            steps, values = self.column(name, self.segments()[0])
            out.last_loss = float(values[len(steps) - 1 - int(np.argmax(steps[::-1]))])
        out.last_time = max((self._blocks.time_of(i, -1) for i in self._blocks.index), default=0.0)
        return out

    def places(self) -> dict[str, tuple[int, ...]]:
        """Name -> the layouts that hold rows of it; signals with the same ones have the same rows."""
        return {name: tuple(layout for layout, _ in self._places(name)) for name in self.specs()}

    def stream(self, layouts: tuple[int, ...], names: list[str]) -> Iterator[tuple[Ints, Ints, NDArray[Any]]]:
        """Blocks of these layouts in file order: steps, times, and the named columns [names, rows, *shape]."""
        ids = {spec.name: number for number, spec in self._specs.items()}
        return self._blocks.stream(layouts, [ids[name] for name in names])

    # Scanning.

    def _check_head(self) -> int:
        version = format_of(os.pread(self._fd, HEADER_SIZE, 0))
        if version is None:
            raise RunFileError(f"{self.path} is not a run's log")
        refuse_newer(self.path, version, FORMAT)
        return version

    def _scan(self) -> None:
        size = os.fstat(self._fd).st_size
        damaged = self._state.damaged
        self._where = None
        self._named = {}
        for frame in scan(lambda at, n: os.pread(self._fd, n, at), size, self._state):
            try:
                self._take(frame)
            except DecodeError as error:
                self._warn(f"a record at byte {frame.offset} can't be read: {error}")
        self._live = self._end is None and is_alive(self._start, self._fd)
        if self._state.damaged > damaged:
            self._warn(f"{self._state.damaged - damaged} damaged stretch(es) of the file were skipped")
        if self._state.gave_up:
            self._warn("the file is too damaged to be read to its end")

    def _without_start(self) -> None:
        """The first record is lost: what the others hold is read all the same."""
        if not self._blocks.index and not self._events:
            raise RunFileError(f"{self.path}: its first record is missing or damaged, and there is no other")
        self._warn("the first record is damaged: the run's name, settings and segment are not known")
        self._start["started"] = min((self._blocks.time_of(i, 0) for i in self._blocks.index), default=0.0)

    def _take(self, frame: Frame) -> None:
        payload = frame.payload
        if frame.kind == BLOCK:
            self._blocks.take(frame)
        elif frame.kind == DECLARE:
            self._specs.update(get_declarations(payload))
        elif frame.kind == LAYOUT:
            layout = get_layout(payload)
            self._layouts[layout.id] = layout
        elif frame.kind == EVENT:
            self._events.append(event_from(self._record("event", payload), self.number))
        elif frame.kind == META:
            record = self._record("meta", payload)
            self.meta[str(record.get("key"))] = record.get("value")
        elif frame.kind == START and not self._start:
            self._take_start(self._record("start", payload))
        elif frame.kind == END:
            self._end = self._record("end", payload)
            self._dropped = _count(self._end.get("dropped"))
        elif frame.kind == SUMMARY:
            self._dropped = _count(get_mapping(payload).get("dropped"))

    def _record(self, kind: str, payload: bytes | memoryview) -> dict[str, Any]:
        return upgrade_record(kind, get_mapping(payload), self._version)

    def _take_start(self, record: dict[str, Any]) -> None:
        self._start = record
        self.run_id = str(record.get("run_id", ""))
        self.parent = record["parent"] if isinstance(record.get("parent"), str) else None
        meta = record.get("meta")
        if isinstance(meta, dict):
            self.meta = {**meta, **self.meta}

    def _places(self, name: str) -> list[tuple[int, int]]:
        """The layouts with rows of a signal, and its column in each."""
        if self._where is None:
            self._where = {}
            for number in sorted(self._blocks.index):
                layout = self._layouts.get(number)
                for column, signal in enumerate(layout.signals if layout is not None else ()):
                    spec = self._specs.get(signal)
                    if layout is None or spec is None:
                        continue
                    if (layout.shape, layout.dtype) == (spec.shape, spec.dtype):
                        self._where.setdefault(spec.name, []).append((number, column))
                    else:
                        self._warn(
                            f"{spec.name}: rows stored as {layout.dtype}{list(layout.shape)} are left out"
                        )
        return self._where.get(name, [])

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)


def event_from(record: Mapping[str, Any], segment: int) -> Event:
    """An event from a record of any origin."""
    step, details = record.get("step"), record.get("details")
    return Event(
        kind=str(record.get("kind", "")),
        step=step if type(step) is int else None,
        time=_seconds(record.get("time")) or 0.0,
        severity=str(record.get("severity", "note")),
        source=str(record.get("source", "")),
        clock=str(record.get("clock", "updates")),
        segment=segment,
        details=details if isinstance(details, dict) else {},
    )


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise RunFileError(f"{path} can't be opened ({error.strerror})") from error


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 62 else 0


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e11 else None
