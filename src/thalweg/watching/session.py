"""The live watch: what a loop and a person call on it."""

import atexit
import os
import sys
import uuid
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor

from thalweg.core.errors import RunFileError, ThalwegError, UsageError
from thalweg.record import Recorder, Run, open_run
from thalweg.record.declaring import Registry
from thalweg.record.naming import family, rank_path, segment_path, split_name
from thalweg.record.roles import guess_role
from thalweg.record.signals import Role, SignalSpec
from thalweg.tensor.local import is_sharded
from thalweg.tensor.ranks import agreed, rank_and_world
from thalweg.watching.clipping import Clipping, part_of_norm
from thalweg.watching.contracts import Instrument
from thalweg.watching.endings import CloseAtExit, SilenceInChild
from thalweg.watching.finishing import TrackWriter
from thalweg.watching.journal import Entry, Journal
from thalweg.watching.live_findings import say_findings
from thalweg.watching.notices import NEVER_STEPPED, notices
from thalweg.watching.planning import Asked, Target, memory_for, path_of, reserved_names
from thalweg.watching.resuming import (
    Continuation,
    continuation_of,
    evaluations_kept,
    load_state,
    present_step,
    state_of,
)
from thalweg.watching.surroundings import environment
from thalweg.watching.track import Track
from thalweg.watching.user_log import UserLog


class Watch:
    """A watched run. Made by `watch`.

    Attributes:
        path: the run file; None where the watch is off.
        on: whether anything is recorded.
    """

    def __init__(self, asked: Asked) -> None:
        self.on = asked.on
        self.path: Path | None = None
        self._asked = asked.without_targets()  # which are held weakly: a watch must not keep a model alive
        self._closed = True  # until all is attached
        self._targets = [
            (t.key, weakref.ref(t.model), None if t.optimizer is None else weakref.ref(t.optimizer))
            for t in asked.targets
        ]
        self._tracks: list[Track] = []
        self._at_exit = CloseAtExit(self)
        if not asked.on:
            return
        self._choose_file(asked)
        self._begun = False
        accelerated = any(p.device.type != "cpu" for t in asked.targets for p in t.model.parameters())
        make = weakref.WeakMethod(self._make_recorder)  # the journal's thread must not keep the watch alive
        self._journal = Journal(lambda: cast(Any, make())(), accelerated=accelerated)
        self._clipping = Clipping()
        self._declared: dict[str, SignalSpec] = {}
        try:
            for target, chosen in zip(asked.targets, asked.instruments, strict=True):
                self._tracks.append(self._attach(target, chosen))
            self._log = UserLog(reserved_names(asked), self._tracks[0])
            if self._continuation is None:
                _ = self._journal.recorder
        except BaseException:
            for track in self._tracks:
                track.hooks.remove()
            self._journal.abandon()
            raise
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=SilenceInChild(self))
        self._closed = False

    # -- what a loop calls --------------------------------------------------------------------------------

    def log(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        step: int | None = None,
        tokens: float | None = None,
        prefix: str = "",
        **named: Any,
    ) -> None:
        """Record numbers: ``log(loss=loss)``, ``log({"eval/accuracy": a}, tokens=4096)``. Never waits, never raises.

        Args:
            values: name -> number, tensor, array.
            step: the step they belong to. By default that of the last training forward (the number of updates
                done before it), for evaluation names that of the last forward; several logs of one name within a
                step are averaged (see `declare`). Where the optimizer evaluates a closure several times within
                one step, what is logged in the first evaluation counts: the others are elsewhere.
            tokens: how many tokens this call stands for; added up in the signal "tokens".
            prefix: put before each name, with a slash.
            **named: more numbers.
        """
        if self._closed or self._journal.muted:
            return
        start = perf_counter()
        track = self._tracks[0]
        try:
            if not self._begun:
                self._begin()
            if values:
                named = {**values, **named}
            if tokens is not None:
                named["tokens"] = tokens
            self._log.put(named, prefix, step)
        except Exception as error:
            self._journal.failed("log", error)
        track.spent += perf_counter() - start

    def clip_grad_norm_(
        self,
        max_norm: float,
        key: str | None = None,
        *,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
        foreach: bool | None = None,
    ) -> Tensor:
        """Clip the gradients as ``torch.nn.utils.clip_grad_norm_`` does, and record the norm before clipping.

        Args:
            max_norm: the limit.
            key: which optimizer's parameters, where several are watched; by default those of the first.
            norm_type: order of the norm; only 2 is recorded.
            error_if_nonfinite: raise as torch does.
            foreach: as in torch.

        Returns:
            The norm before clipping, as torch returns it.

        Raises:
            UsageError: no such key.
        """
        index = self._index(key)
        total = torch.nn.utils.clip_grad_norm_(
            self._parameters(index), max_norm, norm_type, error_if_nonfinite, foreach
        )
        if norm_type == 2.0:
            self.record_clipping(total, max_norm, index)
        return total

    def step(self) -> None:
        """Count one update, in a loop whose optimizer has no hooks; call it right after the update."""
        if not self._closed:
            for track in self._tracks:
                try:
                    track.step()
                except Exception as error:
                    self._journal.failed("step", error)

    def stamp(self) -> None:
        """Say that the forward for the next update begins, where the watch can't see it by itself."""
        if not self._closed:
            for track in self._tracks:
                track.mark()

    def declare(
        self,
        name: str,
        *,
        reduce: str = "mean",
        role: Role = "",
        clock: str = "updates",
        unit: str = "",
        shape: Sequence[int] = (),
    ) -> None:
        """Say what a signal of your own is, before logging it.

        Args:
            name: as it will be logged.
            reduce: how several logs within one step are joined: "mean"; "sum", for a loss that was divided by the
                number of micro-batches; "last".
            role: what it means (see `thalweg.record.signals.Role`); guessed from the name by default.
            clock: counter that its steps are of.
            unit: unit of the values.
            shape: shape of one value.

        Raises:
            UsageError: an argument that can't be used.
        """
        if reduce not in ("mean", "sum", "last"):
            raise UsageError(f'declare(reduce=) is "mean", "sum" or "last", not {reduce!r}.')
        if not self._closed:
            full = self._log.declared(name, role)
            role = role or guess_role(full)
            spec = SignalSpec(name=full, role=role, clock=clock, unit=unit, shape=tuple(map(int, shape)))
            Registry().declare(spec)  # raises here what can't be used, also where there is no recorder yet
            self._declared[full] = spec
            self._tracks[0].writer.reduce[full] = reduce
            if self._journal.started:
                self._journal.recorder.declare_spec(spec)

    def event(self, kind: str, **details: Any) -> None:
        """Record an event at the present step."""
        if self._closed:
            return
        try:
            self._begin()
            self._journal.event(kind, step=self.updates, source="user", **details)
        except Exception as error:
            self._journal.failed("event", error)

    # -- what a person asks -------------------------------------------------------------------------------

    @property
    def updates(self) -> int:
        """Updates applied so far, as far as the host knows."""
        return self._tracks[0].writer.step_of(self._tracks[0].tries) if self._tracks else 0

    @property
    def cost(self) -> dict[str, Any]:
        """What the watch costs the first optimizer's steps so far: see `CostMeter.summary`; {} at first."""
        return self._tracks[0].cost.summary() if self._tracks else {}

    @property
    def run(self) -> Run:
        """The record so far, read from the file."""
        if self.path is None:
            raise ThalwegError(
                "This watch is off (enabled=False, THALWEG=off, or a rank that doesn't record): no run."
            )
        if not self._closed:
            self._journal.flush()
        begun = self.path.exists()  # a new segment's file is made at its first step
        return open_run(self.path if begun else next(iter(family(self.path)), self.path))

    @property
    def recorder(self) -> Recorder:
        """The recorder underneath, for what has no step of an optimizer."""
        if not self.on:
            raise ThalwegError("This watch is off: it has no recorder.")
        return self._journal.recorder

    def mirror(self, kind: str, **options: Any) -> None:
        """Write every signal to another tool as well: ``mirror("tensorboard", folder="tb")`` or ``mirror("wandb")``.

        Args:
            kind: "tensorboard" or "wandb".
            **options: handed to the tool.

        Raises:
            UsageError: another kind.
            MissingExtra: the tool is not installed.
        """
        from thalweg.record.mirrors import make_mirror

        made = make_mirror(kind, name=self.path.stem if self.path else "", **options)
        if not self._closed:
            self._journal.mirrors.append(made)

    # -- for integrations ---------------------------------------------------------------------------------

    def record_clipping(self, norm: Tensor | float, max_norm: float, index: int = 0) -> None:
        """Record the norm that somebody else's clipping found, as `clip_grad_norm_` records its own.

        Args:
            norm: of the gradients before clipping; a tensor stays where it is, nothing waits for it.
            max_norm: the limit.
            index: which of the watched optimizers, in the order they were given.
        """
        if self._closed:
            return
        try:
            total = norm if isinstance(norm, Tensor) else torch.tensor(float(norm))
            track = self._tracks[index]
            sharing = track.writer.signals.sharing
            if is_sharded(total) and not sharing.sharded:
                raise ThalwegError("the norm of sharded gradients would need a collective; not recorded")
            self._begin()
            track.view.unclipped = kept = part_of_norm(
                total, self._asked.rank if sharing.sharded else 0
            ).clone()
            payload = (self._clipping, ("norm",), (), {"max_norm": float(max_norm)})
            self._journal.put(Entry("measured", track.writer, track.tries, payload, [kept]))
        except Exception as error:
            self._journal.failed("clipping", error)

    def is_due(self, instrument: str, index: int = 0) -> bool:
        """Whether an instrument looks at the step under way.

        Args:
            instrument: its card's name, such as "gradient-norm".
            index: which of the watched optimizers, in the order they were given.
        """
        if self._closed:
            return False
        track = self._tracks[index]
        return any(planned.name == instrument for planned in track.governor.plan(track.tries).due)

    # -- stopping and going on ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs so that a later process continues this run: numbers, names and small tensors."""
        if not self._tracks:
            return {}
        if not self._closed:
            self._journal.flush()
        return {
            "version": 1,
            "path": str(self.path),
            "run_id": self._journal.recorder.run_id,
            "tracks": {track.writer.key: state_of(track) for track in self._tracks},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the run that a checkpoint was of, as a new segment; call it before the first step."""
        if self._closed or not state:
            return
        if self._begun:
            self._journal.failed(
                "load_state_dict", ThalwegError("steps were recorded before it; call it before the loop")
            )
            return
        try:
            self._go_on(state)
        except Exception as error:
            self._journal.failed("load_state_dict", error)

    def close(self, reason: str = "closed") -> None:
        """End the record: hooks out, file closed and compacted. Harmless when called again."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        for track in self._tracks:
            track.hooks.remove()
            track.owner = None
            track.finish()
        try:
            if not any(t.tries for t in self._tracks) and reason != "watched anew":
                self._journal.event("no step seen", severity="warning", text=NEVER_STEPPED)
                self._journal.warn(NEVER_STEPPED)
            self._journal.close(reason, self._closing_meta)
        except Exception as error:
            self._journal.warn(f"The run file could not be closed: {type(error).__name__}: {error}")

    def silence(self) -> None:
        """In a forked child: neither count nor close anything; the parent does."""
        self._closed = True
        for track in self._tracks:
            track.hooks.silence()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("closed" if kind is None else kind.__name__)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not sys.is_finalizing():
            self.close("model gone")

    # -- inside -------------------------------------------------------------------------------------------

    def _choose_file(self, asked: Asked) -> None:
        """Where the record goes, under which run; nothing that exists is overwritten."""
        last = self._continuation = continuation_of(path_of(asked.out)) if asked.resume else None
        base = last.path if last else path_of(asked.out)
        self._run_id = last.run_id if last else uuid.uuid4().hex
        if asked.world > 1 and last is None:  # the files of one run share its id, and its default name
            self._run_id, name = agreed(f"run {asked.out}", f"{self._run_id} {base.name}").split(" ", 1)
            base = base.with_name(name)
        self.path = rank_path(base, asked.rank)
        if self.path.exists():
            raise RunFileError(
                f"{self.path} exists and nothing is overwritten. Choose another out=, or pass resume=True to continue it."
            )

    def _attach(self, target: Target, chosen: Sequence[Instrument]) -> Track:
        asked = self._asked
        clock = "updates" if not self._tracks else f"updates/{target.key.rstrip(':')}"
        track = Track(
            target.model,
            target.optimizer,
            chosen,
            self._journal,
            TrackWriter(target.key, clock),
            budget=asked.budget,
            cadence=asked.cadence,
            memory=asked.memory or memory_for(target.model),
            scaler=asked.scaler,
            held=asked.held,
            rank=asked.rank,
            world=asked.world,
            agree=partial(_agreed_among_ranks, f"{self._run_id} {target.key}") if asked.world > 1 else None,
            on_first=self._begin,
        )
        track.owner = self
        self._journal.writers.append(track.writer)
        return track

    def _make_recorder(self) -> Recorder:
        last, asked = self._continuation, self._asked
        recorder = Recorder(
            self.path,
            name=asked.name or split_name(cast(Path, self.path)).base,
            config=asked.config,
            tags=asked.tags,
            environment=environment(),
            run_id=last.run_id if last else self._run_id,
            segment=last.segment if last else 0,
            first_step=last.first_step if last else 0,
            rank=asked.rank,
            world=asked.world,
        )
        # Handlers run last in, first out: registered after the recorder's, the watch closes before it does.
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)
        training = rank_and_world()[1]
        for track in self._tracks:
            for kind, details in notices(track, asked.world, training):
                recorder.event(kind, step=None, source="watch", **details)
        for spec in self._declared.values():
            recorder.declare_spec(spec)
        if asked.rank == 0:
            say_findings(self._journal, recorder.path)
        return recorder

    def _begin(self) -> None:
        """The first forward, step or log: from here on the run is what it is."""
        if self._begun:
            return
        self._begun = True
        if self._continuation is not None:
            self._continuation = self._continuation.at(present_step(self._continuation, self._tracks))
            if self._continuation.guessed:
                self._journal.warn(self._continuation.guessed)
        for track in self._tracks:
            state = self._continuation.tracks.get(track.writer.key, {}) if self._continuation else {}
            first = self._continuation.first_step if self._continuation else 0
            track.begin(int(state.get("updates", first)), state.get("initial"))
        if self._continuation is not None:
            self._repeat_evaluations(self._continuation)

    def _repeat_evaluations(self, last: Continuation) -> None:
        try:
            for spec, value, time in evaluations_kept(last):
                self._journal.recorder.declare_spec(spec)
                self._journal.recorder.log({spec.name: value}, last.first_step, time=time)
        except Exception as error:
            self._journal.failed("earlier evaluations", error)

    def _go_on(self, state: Mapping[str, Any]) -> None:
        last = Continuation.from_state(state, self.path)
        if self._journal.started:
            self._journal.restart()
            if self.path is not None:
                self.path.unlink(missing_ok=True)
        self._continuation = last
        if last.path.exists():
            self.path = segment_path(last.path, last.segment, self._asked.rank)
        for track in self._tracks:
            load_state(track, last.tracks.get(track.writer.key, {}))

    def _closing_meta(self) -> dict[str, Any]:
        main = self._tracks[0]
        last = {k: v for track in self._tracks for k, v in track.writer.last.items()}
        periods = {p.name: p.period for p in main.governor.planned if p.on}
        return {"summary": last, "cost": main.cost.summary() | {"periods": periods}}

    def _index(self, key: str | None) -> int:
        if key is None:
            return 0
        keys = [k.rstrip(":") for k, _, _ in self._targets]
        if key.rstrip(":") not in keys:
            raise UsageError(f"clip_grad_norm_(key={key!r}): the watched optimizers are {', '.join(keys)}.")
        return keys.index(key.rstrip(":"))

    def _parameters(self, index: int) -> list[Tensor]:
        _, model, optimizer = self._targets[index]
        held = None if optimizer is None else optimizer()
        if held is not None:
            return [p for group in held.param_groups for p in group["params"]]
        alive = model()
        return list(alive.parameters()) if alive is not None else []


def _agreed_among_ranks(whose: str, question: str, mine: str) -> str:
    return agreed(f"{whose}{question}", mine)
