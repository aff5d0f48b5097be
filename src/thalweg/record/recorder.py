"""Recording a run: `Recorder` takes numbers from any loop and keeps them in one file."""

import atexit
import contextlib
import operator
import os
import threading
import time as clock_time
import uuid
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike

from thalweg.core.errors import RunFileError, ThalwegWarning, UsageError
from thalweg.record.intake import Intake, event_record
from thalweg.record.jsontext import to_plain
from thalweg.record.logfile import LogFile
from thalweg.record.naming import SUFFIX, default_path, split_name
from thalweg.record.signals import Reduce, Role, SignalSpec, Stage
from thalweg.record.writing import LogWriter, start_record, uncaught_name


class Recorder:
    """Writes one run file. Thread-safe; torch-free; works in any loop.

    The file is there at once and grows while the run goes on: what was logged is in it within about half a second,
    whatever happens to the process then. At `close` it is compacted into SQLite under the same name. After
    construction nothing here raises into the caller: what can't be recorded becomes an event of the run and a
    `ThalwegWarning`, shown once. In a forked child the copy does nothing.

    Args:
        path: where to write; ".tw" is added if it has no such suffix. The default is a fresh name in ``runs/``.
        name: what to call the run; by default the file's name.
        config: the run's settings, anything JSON can say (other things become their text).
        tags: words to find it by.
        environment: versions, hardware and the like; nothing is collected here.
        run_id: the run this file continues or belongs to; a new one by default.
        parent: id of the run this one was branched from.
        segment: 0 for a first start, then 1, 2, ... for every resumption.
        first_step: the step from which on this segment replaces the earlier ones.
        rank: which rank writes this file.
        world: how many ranks write a file of this run. A signal with ``reduce`` other than "none" is only joined
            when the files of all of them are there.
        flush_every: seconds between two writes; 0.5, so that a kill loses at most about a second.
        queue_bytes: memory for what waits to be written; beyond it every second waiting row is dropped, which
            is counted in `dropped` and recorded as an event.

    Attributes:
        path: the file, absolute.
        run_id: 32 hexadecimal digits.
        closed: whether `close` was called.

    Raises:
        RunFileError: the file exists, or can't be created.
        UsageError: an argument that can't be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        environment: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        parent: str | None = None,
        segment: int = 0,
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
        flush_every: float = 0.5,
        queue_bytes: int = 32 << 20,
    ) -> None:
        if not flush_every > 0 or queue_bytes < 1 << 12:
            raise UsageError("flush_every must be above 0 seconds and queue_bytes at least 4096")
        if segment < 0 or rank < 0 or world < 1 or rank >= world:
            raise UsageError(
                f"segment {segment}, rank {rank} of {world}: these count from 0, below their number"
            )
        self.path = _usable_path(path)
        self.run_id = run_id or uuid.uuid4().hex
        self.closed = False
        self._forked = False
        self._told_late = False
        self._intake = Intake(queue_bytes, self._show)
        self._queues = self._intake.queues
        self._queue_bytes, self._wake_at = queue_bytes, queue_bytes // 4
        self._flush_every = flush_every
        self._wake = threading.Event()
        self._turns = threading.Condition()
        self._asked = self._answered = 0
        self._stop: str | None = None
        meta = {
            "name": name or split_name(self.path).base,
            "config": to_plain(dict(config or {})),
            "tags": [str(tag) for tag in tags],
            "environment": to_plain(dict(environment or {})),
        }
        start = start_record(
            run_id=self.run_id,
            parent=parent,
            segment=int(segment),
            first_step=int(first_step),
            rank=int(rank),
            world=int(world),
            meta=meta,
        )
        self._file = LogFile(self.path, keep=queue_bytes, tell=self._show)
        self._writer = LogWriter(self._file, start)
        self._thread = threading.Thread(target=self._work, name="thalweg-recorder", daemon=True)
        self._thread.start()
        self._at_exit = partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_forget_in_child, weakref.ref(self)))

    @property
    def dropped(self) -> int:
        """Numbers that were thinned away because the queue was full, or lost to a disk that refused them."""
        return self._intake.thinned + self._file.dropped

    def declare(
        self,
        name: str,
        *,
        role: Role = "",
        clock: str = "updates",
        layer: str = "",
        unit: str = "",
        dtype: str = "float32",
        shape: Sequence[int] = (),
        stage: Stage = "",
        reduce: Reduce = "none",
        formula: str = "",
        window: int = 1,
        estimator: str = "",
        version: int = 1,
    ) -> SignalSpec:
        """Say what a signal is; see `SignalSpec`. Without a role, one is guessed from the name.

        Numbers given to `log` are float64 before they are stored as `dtype`: whole numbers are exact to 2**53,
        float32 holds about 7 digits (declare running totals as float64), and integer types hold no NaN
        (it becomes 0).

        Returns:
            The declaration as recorded. Declaring again changes what describes the signal; its clock, type and
            shape are fixed once something was logged.

        Raises:
            UsageError: a shape, type or name that can't be used, or another clock, type or shape than before.
        """
        given = {
            "clock": clock,
            "layer": layer,
            "unit": unit,
            "dtype": dtype,
            "stage": stage,
            "reduce": reduce,
            "formula": formula,
        }
        spec = SignalSpec(
            name=name,
            role=role or self._intake.registry.guess(name),
            shape=tuple(int(n) for n in shape),
            window=window,
            estimator=estimator,
            version=version,
            **given,  # type: ignore[arg-type]  # Literal fields, checked by the registry
        )
        return self.declare_spec(spec)

    def declare_spec(self, spec: SignalSpec) -> SignalSpec:
        """Declare a signal by its `SignalSpec`, as it stands; else like `declare`."""
        return self._intake.declare(spec)

    def log(
        self, values: Mapping[str, Any], step: int, *, clock: str = "updates", time: float | None = None
    ) -> None:
        """Record numbers at a step.

        Args:
            values: name -> a number, or an array (or nested sequence) of the signal's shape. A name seen for
                the first time is declared with the shape of its value (one element counts as a number) and the role
                its name suggests. Logging the same names in the same order again is the fast case.
            step: the step of the clock. Of several values of a signal at one step the one with the latest time is read
                back.
            clock: which counter `step` is of, for names not yet declared; a declared signal keeps its own.
            time: Unix seconds; now by default.
        """
        now = clock_time.time() if time is None else time
        try:
            queue = self._queues[(clock, *values)]
            queue.rows.append(queue.pack(step, now, *values.values()))
        except Exception:
            self._log_slowly(values, step, clock, now)
            return
        intake = self._intake
        intake.pending += queue.row_bytes
        if intake.pending > self._wake_at:
            self._crowded()

    def extend(
        self,
        names: Sequence[str],
        steps: ArrayLike,
        values: ArrayLike,
        *,
        times: ArrayLike | None = None,
        clock: str = "updates",
    ) -> None:
        """Record a block: n steps of several signals at once. Takes the arrays over; don't change them afterwards.

        Args:
            names: the signals: scalars, or all of one shape.
            steps: [n] steps of the clock.
            values: [n, len(names)] or [n, len(names), *shape] numbers; NaN is a value. For a single signal also
                [n, *shape].
            times: [n] Unix seconds; now by default.
            clock: as in `log`.
        """
        if self.closed:
            self._too_late()
            return
        self._intake.extend(names, steps, values, times, clock)
        if self._intake.pending > self._wake_at:
            self._crowded()

    def event(
        self,
        kind: str,
        *,
        step: int | None = None,
        severity: str = "note",
        source: str = "",
        clock: str = "updates",
        **details: Any,
    ) -> None:
        """Record that something happened.

        Args:
            kind: what, as a stable word ("cadence", "nan", "note").
            step: at which step of `clock`; None where it belongs to none.
            severity: "note", "warning" or "critical".
            source: who says so.
            clock: the counter of `step`.
            **details: anything JSON can say.
        """
        if self.closed:
            self._too_late()
            return
        record = event_record(str(kind), str(severity), str(source), **details)
        record["clock"] = str(clock)
        with contextlib.suppress(Exception):
            record["step"] = None if step is None else operator.index(step)
        self._intake.event(record)
        if self._intake.pending > self._wake_at:
            self._crowded()

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a fact of the run under a key ("summary", "cost", "config", ...); a later one replaces it."""
        if self.closed:
            self._too_late()
            return
        self._intake.meta(str(key), value)

    def wake(self) -> None:
        """Have what waits written now instead of within half a second; doesn't wait for it."""
        self._wake.set()

    def flush(self, timeout: float | None = 2.0) -> bool:
        """Write what waits; True once it is in the file, False if that took too long or the disk refused it."""
        if self._forked or not self._thread.is_alive():
            return False
        with self._turns:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            done = self._turns.wait_for(lambda: self._answered >= mine, timeout)
        return done and self._writer.settled

    def close(self, reason: str = "closed", timeout: float = 5.0) -> None:
        """Write what waits and the end of the run, and compact the file if that fits into the time.

        Args:
            reason: why the run ended: "closed", "exit", or the name of an exception.
            timeout: seconds all of it may take; what the disk has not taken by then is given up, and a file that
                takes longer to compact stays a log (`compact` does it later).
        """
        if self._forked:
            return
        with self._intake.lock:
            if self.closed:
                return
            self.closed = True
            self._queues = {}  # the fast path of `log` looks here first, and nowhere else
            self._stop = reason
        deadline = clock_time.monotonic() + timeout
        self._wake.set()
        self._thread.join(timeout)
        atexit.unregister(self._at_exit)
        if self._thread.is_alive():
            self._show(f"{self.path}: the disk did not take the end of the run within {timeout:g} s")
            return
        if self._writer.settled and not self._file.gone:
            self._compact(deadline)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("closed" if kind is None else kind.__name__)

    def __repr__(self) -> str:
        return f"Recorder({str(self.path)!r}{', closed' if self.closed else ''})"

    def _log_slowly(self, values: Mapping[str, Any], step: Any, clock: str, now: float) -> None:
        if self.closed:
            self._too_late()
            return
        self._intake.log(values, step, clock, now)
        if self._intake.pending > self._wake_at:
            self._crowded()

    def _crowded(self) -> None:
        self._wake.set()
        if self._intake.pending > self._queue_bytes:
            self._intake.thin()

    def _too_late(self) -> None:
        if not self._forked and not self._told_late:
            self._told_late = True
            self._show(f"{self.path} is closed: what is logged from now on is not recorded")

    @staticmethod
    def _show(text: str) -> None:
        with contextlib.suppress(Exception):
            warnings.warn(text, ThalwegWarning, stacklevel=4)

    # The writer's thread.

    def _work(self) -> None:
        stop = None
        while stop is None:
            if self._stop is None:
                self._wake.wait(self._flush_every)
            self._wake.clear()
            asked, stop = self._asked, self._stop
            self._guarded(self._write, now=stop is not None or asked > self._answered)
            if stop is not None:
                self._guarded(self._writer.end, stop)
                self._file.close()
            with self._turns:
                self._answered = asked
                self._turns.notify_all()

    def _write(self, *, now: bool) -> None:
        self._writer.write(self._intake.take(), now=now)

    def _guarded(self, action: Callable[..., None], *args: Any, **options: Any) -> None:
        """Nothing that goes wrong ends the writer's thread."""
        try:
            action(*args, **options)
        except Exception as error:
            self._show(f"{self.path}: a part of the record was lost ({type(error).__name__}: {error})")

    def _compact(self, deadline: float) -> None:
        from thalweg.record.compaction import compact_log

        try:
            compact_log(self.path, deadline=deadline)
        except Exception as error:
            self._show(f"{self.path} stays a log, which every reader takes; it was not compacted ({error})")


def _close_at_exit(reference: "weakref.ref[Recorder]") -> None:
    recorder = reference()
    if recorder is not None:
        recorder.close(uncaught_name() or "exit")


def _forget_in_child(reference: "weakref.ref[Recorder]") -> None:
    recorder = reference()
    if recorder is not None:
        recorder._forked = recorder.closed = True
        recorder._queues = {}


def _usable_path(path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        return default_path(Path("runs").absolute())
    full = Path(path).absolute()
    if full.is_dir():
        raise RunFileError(f"{full} is a folder: give the name of a file in it, such as {full / 'run.tw'}")
    return full if full.suffix == SUFFIX else full.with_name(full.name + SUFFIX)
