"""Going on with a run after a stop: which run, which segment, and from which step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from thalweg.record import open_run
from thalweg.record.naming import family, next_segment_path, segment_path, split_name
from thalweg.record.signals import SignalSpec
from thalweg.tensor.ranks import agreed
from thalweg.watching.track import Track
from thalweg.watching.user_log import is_evaluation


@dataclass(frozen=True)
class Continuation:
    """The run to continue.

    Attributes:
        path: the file of the new segment; for one made from a state, a file of the old run.
        run_id: the run's id.
        segment: number of the new segment.
        first_step: the step it starts at.
        last_step: the last step recorded before, where the old file was read.
        tracks: what a checkpoint's state says of each optimizer.
        guessed: how the first step was guessed, in words; empty where it is known.
    """

    path: Path
    run_id: str
    segment: int
    first_step: int = 0
    last_step: int | None = None
    tracks: Mapping[str, Any] = field(default_factory=dict)
    guessed: str = ""

    @classmethod
    def from_state(cls, state: Mapping[str, Any], fallback: Path | None) -> "Continuation":
        """From ``watch.state_dict()``; beside the old file where that still exists, else at ``fallback``."""
        path = Path(state["path"])
        tracks = dict(state["tracks"])
        first = int(next(iter(tracks.values()))["updates"]) if tracks else 0
        if path.exists():
            number = _next_segment(path)
        else:
            path, number = fallback or path, split_name(path).segment + 1
        return cls(path, str(state["run_id"]), number, first, None, tracks)

    def at(self, step: tuple[int, str]) -> "Continuation":
        """The same, starting at this step; with how it was guessed."""
        return replace(self, first_step=step[0], guessed=step[1])


def continuation_of(path: Path) -> Continuation | None:
    """What continuing the run in ``path`` means; None if there is no such run yet."""
    if not path.exists():
        return None
    run = open_run(path)
    number = _next_segment(path)
    steps = [
        int(run[name].steps[-1])
        for name in run.names()
        if name == "time/step" or name.endswith(":time/step")
        if len(run[name])
    ]
    return Continuation(segment_path(path, number), run.id, number, 0, max(steps, default=-1))


def evaluations_kept(last: Continuation) -> list[tuple[SignalSpec, float, float]]:
    """(signal, value, Unix time) of each evaluation of the model that the new segment starts from.

    A segment replaces what was recorded at its first step and after it. An evaluation at that step is of the model
    before the first update of the new segment, and a run evaluated and then saved doesn't evaluate again
    when it goes on: the new segment repeats these values.
    """
    files = family(last.path)
    if not files:
        return []
    run = open_run(files[0])
    if run.id != last.run_id:
        return []
    kept = []
    for spec in run.signals:
        if is_evaluation(spec.name, spec.role) and spec.clock == "updates" and not spec.shape:
            series = run[spec.name]
            found = np.flatnonzero(series.steps == last.first_step)
            kept += [(spec, float(series.values[i]), float(series.times[i])) for i in found]
    return kept


def _next_segment(path: Path) -> int:
    """The number after the run's last segment; the same on every rank, whichever has made its file already."""
    number = split_name(next_segment_path(path)).segment
    return int(agreed(f"segment of {split_name(path).base}", str(number)))


def state_of(track: Track) -> dict[str, Any]:
    """What a checkpoint keeps of one track."""
    instruments = [p.instrument for p in track.governor.planned]
    return {
        "updates": track.writer.step_of(track.tries),
        "samples": track.writer.samples,
        "tokens": track.writer.tokens,
        "initial": track.initial_state(),
        "instruments": {i.card.name: i.state_dict() for i in instruments if hasattr(i, "state_dict")},
    }


def load_state(track: Track, saved: Mapping[str, Any]) -> None:
    """Go on with the totals and instruments of a checkpoint; the count of updates follows at the first step."""
    track.writer.samples = float(saved.get("samples", 0))
    track.writer.tokens = float(saved.get("tokens", 0))
    for planned in track.governor.planned:
        kept = saved.get("instruments", {}).get(planned.name)
        if kept is not None and hasattr(planned.instrument, "load_state_dict"):
            planned.instrument.load_state_dict(kept)


def present_step(last: Continuation, tracks: Sequence[Track]) -> tuple[int, str]:
    """The number of updates done when the new segment begins, and how that was guessed ("" if known).

    From the checkpoint's state; else from the optimizer's own count of steps; else the step after the last
    recorded one.
    """
    if last.tracks:
        return last.first_step, ""
    counts = [count for track in tracks if (count := _optimizer_steps(track)) is not None]
    if counts:
        return counts[0], ""
    step = (last.last_step if last.last_step is not None else -1) + 1
    return step, (
        f"The run is continued at step {step}, the one after the last recorded: the optimizer doesn't count its steps. "
        "Keep watch.state_dict() in your checkpoint and give it to watch.load_state_dict() to continue exactly."
    )


def _optimizer_steps(track: Track) -> int | None:
    optimizer = track.view.optimizer
    found = [s["step"] for s in optimizer.state.values() if "step" in s] if optimizer is not None else []
    if not found:
        return None
    return int(max(float(s) if isinstance(s, Tensor) else s for s in found))
