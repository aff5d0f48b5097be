"""An imported log as a run file: its signals, segments and facts written once, in the closed form."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import Ints
from thalweg.record.naming import SUFFIX
from thalweg.record.overview import Overview, loss_name
from thalweg.record.run import Run, Series
from thalweg.record.sources import Segment
from thalweg.record.sqlitefile import OVERVIEW_KEY, SqliteWriter, segment_key

_CHUNK_ROWS = 1 << 17
_Layout = tuple[str, bytes, bytes]


def keep(run: Run, out: Path) -> Path:
    """Write an imported run as a run file.

    Roles, clocks, units, windows, estimators, wall times and all segments are kept; what the importer warned of is in
    ``meta["imported"]["warnings"]``.

    Args:
        run: what `import_runs` gave.
        out: the file to write; ".tw" is added where it is missing.

    Returns:
        The path of the file.

    Raises:
        RunFileError: the file is there (a run is never overwritten), or it can't be written.
    """
    out = out.absolute()
    out = out if out.suffix == SUFFIX else out.with_name(out.name + SUFFIX)
    if out.exists():
        raise RunFileError(f"{out} exists, and a run is never overwritten: choose another name")
    private = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writer = SqliteWriter(private, 0)
    except Exception as error:
        raise RunFileError(f"{out.parent} can't be written to ({error})") from error
    try:
        _write(writer, run)
        writer.finish()
        private.replace(out)
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError) or type(error).__module__ == "sqlite3":
            raise RunFileError(f"{out} could not be written ({error})") from error
        raise
    return out


def _write(writer: SqliteWriter, run: Run) -> None:
    imported = run.meta.get("imported")
    origin: dict[str, Any] = imported if isinstance(imported, dict) else {}
    for key, value in {**run.meta, "imported": {**origin, "warnings": run.warnings}}.items():
        writer.meta(key, value)
    for spec in run.signals:
        writer.signal(spec)
    view = Overview(signals=len(run.signals))
    bases: dict[str, int] = {}
    for part in run.segments:
        writer.segment(replace(part, ended=part.ended or time.time(), reason=part.reason or "imported"))
        for rows in _layouts(run, part):
            _write_rows(writer, part, rows, bases, view)
    loss = run.get(loss_name({spec.name: spec for spec in run.signals}) or "")
    view.last_loss = float(loss.last) if loss is not None and len(loss) else view.last_loss
    writer.meta(OVERVIEW_KEY, view.to_dict())


def _layouts(run: Run, part: Segment) -> Iterator[list[Series]]:
    """The signals of a segment, those with the same steps and times together."""
    together: dict[_Layout, list[Series]] = {}
    for spec in run.signals:
        series = run.get(spec.name, segment=part.id)
        if series is not None and len(series):
            key = (spec.clock, series.steps.tobytes(), series.times.tobytes())
            together.setdefault(key, []).append(series)
    yield from together.values()


def _write_rows(
    writer: SqliteWriter, part: Segment, several: list[Series], bases: dict[str, int], view: Overview
) -> None:
    """Signals with the same rows: steps and times once, then the values of each."""
    first, clock = several[0], several[0].spec.clock
    number = bases.get(clock, 0)
    bases[clock] = number + 1
    base, key = writer.times(clock, number), segment_key(part)
    times: Ints = np.round(first.times * 1e6).astype(np.int64)
    for sequence, start in enumerate(range(0, len(first), _CHUNK_ROWS)):
        rows = slice(start, start + _CHUNK_ROWS)
        writer.time_chunk(base, key, sequence, first.steps[rows], times[rows])
        for series in several:
            writer.chunk(
                writer.signal(series.spec), base, key, sequence, series.steps[rows], series.values[rows]
            )
    view.points += len(first) * len(several)
    view.steps[clock] = max(view.steps.get(clock, 0), int(first.steps[-1]))
    view.last_time = max(view.last_time, float(times.max()) / 1e6)
