"""From logs to the closed form: `compact` merges the files of a run into one SQLite file."""

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import Ints, get_varint, put_varint, rows_that_fit, size_of
from thalweg.record.logreader import LogSource
from thalweg.record.naming import FileName, join_name, split_name
from thalweg.record.opening import merged_meta, merged_overview, open_sources, parts_of
from thalweg.record.signals import SignalSpec
from thalweg.record.sources import Segment, Source
from thalweg.record.sqlitefile import OVERVIEW_KEY, TIME_ROLE, SqliteWriter, segment_key
from thalweg.record.sqlitereader import SqliteSource

CHUNK_ROWS = 1 << 17
BUFFER_BYTES = 1 << 24
_STALE_SECONDS = 3600.0


def compact(path: str | Path) -> Path:
    """Merge everything of a run (segments, ranks, logs that a kill left behind) into one closed file.

    The file takes the name of the run's first segment by an atomic rename, then the others are removed. All segments
    stay readable. Safe to repeat, and to be killed at any moment: readers take what is there.

    Args:
        path: any file of the run.

    Returns:
        The path of the closed file.

    Raises:
        RunFileError: the run is still being written, or a file can't be read or written.
    """
    sources = open_sources(Path(path).absolute())
    try:
        busy = next((part for source in sources for part in source.segments() if part.live), None)
        if busy is not None:
            raise RunFileError(f"{busy.path} is still being written: close the run first")
        first = sources[0].path
        if len(sources) == 1 and isinstance(sources[0], SqliteSource):
            return first
        target = _target([source.path for source in sources])
        taken = {(part.id, part.rank, part.started) for _, part in parts_of(sources)}
        _replace(sources, target, None)
        for source in sources:
            parts = {(part.id, part.rank, part.started) for part in source.segments()}
            if source.path != target and parts <= taken:
                source.path.unlink(missing_ok=True)
        return target
    finally:
        for source in sources:
            source.close()


def compact_log(path: Path, *, deadline: float | None = None) -> None:
    """Turn one finished log into the closed form under the same name.

    Args:
        path: the log.
        deadline: on `time.monotonic`'s clock; when it passes, everything stays as it was.

    Raises:
        RunFileError: it can't be read or written, or not in time.
    """
    source = LogSource(path)
    try:
        _replace([source], path, deadline)
    finally:
        source.close()


def _target(paths: list[Path]) -> Path:
    """The name of the first segment, unless another run has it; a file that is alone keeps its own."""
    plain = join_name(paths[0].parent, FileName(split_name(paths[0]).base, 0, 0))
    free = plain in paths or not plain.exists()
    return plain if len(paths) > 1 and free else paths[0]


def _replace(sources: list[Source], target: Path, deadline: float | None) -> None:
    hurt = next((s.path for s in sources if isinstance(s, LogSource) and s.gave_up), None)
    if hurt is not None:
        raise RunFileError(f"{hurt} is too damaged to be read to its end; it stays as it is")
    _remove_stale(target)
    private = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    expected = sum(source.path.stat().st_size for source in sources)
    try:
        writer = SqliteWriter(private, expected)
    except Exception as error:
        raise RunFileError(f"{target.parent} can't be written to ({error})") from error
    try:
        _Merge(writer, deadline).run(sources)
        writer.finish()
        private.replace(target)
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError) or type(error).__module__ == "sqlite3":
            raise RunFileError(f"{target} could not be compacted ({error})") from error
        raise


def _remove_stale(target: Path) -> None:
    """What a compaction that was killed an hour ago or earlier left behind."""
    for old in target.parent.glob(".*.tmp"):
        with suppress(OSError):
            mine = old.name.startswith(f".{target.name}.")
            if mine and time.time() - old.stat().st_mtime > _STALE_SECONDS:
                old.unlink()


class _Merge:
    """One pass over the files of a run."""

    def __init__(self, writer: SqliteWriter, deadline: float | None) -> None:
        self._writer = writer
        self._deadline = deadline
        self._bases: dict[tuple[int, str], int] = {}

    def run(self, sources: list[Source]) -> None:
        out = self._writer
        for key, value in merged_meta(sources).items():
            out.meta(key, value)
        out.meta(OVERVIEW_KEY, merged_overview(sources).to_dict())
        for source, part in parts_of(sources):
            out.segment(part)
            if isinstance(source, LogSource):
                self._log(source, part)
            elif isinstance(source, SqliteSource):
                self._copy(source, part)
            for event in source.events(part):
                out.event(segment_key(part), event)

    def _log(self, source: LogSource, part: Segment) -> None:
        specs = source.specs()
        for spec in specs.values():
            self._writer.signal(spec)
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, layouts in source.places().items():
            if layouts:
                groups.setdefault((layouts, specs[name].dtype, specs[name].shape), []).append(name)
        for (layouts, _, _), names in groups.items():
            self._group(source, part, layouts, [specs[name] for name in names])

    def _group(
        self, source: LogSource, part: Segment, layouts: tuple[int, ...], specs: list[SignalSpec]
    ) -> None:
        """Signals with the same rows: their steps and times once, then the chunks of each."""
        key = segment_key(part)
        numbers = [self._writer.signal(spec) for spec in specs]
        base = self._base(key, specs[0].clock)
        blocks = source.stream(layouts, [spec.name for spec in specs])
        most = _chunk_rows(specs)
        for seq, (steps, times, values) in enumerate(_rechunked(blocks, most)):
            self._check_time()
            self._writer.time_chunk(base, key, seq, steps, times)
            for number, column in zip(numbers, values, strict=True):
                self._writer.chunk(number, base, key, seq, steps, column)

    def _base(self, part: int, clock: str) -> int:
        """A wall-time signal for one more set of rows of a part."""
        number = self._bases.get((part, clock), 0)
        self._bases[part, clock] = number + 1
        return self._writer.times(clock, number)

    def _copy(self, source: SqliteSource, part: Segment) -> None:
        """Chunks of a closed file as they are; only the ids of signals change."""
        key = segment_key(part)
        ids = {number: self._writer.signal(spec) for number, spec in source.all_specs().items()}
        for number, spec in source.all_specs().items():
            if spec.version == 0 and spec.role == TIME_ROLE:
                ids[number] = self._base(key, spec.clock)
        for signal, seq, first, last, n, codec, steps, values in source.chunks(part):
            self._check_time()
            base, at = get_varint(steps, 0)
            if signal in ids and (base == 0 or base in ids):
                coded = put_varint(ids[base] if base else 0) + steps[at:]
                self._writer.raw_chunk((ids[signal], key, seq, first, last, n, codec), coded, values)

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise RunFileError("it would take too long; `thalweg compact` does it later")


def _chunk_rows(specs: list[SignalSpec]) -> int:
    items, size = size_of(specs[0].shape), np.dtype(specs[0].dtype).itemsize
    buffered = max(1, BUFFER_BYTES // (len(specs) * items * size))
    return min(CHUNK_ROWS, buffered, rows_that_fit(items, size))


def _rechunked(
    blocks: Iterator[tuple[Ints, Ints, NDArray[Any]]], most: int
) -> Iterator[tuple[Ints, Ints, NDArray[Any]]]:
    """Blocks of any size as blocks of at most `most` rows, each in the order of its steps."""
    kept: list[tuple[Ints, Ints, NDArray[Any]]] = []
    rows = 0
    for steps, times, values in blocks:
        at = 0
        while at < len(steps):
            part = slice(at, at + most - rows)
            kept.append((steps[part], times[part], values[:, part]))
            rows += len(kept[-1][0])
            at = part.stop
            if rows >= most:
                yield _joined(kept)
                kept, rows = [], 0
    if kept:
        yield _joined(kept)


def _joined(kept: list[tuple[Ints, Ints, NDArray[Any]]]) -> tuple[Ints, Ints, NDArray[Any]]:
    steps = np.concatenate([k[0] for k in kept])
    times = np.concatenate([k[1] for k in kept])
    values = np.concatenate([k[2] for k in kept], axis=1)
    if len(steps) > 1 and bool((steps[1:] < steps[:-1]).any()):
        order = np.argsort(steps, kind="stable")
        return steps[order], times[order], values[:, order]
    return steps, times, values
