"""From the step to the run file: what was measured is put in an outbox, brought to the host, finished, recorded.

The loop only appends to the outbox. A thread of the watch empties it a few times a second: it does the square
roots, averages and ratios in float64, and hands whole blocks to the `Recorder`. Tensors on an accelerator are first
packed into one buffer and copied to pinned memory without waiting; the thread takes them when the copy has arrived.
"""

import contextlib
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from thalweg.core.errors import ThalwegWarning
from thalweg.record.recorder import Recorder

EVERY = 0.75
"""Seconds between two emptyings, each of which is written at once: a kill loses less than a second.

Each takes the interpreter from the loop for a millisecond or two, however little has been left since the last.
"""

LARGEST_OUTBOX = 100_000
"""Entries of a kind that may wait; more means that the host can't keep up, and the newest are dropped and counted."""


class Entry:
    """One thing the loop has left: its kind, step, time, tensors, and what the host knew already."""

    __slots__ = ("arrays", "error", "kind", "payload", "tensors", "tick", "time", "track")

    def __init__(
        self, kind: str, track: Any, tick: int, payload: Any, tensors: Sequence[Tensor | list[float]]
    ) -> None:
        self.kind = kind
        self.track = track
        self.tick = tick
        self.time = time.time()
        self.payload = payload
        self.tensors = tensors
        self.arrays: list[Any] = []
        self.error: Exception | None = None


class Shipment:
    """Entries whose tensors are on their way to the host, all in one copy."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        by_device: dict[torch.device, list[Tensor]] = {}
        for entry in entries:
            for tensor in entry.tensors:
                if isinstance(tensor, Tensor):
                    by_device.setdefault(tensor.device, []).append(tensor)
        self._loads = [_Load(device, tensors) for device, tensors in by_device.items()]

    def arrive(self) -> list[Entry]:
        """Wait for the copies, in the calling thread, and give the entries their arrays, or what went wrong."""
        streams = {load.device: load.unpack() for load in self._loads}
        for entry in self.entries:
            entry.arrays = [
                next(streams[t.device]) if isinstance(t, Tensor) else np.array(t) for t in entry.tensors
            ]
            entry.error = next((a for a in entry.arrays if isinstance(a, Exception)), None)
            entry.tensors = ()
        return self.entries


class _Load:
    def __init__(self, device: torch.device, tensors: list[Tensor]) -> None:
        self.device = device
        self._shapes = [tuple(t.shape) for t in tensors]
        self._event: Any = None
        if device.type == "cpu":
            self._here: list[Tensor] | None = tensors
            return
        self._here = None
        dtype = torch.float32 if device.type == "mps" else torch.float64
        packed = torch.cat([t.detach().reshape(-1).to(dtype) for t in tensors])
        if device.type == "cuda":
            self._host = torch.empty(packed.shape, dtype=dtype, pin_memory=True)
            self._host.copy_(packed, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
            self._event.record(torch.cuda.current_stream(device))
        else:
            self._host = packed.cpu()

    def unpack(self) -> Any:
        if self._here is not None:
            yield from (_to_numpy(t) for t in self._here)
            return
        if self._event is not None:
            self._event.synchronize()
        flat, at = self._host.numpy(), 0
        for shape in self._shapes:
            n = int(np.prod(shape, dtype=np.int64))
            yield flat[at : at + n].reshape(shape)
            at += n


def _to_numpy(tensor: Tensor) -> np.ndarray[Any, Any] | Exception:
    """The tensor's array; for one that has none (sparse, or of a functional transform), what it raised."""
    try:
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
    except Exception as error:
        return error


class Mirror(Protocol):
    """Another tool that gets every signal as well."""

    def write(self, names: Sequence[str], steps: Any, values: Any, times: Any) -> None:
        """A block: [steps, names]."""

    def close(self) -> None:
        """No more will come."""


class Writer(Protocol):
    """Finishes one optimizer's entries and plain rows, and writes them to a recorder; called by the thread."""

    def take_rows(self) -> tuple[list[Any], list[Any]]:
        """The plain rows left since the last call."""

    def write(self, recorder: Any, entries: Sequence[Entry], rows: Any) -> list[tuple[str, Exception]]:
        """Finish and record; what failed, and where."""


class Tee:
    """A recorder whose numbers go to mirrors as well; a mirror that fails is left out from then on."""

    def __init__(self, recorder: Recorder, mirrors: list[Mirror]) -> None:
        self._recorder, self._mirrors = recorder, mirrors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name)

    def extend(
        self, names: Sequence[str], steps: Any, values: Any, *, times: Any = None, clock: str = "updates"
    ) -> None:
        """Record a block, and mirror it; sums that are joined with other ranks' are recorded only."""
        self._recorder.extend(names, steps, values, times=times, clock=clock)
        shaped = values.ndim > 2 or (len(names) == 1 and values.shape[1:] not in ((), (1,)))
        for mirror in () if shaped else list(self._mirrors):
            try:
                mirror.write(names, steps, values, times)
            except Exception:
                self._mirrors.remove(mirror)
                raise

    def log(self, values: Mapping[str, Any], step: int, *, time: float | None = None) -> None:
        """Record values that are no block; mirrors get scalars only."""
        self._recorder.log(values, step, time=time)


class Journal:
    """The outbox, the thread that empties it, and the recorder it writes to.

    Args:
        make_recorder: makes the recorder when the first thing is to be written, or at `open`.
        accelerated: whether tensors may be on a device that must not be waited for.
    """

    def __init__(
        self,
        make_recorder: Callable[[], Recorder],
        *,
        accelerated: bool,
    ) -> None:
        self._make_recorder = make_recorder
        self.writers: list[Writer] = []
        self.accelerated = accelerated
        self._outbox: deque[Entry] = deque()
        self._under_way: deque[Shipment] = deque()
        self._last_shipped = time.perf_counter()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._told: set[str] = set()
        self.muted = False  # while a closure is evaluated again within one step
        self._recorder: Recorder | None = None
        self.dropped, self.room = 0, LARGEST_OUTBOX
        self.mirrors: list[Mirror] = []
        self.look: Callable[[], None] | None = None  # what else the thread does, after each emptying
        self._thread = threading.Thread(target=self._work, name="thalweg-watch", daemon=True)
        self._thread.start()

    @property
    def recorder(self) -> Recorder:
        """The recorder, made now if nothing was written before."""
        with self._lock:
            if self._recorder is None:
                self._recorder = self._make_recorder()
            return self._recorder

    @property
    def started(self) -> bool:
        """Whether the recorder exists."""
        return self._recorder is not None

    def put(self, entry: Entry) -> None:
        """Leave an entry; never waits."""
        if len(self._outbox) < self.room:
            self._outbox.append(entry)
        else:
            self.dropped += 1

    def ship(self, now: float) -> None:
        """Called by the loop's own thread, so that copies are queued on the stream that made the tensors."""
        if self.accelerated and now - self._last_shipped > EVERY / 2:
            self._last_shipped = now
            self._under_way.append(Shipment(self._take()))

    def drain(self) -> None:
        """Bring everything to the record now. Failures are recorded, not raised."""
        with self._lock:
            rows = [(writer, writer.take_rows()) for writer in self.writers]
            entries: list[Entry] = []
            while self._under_way:
                entries += self._under_way.popleft().arrive()
            if not self.accelerated or time.perf_counter() - self._last_shipped > 3 * EVERY:
                entries += Shipment(self._take()).arrive()
            of_writer: dict[int, list[Entry]] = {}
            for entry in entries:
                of_writer.setdefault(id(entry.track), []).append(entry)
            for writer, plain in rows:
                mine = of_writer.get(id(writer), [])
                if mine or any(plain):
                    try:
                        to = Tee(self.recorder, self.mirrors) if self.mirrors else self.recorder
                        for where, error in writer.write(to, mine, plain):
                            self.failed(where, error)
                    except Exception as error:
                        self.failed("recording", error)

    def flush(self) -> None:
        """Bring everything to the file now, also what is still on an accelerator."""
        with self._lock:
            self._last_shipped = float("-inf")
            self.drain()
            self._last_shipped = time.perf_counter()
            if self._recorder is not None:
                self._recorder.flush()

    def failed(self, where: str, error: BaseException) -> None:
        """Something of the watch failed: into the record, and shown once; the loop goes on."""
        text = f"{where}: {type(error).__name__}: {error}"
        if text in self._told:
            return
        self._told.add(text)
        with contextlib.suppress(
            Exception
        ):  # where even the recorder can't be made, the warning is all there is
            self.event("failure", severity="warning", source=where, error=text)
        self.warn(f"The watch could not record something and goes on without it. {text}")

    def warn(self, text: str) -> None:
        """Show a warning, even where warnings are errors: nothing here may end a run."""
        with contextlib.suppress(Exception):
            warnings.warn(text, ThalwegWarning, stacklevel=3)

    def event(
        self,
        kind: str,
        *,
        step: int | None = None,
        severity: str = "note",
        source: str = "watch",
        **details: Any,
    ) -> None:
        """Record an event."""
        self.recorder.event(kind, step=step, severity=severity, source=source, **details)

    def close(self, reason: str, meta: Callable[[], Mapping[str, Any]]) -> None:
        """Write what is left, stop the thread, close the file; ``meta`` is asked when all is written."""
        self._stop.set()
        self.flush()
        for key, value in meta().items():
            self.recorder.set_meta(key, value)
        if self.dropped:
            self.event("dropped", severity="warning", entries=self.dropped)
        for mirror in self.mirrors:
            try:
                mirror.close()
            except Exception as error:
                self.failed("mirror", error)
        self.recorder.close(reason)

    def abandon(self) -> None:
        """Stop the thread; nothing will come."""
        self._stop.set()

    def restart(self) -> None:
        """Close the recorder, which holds no step yet; the next thing to be written makes a new one."""
        with self._lock:
            if self._recorder is not None:
                self._recorder.close("superseded")
            self._recorder = None

    def _take(self) -> list[Entry]:
        taken = []
        for _ in range(len(self._outbox)):
            taken.append(self._outbox.popleft())
        return taken

    def _work(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.drain()
                if self._recorder is not None:
                    self._recorder.wake()
            except Exception as error:  # a daemon thread that died would lose everything after
                self.failed("watch thread", error)
            if (look := self.look) is not None:
                try:
                    look()
                except Exception as error:
                    self.look = None
                    self.failed("live findings", error)
