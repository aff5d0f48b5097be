"""`watch`: what a call of it asks for, checked before anything is attached."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from thalweg.core.errors import UsageError
from thalweg.tensor.hooks import find_targets
from thalweg.tensor.ranks import rank_and_world
from thalweg.tensor.unwrapping import inner_model
from thalweg.watching.contracts import HeldBatch, Instrument
from thalweg.watching.planning import Asked, check_budget, instruments_of, targets_of
from thalweg.watching.session import Watch
from thalweg.watching.track import Track


def watch(
    model: nn.Module | Mapping[str, nn.Module],
    optimizer: Any = None,
    *,
    scaler: Any = None,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    budget: float = 0.03,
    memory: int | None = None,
    cadence: str | int = "auto",
    probes: str | Instrument | Iterable[Any] = "cheap",
    held: HeldBatch | None = None,
    controllers: Sequence[Any] = (),
    ranks: str = "zero",
    resume: bool | str | os.PathLike[str] = False,
    enabled: bool = True,
) -> Watch:
    """Watch a training run: live at once, until `Watch.close` or the end of the process.

    Call it after compiling and wrapping the model. It changes nothing in the run, raises nothing into the loop, and
    starts no collective operation in the step.

    Args:
        model: what the loop calls; or a dictionary of several, whose keys come before the names of their signals.
        optimizer: one; a list or dictionary of several for one model; a dictionary with the models' keys. None for
            a loop whose optimizer has no hooks: call `Watch.step` after each update.
        scaler: the GradScaler, to record the loss scale and skipped updates.
        out: the run file, or an existing folder for it. Default: a new file in ``runs/``. Nothing is overwritten.
        name: what to call the run; by default the file's name.
        config: settings to keep with the run.
        tags: words to find it by.
        budget: share of the step's time that watching may take: 3 %, or 60 microseconds where that is more.
        memory: bytes that all copies may take: 64 MB, or 1 % of the parameters' bytes where that is more.
        cadence: "auto": how often each instrument runs follows from its cost; "fixed": never changes; a number:
            all run every so many steps.
        probes: "cheap" (all default instruments), "none" (only what you log), names of instruments, your own
            objects, or a list of these.
        held: a batch that probes may run the model on.
        controllers: none exist in this version.
        ranks: "zero": rank 0 records; what is sharded over ranks is left out, in words. "all": one file a rank,
            joined when read to what is of the whole model; all ranks then measure at the same steps.
        resume: continue the run in ``out`` as a new segment, if it exists; or the path of that run.
        enabled: False (or ``THALWEG=off`` in the environment) makes everything a no-op.

    Returns:
        The live watch; also a context manager.

    Raises:
        UsageError: an argument that can't be used.
        RunFileError: ``out`` exists and ``resume`` is False, or it can't be created.
    """
    check_budget(budget, memory, cadence, ranks)
    if controllers:
        raise UsageError("controllers= must be empty: this version has no controllers yet.")
    targets = targets_of(model, optimizer)
    instruments = [instruments_of(probes) for _ in targets]
    rank, world = rank_and_world()
    off = not enabled or os.environ.get("THALWEG", "").lower() == "off" or (ranks == "zero" and rank != 0)
    if not isinstance(resume, bool):
        out, resume = resume, True
    if resume and out is None:
        raise UsageError("resume=True needs out=, the run to continue; or pass its path as resume=.")
    for target in targets:
        for track in find_targets(target.model) + find_targets(inner_model(target.model)):
            if isinstance(track, Track) and track.owner is not None:
                track.owner.close("watched anew")
    return Watch(
        Asked(
            targets=targets,
            instruments=instruments,
            out=out,
            name=name,
            config=config,
            tags=tags,
            scaler=scaler,
            budget=budget,
            memory=memory,
            cadence=cadence,
            rank=rank if ranks == "all" else 0,
            world=world if ranks == "all" else 1,
            resume=bool(resume),
            held=held,
            on=not off,
        )
    )
