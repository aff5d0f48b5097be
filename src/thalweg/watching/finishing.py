"""What the watch's thread does with what has arrived: tries become steps, and each kind of entry is recorded."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from thalweg.record.recorder import Recorder
from thalweg.record.signals import Reduce, SignalSpec
from thalweg.watching.averages import Averages
from thalweg.watching.contracts import Array, Instrument, Steps
from thalweg.watching.journal import Entry
from thalweg.watching.sharing import Sharing
from thalweg.watching.signal_writer import Finished, SignalWriter
from thalweg.watching.spikes import AFTER_SPIKE, STORE_EVERY, FlightRing, Sentinel

LoopRow = tuple[int, float, float, int, tuple[float, ...]]
"""A plain row of the loop: try, Unix time, seconds the step took, examples, rate of each group."""


LogRow = tuple[int, float, tuple[str, ...], list[float], int | None]
"""Plain numbers that the user logged: try, Unix time, names, values, the user's own step."""


class TrackWriter:
    """Writes one track's entries under its names and clock.

    Args:
        key: "" or "G:" and the like, put before every name.
        clock: name of the track's clock.
    """

    def __init__(self, key: str, clock: str) -> None:
        self.key, self.clock = key, clock
        self.signals = SignalWriter(key, clock)
        self.skips: list[int] = []
        self.rows: deque[LoopRow] = deque()
        self.logs: deque[LogRow] = deque()
        self.samples = 0.0
        self.tokens = 0.0
        self.triggered: tuple[str, int] | None = None
        self.nonfinite = False
        self.last: dict[str, float] = {}
        self.broken: deque[tuple[str, Exception]] = deque()
        self._declared: set[str] = set()
        self._loss_scale = 0.0
        self.reduce: dict[str, str] = {}
        self._averages = Averages(self.reduce)
        self._flight = FlightRing()
        self._full_until = -1
        self._sentinels: dict[str, Sentinel] = {}
        self._waiting_tokens: dict[int, float] = {}

    def take_rows(self) -> tuple[list[LogRow], list[LoopRow]]:
        """The plain rows that the loop has left."""
        logs = [self.logs.popleft() for _ in range(len(self.logs))]
        return logs, [self.rows.popleft() for _ in range(len(self.rows))]

    def write(
        self, recorder: Recorder, entries: Sequence[Entry], rows: tuple[Sequence[LogRow], Sequence[LoopRow]]
    ) -> list[tuple[str, Exception]]:
        """Finish and record entries in the order they were left, and the plain rows.

        Returns:
            (where, error) of what failed; the rest is recorded.
        """
        failures: list[tuple[str, Exception]] = []
        kinds: dict[Any, list[Entry]] = {}
        for entry in entries:
            if entry.error is not None:
                failures.append((_whose(entry), entry.error))
                self._blame(entry, entry.error)
                continue
            if entry.kind == "skip":
                if float(entry.arrays[0]) != 0:
                    self.skips.append(entry.tick)
                continue
            if self.skips and self.skips[-1] == entry.tick and _of_the_update(entry):
                continue  # nothing was applied
            kinds.setdefault(_group(entry), []).append(entry)
        work = [
            (getattr(self, f"_write_{k[0]}"), of_kind, _whose(of_kind[0])) for k, of_kind in kinds.items()
        ]
        work += [(self._write_logs, block, "recording logs") for block in _blocks(rows[0], lambda r: r[2])]
        work += [
            (self._write_rows, block, "recording steps") for block in _blocks(rows[1], lambda r: len(r[4]))
        ]
        for write, block, whose in work:
            try:
                write(recorder, block)
            except Exception as error:
                failures.append((whose, error))
                self._blame(block[0], error)
        if self.triggered is not None and self.triggered[1] + AFTER_SPIKE > self._full_until:
            latest = max((r[0] for r in rows[1]), default=0)  # what is noticed late is looked at from then on
            self._full_until = max(self.triggered[1], self.step_of(latest)) + AFTER_SPIKE
            self._dump_flight(recorder)
        return failures

    def step_of(self, tick: int) -> int:
        """Updates done when the try ``tick`` began: the tries before it less those that were skipped."""
        return tick - sum(1 for s in self.skips if s < tick) if self.skips else tick

    # -- kinds of entries ---------------------------------------------------------------------------------

    def _write_measured(self, recorder: Recorder, entries: list[Entry]) -> None:
        instrument: Instrument = entries[0].payload[0]
        keys, layers = entries[0].payload[1:3]
        raw = {k: np.stack([e.arrays[i] for e in entries]).astype(np.float64) for i, k in enumerate(keys)}
        facts = {k: np.array([e.payload[3][k] for e in entries], np.float64) for k in entries[0].payload[3]}
        steps = np.array([self.step_of(e.tick) for e in entries], np.int64)
        times = np.array([e.time for e in entries])
        signals = self.signals.finish(instrument, raw, facts, layers, len(steps))
        if instrument.card.name == "gradient-norm":
            self._write_flight(recorder, instrument, signals.pop("grad/norm/*"), layers, steps, times)
            self._watch_over("grad/norm", steps, signals["grad/norm"].values)
        self.signals.write(recorder, instrument, list(signals.values()), layers, steps, times)

    def _write_flight(
        self,
        recorder: Recorder,
        instrument: Instrument,
        norms: Finished,
        layers: tuple[str, ...],
        steps: Steps,
        times: Array,
    ) -> None:
        """Remember the norms of all layers, and store those that are due."""
        here = [i for i, layer in enumerate(layers) if self.signals.sharing.written_here(layer)]
        self._flight.add(steps, times, [layers[i] for i in here], norms.values[:, here])
        kept = (steps % STORE_EVERY == 0) | (steps <= self._full_until)
        late = Finished(norms.emits, norms.values[kept])
        self.signals.write(recorder, instrument, [late], layers, steps[kept], times[kept])

    def _write_log(self, recorder: Recorder, entries: list[Entry]) -> None:
        rows = []
        for entry in entries:
            arrays, (names, known, step) = iter(entry.arrays), entry.payload
            values = [float(next(arrays)) if v is None else v for v in known]
            rows.append((entry.tick, entry.time, names, values, step))
        self._write_logs(recorder, rows)

    def _write_logs(self, recorder: Recorder, rows: Sequence[LogRow]) -> None:
        """What the user logged under one set of names."""
        names = rows[0][2]
        steps = np.array([self.step_of(r[0]) if r[4] is None else r[4] for r in rows], np.int64)
        times = np.array([r[1] for r in rows])
        values = np.array([r[3] for r in rows], np.float64)
        if "tokens" in names:
            self._count_tokens(names.index("tokens"), steps, values)
        steps, times, values = self._averages.join(names, steps, times, values)
        for name, column in zip(names, values.T, strict=True):
            self.last[name] = float(column[-1])
            if name == "loss":
                self._watch_over(name, steps, column)
        recorder.extend(names, steps, values, times=times, clock=self.clock)

    def _write_loop(self, recorder: Recorder, entries: list[Entry]) -> None:
        self._write_rows(recorder, [(e.tick, e.time, e.payload[0], e.payload[1], _rates(e)) for e in entries])

    def _write_rows(self, recorder: Recorder, rows: Sequence[Any]) -> None:
        """Rate, step time, samples and throughput of every step."""
        ticks, times, took, examples = (np.array([r[i] for r in rows], np.float64) for i in range(4))
        rates = np.array([r[4] for r in rows], np.float64)
        steps = np.array([self.step_of(int(t)) for t in ticks] if self.skips else ticks, np.int64)
        groups = rates.shape[1]
        names = (
            [] if groups == 0 else ["lr"] if groups == 1 else ["lr", *(f"lr/group{i}" for i in range(groups))]
        )
        columns = [*rates.T[:1], *(rates.T if groups > 1 else ())]
        names.append("time/step")
        columns.append(took)
        if examples.any():
            total = self.samples + np.cumsum(examples)
            self.samples = float(total[-1])
            with np.errstate(divide="ignore", invalid="ignore"):
                columns += [total, examples / took]
            names += ["samples", "throughput/examples"]
        tokens = np.array([self._waiting_tokens.pop(int(s), 0.0) for s in steps])
        if tokens.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                columns.append(tokens / took)
            names.append("throughput/tokens")
        for name in names:
            if name not in self._declared:
                self._declared.add(name)
                recorder.declare_spec(_loop_spec(self.key, name, self.clock, self.signals.sharing))
        recorder.extend(
            [self.key + n for n in names], steps, np.stack(columns, 1), times=times, clock=self.clock
        )
        self.last[self.key + "step"] = float(steps[-1] + 1)
        if groups:
            self.last[self.key + "lr"] = float(rates[-1, 0])

    def _write_scale(self, recorder: Recorder, entries: list[Entry]) -> None:
        """The loss scale at each forward; a fall of it is an update that was skipped."""
        scales = np.array([float(e.arrays[0]) for e in entries])
        steps = np.array([self.step_of(e.tick) for e in entries], np.int64)
        fell = np.diff(np.concatenate([[self._loss_scale or scales[0]], scales])) < 0
        self._loss_scale = float(scales[-1])
        total = self.last.get(self.key + "amp/skipped", 0.0) + np.cumsum(fell)
        self.last[self.key + "amp/skipped"] = float(total[-1])
        for name, role in (("amp/scale", "loss scale"), ("amp/skipped", "skipped updates")):
            if name not in self._declared:
                self._declared.add(name)
                recorder.declare_spec(SignalSpec(name=self.key + name, role=role, clock=self.clock))  # type: ignore[arg-type]  # a Literal
        times = np.array([e.time for e in entries])
        names = [self.key + "amp/scale", self.key + "amp/skipped"]
        recorder.extend(names, steps, np.stack([scales, total], 1), times=times, clock=self.clock)
        for step in steps[fell]:
            recorder.event("update skipped", step=int(step), source="loss scale", clock=self.clock)

    def _write_vector(self, recorder: Recorder, entries: list[Entry]) -> None:
        for entry in entries:
            name, array, step = entry.payload
            value = entry.arrays[0] if array is None else array
            recorder.log({name: value}, self.step_of(entry.tick) if step is None else step, time=entry.time)

    def _blame(self, first: Any, error: Exception) -> None:
        """Leave word for the loop's thread, which switches off an instrument that fails again and again."""
        if isinstance(first, Entry) and first.kind == "measured":
            self.broken.append((first.payload[0].card.name, error))

    # -- helpers ------------------------------------------------------------------------------------------

    def _dump_flight(self, recorder: Recorder) -> None:
        """Store every remembered per-layer norm that was not stored."""
        for layers, steps, times, values in self._flight.take():
            names = [f"{self.key}grad/norm/{layer}" for layer in layers]
            recorder.extend(names, steps, values, times=times, clock=self.clock)

    def _count_tokens(self, column: int, steps: Steps, values: Array) -> None:
        for step, count in zip(steps, values[:, column], strict=True):
            self._waiting_tokens[int(step)] = self._waiting_tokens.get(int(step), 0.0) + float(count)
        while len(self._waiting_tokens) > 4096:
            self._waiting_tokens.pop(next(iter(self._waiting_tokens)))
        values[:, column] = self.tokens + np.cumsum(values[:, column])
        self.tokens = float(values[-1, column])

    def _watch_over(self, name: str, steps: Steps, values: Array) -> None:
        sentinel = self._sentinels.setdefault(name, Sentinel())
        bad = sentinel.look(steps, values)
        if bad is not None:
            self.triggered = (name, bad)
        if name == "grad/norm":
            self.nonfinite = not bool(np.isfinite(values[-1]))


def _of_the_update(entry: Entry) -> bool:
    """Whether it was measured of gradients or parameters; a count of bad entries says why an update was skipped."""
    instrument = entry.payload[0] if entry.kind == "measured" else None
    return bool(instrument and instrument.needs.quantities and instrument.card.name != "nonfinite-gradient")


def _group(entry: Entry) -> tuple[Any, ...]:
    if entry.kind == "measured":
        instrument, keys, layers, facts = entry.payload
        shapes = tuple(a.shape for a in entry.arrays)
        return ("measured", id(instrument), keys, layers, tuple(facts), shapes)
    if entry.kind == "log":
        return ("log", entry.payload[0])
    if entry.kind == "loop":
        return ("loop", len(entry.payload[2]))
    return (entry.kind,)


def _blocks(rows: Sequence[Any], key: Callable[[Any], Any]) -> Iterable[list[Any]]:
    """Rows of one kind together, in their order."""
    blocks: dict[Any, list[Any]] = {}
    for row in rows:
        blocks.setdefault(key(row), []).append(row)
    return blocks.values()


def _whose(entry: Entry) -> str:
    return (
        f"instrument {entry.payload[0].card.name}"
        if entry.kind == "measured"
        else f"recording a {entry.kind}"
    )


def _rates(entry: Entry) -> list[float]:
    arrays = iter(entry.arrays)
    return [float(next(arrays)) if r is None else r for r in entry.payload[2]]


_LOOP: Mapping[str, tuple[str, str, str]] = {
    "lr": ("rate", "", "float32"),
    "time/step": ("step time", "s", "float32"),
    "samples": ("samples", "examples", "float64"),
    "throughput/examples": ("", "examples/s", "float32"),
    "throughput/tokens": ("", "tokens/s", "float32"),
}
_OF_THE_BATCH = ("samples", "throughput/examples")


def _loop_spec(key: str, name: str, clock: str, sharing: Sharing) -> SignalSpec:
    role, unit, dtype = _LOOP.get(name, ("", "", "float32"))
    reduce: Reduce = "sum" if sharing.batch and name in _OF_THE_BATCH else "none"
    return SignalSpec(name=key + name, role=role, clock=clock, unit=unit, dtype=dtype, reduce=reduce)  # type: ignore[arg-type]  # Literals
