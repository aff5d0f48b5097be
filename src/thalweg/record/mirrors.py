"""Other tools that get every signal as well: TensorBoard's event files, Weights & Biases.

A mirror takes the blocks that the watch's own thread hands to the recorder; the loop never waits for it. It gets
scalars only: spectra and matrices stay in the run file.
"""

import os
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core.errors import MissingExtra, UsageError

_FILES = count()


class Mirror(Protocol):
    """Another tool that gets every signal as well."""

    def write(
        self, names: Sequence[str], steps: ArrayLike, values: ArrayLike, times: ArrayLike | None
    ) -> None:
        """Take a block.

        Args:
            names: the signals.
            steps: [n].
            values: [n, len(names)].
            times: [n] Unix seconds; now where None.
        """

    def close(self) -> None:
        """No more will come."""


def make_mirror(kind: str, *, name: str, **options: Any) -> Mirror:
    """A mirror for a run.

    Args:
        kind: "tensorboard" or "wandb".
        name: of the run.
        **options: "tensorboard": ``folder``, where the run gets a folder of its own ("tensorboard" by default).
            "wandb": whatever ``wandb.init`` takes (``project``, ``mode="offline"``, ...). If a W&B run is active
            already, the signals go there under ``thalweg/``, and it is left open.

    Raises:
        UsageError: another kind, or an option that the tool doesn't have.
        MissingExtra: the tool is not installed.
    """
    if kind == "tensorboard":
        unknown = sorted(set(options) - {"folder"})
        if unknown:
            raise UsageError(f'mirror("tensorboard") takes folder=, not {", ".join(unknown)}.')
        return TensorBoardMirror(Path(options.get("folder", "tensorboard")) / name)
    if kind == "wandb":
        return WandbMirror(name, options)
    raise UsageError(f'mirror() knows "tensorboard" and "wandb", not {kind!r}.')


class TensorBoardMirror:
    """An event file that TensorBoard reads, written without TensorFlow and without PyTorch.

    What comes late is left out (the flight recorder's rows around a spike): TensorBoard takes a step that goes
    back for a restart and would forget what came after it.

    Args:
        folder: of the run; made if it is missing.

    Raises:
        MissingExtra: the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ModuleNotFoundError as error:
            raise _missing("tensorboard", error) from error
        folder.mkdir(parents=True, exist_ok=True)
        started = time.time()
        file = folder / f"events.out.tfevents.{int(started)}.thalweg.{os.getpid()}.{next(_FILES)}"
        self._event, self._summary = Event, Summary
        self._records = RecordWriter(file.open("xb"))
        self._last: dict[str, int] = {}
        self._records.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
        self._records.flush()

    def write(
        self, names: Sequence[str], steps: ArrayLike, values: ArrayLike, times: ArrayLike | None
    ) -> None:
        """One event a step, with all signals of the block that have not gone on to a later step."""
        for step, when, row in _rows(names, steps, values, times):
            kept = [i for i, name in enumerate(names) if step >= self._last.get(name, step)]
            if not kept:
                continue
            self._last.update({names[i]: step for i in kept})
            summary = self._summary(value=[{"tag": names[i], "simple_value": float(row[i])} for i in kept])
            event = self._event(wall_time=when, step=step, summary=summary)
            self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()


class WandbMirror:
    """A Weights & Biases run, or a part of the one that is active.

    Every signal has ``thalweg/step`` for its horizontal axis, since blocks of different signals do not come in the
    order of their steps.

    Args:
        name: of the run.
        options: for ``wandb.init``.

    Raises:
        MissingExtra: the package ``wandb`` is not installed.
    """

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing("wandb", error) from error
        active: Any = wandb.run
        self._own = active is None
        self._run = wandb.init(**{"name": name, **options}) if self._own else active
        self._prefix = "" if self._own else "thalweg/"
        self._defined: set[str] = set()
        self._run.define_metric("thalweg/step", hidden=True)

    def write(
        self, names: Sequence[str], steps: ArrayLike, values: ArrayLike, times: ArrayLike | None
    ) -> None:
        """One W&B row a step."""
        full = [self._prefix + name for name in names]
        for name in full:
            if name not in self._defined:
                self._defined.add(name)
                self._run.define_metric(name, step_metric="thalweg/step")
        for step, _, row in _rows(names, steps, values, times):
            self._run.log({"thalweg/step": step, **dict(zip(full, row, strict=True))})

    def close(self) -> None:
        """Finish the run, if it was begun here."""
        if self._own:
            self._run.finish()


def _rows(
    names: Sequence[str], steps: ArrayLike, values: ArrayLike, times: ArrayLike | None
) -> list[tuple[int, float, list[float]]]:
    """A block as (step, time, values) rows; none where the values are no scalars."""
    at = np.asarray(steps, np.int64).reshape(-1)
    table = np.asarray(values, np.float64)
    if table.size != len(at) * len(names):
        return []
    when = np.full(len(at), time.time()) if times is None else np.asarray(times, np.float64).reshape(-1)
    return list(zip(at.tolist(), when.tolist(), table.reshape(len(at), len(names)).tolist(), strict=True))


def _missing(tool: str, error: ModuleNotFoundError) -> ImportError:
    """`MissingExtra` if the tool is absent, the error itself if it is there and broken."""
    if (error.name or "").split(".")[0] != tool:
        return error
    return MissingExtra(
        f"mirror({tool!r}) needs {tool}, which is not installed here: pip install 'thalweg[{tool}]'"
    )
