"""What comes in: the slow way of a call to the recorder, queues, and what happens when they are full.

The fast way is `Recorder.log` itself, which finds the queue of a set of names by one look into `Intake.queues`.
"""

import threading
import time as clock_time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core.errors import UsageError
from thalweg.record.codecs import size_of
from thalweg.record.declaring import Registry
from thalweg.record.jsontext import to_plain
from thalweg.record.pending import Queue, Rows, to_number
from thalweg.record.signals import SignalSpec
from thalweg.record.writing import Batch

_MANY_QUEUES = 1000
_EVENT_BYTES = 500
_MANY_COMPLAINTS = 1000


class Intake:
    """Everything that waits for the writer, and the declarations it needs.

    Attributes:
        queues: (clock, *names) -> the queue for these scalars, logged in this order.
        pending: bytes that wait, about.
        thinned: points dropped because too much waited.
        lock: held for everything but the fast way of a log.
    """

    def __init__(self, limit: int, tell: Callable[[str], None]) -> None:
        self.queues: dict[tuple[str, ...], Queue] = {}
        self.registry = Registry()
        self.lock = threading.RLock()
        self.pending = 0
        self.thinned = 0
        self._told = 0
        self._limit = limit
        self._tell = tell
        self._shaped: dict[tuple[str, ...], Queue] = {}
        self._all: list[Queue] = []
        self._batch = Batch()
        self._complained: set[tuple[str, str]] = set()

    def declare(self, spec: SignalSpec) -> SignalSpec:
        """Enter a declaration; see `Recorder.declare`."""
        with self.lock:
            declared = self.registry.declare(spec)
            self._batch.specs += self.registry.news()
        return declared

    def log(self, values: Mapping[str, Any], step: Any, clock: str, now: float) -> None:
        """First sight of names, arrays, numbers of other libraries, and what is no number."""
        try:
            at = int(step) if float(step).is_integer() else None
            if at is None or not -(1 << 63) <= at < 1 << 63:
                raise ValueError(f"{step!r} is no step")
            scalars: dict[str, float] = {}
            for given, value in values.items():
                name = str(given)
                number = to_number(value)
                if number is None or (isinstance(number, np.ndarray) and number.size == 0):
                    self.complain("refused", name, f"a value of type {type(value).__name__} is no number")
                elif not self._log_shaped(name, number, at, clock, now):
                    scalars[name] = float(number)
            self._log_scalars(scalars, at, clock, float(now))
        except Exception as error:
            self.complain("refused", "log", f"a call of log was not recorded: {error}")

    def extend(
        self, names: Sequence[str], steps: ArrayLike, values: ArrayLike, times: ArrayLike | None, clock: str
    ) -> None:
        """A block of rows; see `Recorder.extend`."""
        try:
            rows, shape = _as_rows(names, steps, values, times)
            with self.lock:
                known = self.registry.get(names[0]) if len(names) == 1 else None
                if known is not None and known.shape and not shape:
                    rows.values, shape = rows.values.reshape(len(rows.steps), 1, *known.shape), known.shape
                if shape:
                    queue = self._shaped_queue(tuple(names), shape, clock)
                else:
                    queue = self._queue(tuple(names), clock)
                if queue is None and len(names) > 1:
                    for column, name in enumerate(names):
                        self.extend([name], rows.steps, rows.values[:, column], rows.times, clock)
                elif queue is not None and len(rows.steps):
                    queue.blocks.append(rows)
                    self.pending += rows.nbytes
        except Exception as error:
            self.complain("refused", ", ".join(map(str, names))[:200], f"a block was not recorded: {error}")

    def event(self, record: dict[str, Any]) -> None:
        """Keep an event for the writer."""
        with self.lock:
            self._batch.events.append(record)
            self.pending += _EVENT_BYTES

    def meta(self, key: str, value: Any) -> None:
        """Keep a fact of the run for the writer."""
        with self.lock:
            self._batch.metas.append((key, to_plain(value)))

    def take(self) -> Batch:
        """All that waits, for the writer; nothing waits then."""
        with self.lock:
            batch, self._batch = self._batch, Batch()
            batch.rows = [(queue, *queue.take()) for queue in self._all if queue.rows or queue.blocks]
            self.pending = 0
            batch.dropped = self.thinned
            fresh, self._told = self.thinned - self._told, self.thinned
        if fresh:
            batch.events.append(
                event_record("thinned", "warning", "recorder", points=fresh, in_all=batch.dropped)
            )
        return batch

    def thin(self) -> None:
        """Drop every second waiting row, again and again, until what waits fits."""
        with self.lock:
            freed = 1
            while self.pending > self._limit and freed:
                freed = 0
                for queue in self._all:
                    points, size = queue.thin()
                    self.thinned += points
                    freed += size
                events = self._batch.events
                if len(events) * _EVENT_BYTES > self._limit // 4:
                    self._batch.events = events[::2]
                    freed += _EVENT_BYTES * (len(events) // 2)
                self.pending -= freed

    def complain(self, kind: str, name: str, text: str) -> None:
        """Record a warning event and show it, once for a signal and sort of trouble."""
        with self.lock:
            if (kind, name) in self._complained or len(self._complained) > _MANY_COMPLAINTS:
                return
            self._complained.add((kind, name))
        self.event(event_record(kind, "warning", "recorder", signal=name, text=text))
        self._tell(f"{name}: {text} (shown once; not recorded)")

    def _log_scalars(self, scalars: dict[str, float], step: int, clock: str, now: float) -> None:
        with self.lock:
            queue = self._queue(tuple(scalars), clock) if scalars else None
            if queue is not None:
                queue.rows.append(queue.pack(step, now, *scalars.values()))
                self.pending += queue.row_bytes
            elif len(scalars) > 1:
                for name, value in scalars.items():
                    self._log_scalars({name: value}, step, clock, now)

    def _log_shaped(self, name: str, number: Any, step: int, clock: str, now: float) -> bool:
        """Take a value that belongs to a signal with a shape, or has one itself; False if it is a plain scalar."""
        shape = number.shape if isinstance(number, np.ndarray) else ()
        with self.lock:
            spec = self.registry.get(name)
            if not shape and (spec is None or not spec.shape):
                return False
            queue = self._shaped_queue((name,), shape, clock)
            if queue is not None:
                kind = queue.row_type["values"].base
                with np.errstate(all="ignore"):
                    packed = np.asarray(number, kind).tobytes()
                queue.rows.append(queue.pack(step, now, packed))
                self.pending += queue.row_bytes
        return True

    def _queue(self, names: tuple[str, ...], clock: str) -> Queue | None:
        """The queue for scalars logged together; None if they can't share one (or one of them can't be logged)."""
        known = self.queues.get((clock, *names))
        if known is not None:
            return known
        specs = [self._spec(name, (), clock) for name in names]
        for spec in specs:
            if spec is not None and spec.shape:
                self.complain(
                    "shape", spec.name, f"a single number where {spec.shape} was declared or seen before"
                )
        good = [spec for spec in specs if spec is not None and not spec.shape]
        one_clock = len({spec.clock for spec in good}) == 1
        if len(good) < len(names) or not one_clock or (len(names) > 1 and len(self.queues) > _MANY_QUEUES):
            return None
        self.queues[(clock, *names)] = queue = self._new_queue(good)
        return queue

    def _shaped_queue(self, names: tuple[str, ...], shape: tuple[int, ...], clock: str) -> Queue | None:
        """The queue for signals of one shape; None if they can't share one (or one of them can't be logged)."""
        specs = [spec for name in names if (spec := self._spec(name, shape, clock)) is not None]
        for spec in specs:
            if spec.shape != shape and not (shape == () and size_of(spec.shape) == 1 and spec.shape):
                text = f"a value of shape {shape} where {spec.shape} was declared or seen before"
                self.complain("shape", spec.name, text)
                return None
        if len(specs) < len(names) or len({(spec.clock, spec.dtype) for spec in specs}) > 1:
            return None
        if names not in self._shaped:
            self._shaped[names] = self._new_queue(specs)
        return self._shaped[names]

    def _new_queue(self, specs: list[SignalSpec]) -> Queue:
        queue = Queue(specs, [self.registry.use(spec.name) for spec in specs], specs[0].clock)
        self._all.append(queue)
        return queue

    def _spec(self, name: str, shape: tuple[int, ...], clock: str) -> SignalSpec | None:
        spec = self.registry.get(name)
        if spec is None:
            try:
                spec = self.registry.first_sight(name, shape, clock)
            except UsageError as error:
                self.complain("refused", name[:200], str(error))
                return None
            self._batch.specs += self.registry.news()
        elif clock not in ("updates", spec.clock):
            self.complain(
                "clock", name, f"logged on the clock {clock!r}, but it is a signal of {spec.clock!r}"
            )
            return None
        return spec


def event_record(kind: str, severity: str, source: str, **details: Any) -> dict[str, Any]:
    """An event as it is stored, at the present time and no step."""
    record = {"kind": kind, "time": clock_time.time(), "severity": severity, "source": source}
    return {**record, "clock": "updates", "details": to_plain(details)}


def _as_rows(
    names: Sequence[str], steps: ArrayLike, values: ArrayLike, times: ArrayLike | None
) -> tuple[Rows, tuple[int, ...]]:
    """A block's arrays, checked against each other, and the shape of a single signal's values (() for scalars)."""
    at = np.asarray(steps, np.int64).reshape(-1)
    table = np.asarray(values)
    if table.dtype.kind not in "biuf":
        table = table.astype(np.float64)
    shape: tuple[int, ...] = ()
    if len(names) == 1 and table.ndim > 1 and table.shape[1:] != (1,):
        table, shape = table[:, None], table.shape[1:]
    elif len(names) > 1 and table.ndim > 2 and table.shape[1] == len(names):
        shape = table.shape[2:]
    else:
        table = table.reshape(len(at), len(names))
    if len(table) != len(at):
        raise ValueError(f"{len(at)} steps and {len(table)} rows of values")
    if times is None:
        when = np.full(len(at), clock_time.time())
    else:
        when = np.asarray(times, np.float64).reshape(-1)
    if len(when) != len(at):
        raise ValueError(f"{len(at)} steps and {len(when)} times")
    return Rows(at, when, table), shape
