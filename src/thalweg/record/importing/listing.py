"""The runs of another tool's log, a summary of each: what `open_runs` is for run files."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from thalweg.record.importing.choosing import import_runs
from thalweg.record.importing.signature import signature_of
from thalweg.record.naming import SELECTOR
from thalweg.record.overview import loss_name
from thalweg.record.run import Run
from thalweg.record.runs import Runs, RunSummary


def list_log(path: str | os.PathLike[str], *, map: Mapping[str, str] | None = None) -> Runs:
    """The runs of a log, in its order; each one's path is what opens it.

    Args:
        path: a file or folder of another tool.
        map: what names in it mean, as in `import_runs`.

    Raises:
        RunFileError: no importer takes it, or it can't be read.
    """
    runs = import_runs(path, map=map)
    log = Path(os.fspath(path).partition(SELECTOR)[0]) if len(runs) > 1 else Path(path)
    warnings = [f"{run.name}: {text}" for run in runs for text in run.warnings]
    size = signature_of(runs[0].path)[1]
    return Runs([_summary(run, log, len(runs), size // len(runs)) for run in runs], warnings)


def _summary(run: Run, log: Path, several: int, size: int) -> RunSummary:
    loss = loss_name({spec.name: spec for spec in run.signals})
    values = run[loss].values if loss is not None else np.empty(0)
    clock = "updates" if "updates" in run.clocks else run.clocks[0]
    every = [run[spec.name] for spec in run.signals]
    part = run.segments[-1]
    return RunSummary(
        path=log.with_name(f"{log.name}{SELECTOR}{run.name}") if several > 1 else log,
        id=run.id,
        name=run.name,
        started=run.started,
        ended=part.ended,
        reason=part.reason,
        live=run.live,
        steps=max((int(s.steps[-1]) for s in every if s.spec.clock == clock and len(s)), default=0),
        last_loss=float(values[-1]) if len(values) else float("nan"),
        signals=len(run.signals),
        points=sum(map(len, every)),
        bytes=size,
        tags=run.tags,
        summary=run.summary,
        config=run.config,
    )
