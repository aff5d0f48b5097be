"""Many runs at once: a one-row summary of each, read without touching its values."""

import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

from thalweg.core.errors import MissingExtra, RunFileError
from thalweg.record.codecs import DecodeError
from thalweg.record.frames import (
    BLOCK,
    END,
    FORMAT,
    HEADER_SIZE,
    MAGIC,
    START,
    SUMMARY,
    Scan,
    format_of,
    last_of,
    scan,
)
from thalweg.record.jsontext import loads
from thalweg.record.liveness import is_alive
from thalweg.record.logreader import LogSource
from thalweg.record.migrations import SCHEMA, refuse_newer, upgrade_record, upgrade_row
from thalweg.record.naming import SUFFIX
from thalweg.record.opening import open_run, read_head
from thalweg.record.overview import Overview
from thalweg.record.payloads import get_block_head, get_mapping
from thalweg.record.run import Run
from thalweg.record.sqlitefile import OVERVIEW_KEY, SQLITE_MAGIC, damage, open_database
from thalweg.record.writing import SUMMARY_BYTES

_WANTED = ("run_id", "name", "tags", "config", "summary", OVERVIEW_KEY)
_REACH = SUMMARY_BYTES + (1 << 26)


@dataclass
class RunSummary:
    """What a listing shows of a run.

    Attributes:
        path: its first file.
        id: the run's id.
        name: what its author called it.
        started: Unix seconds.
        ended: Unix seconds; None while it is being written; of a killed run its last sign of life.
        reason: "closed", "exit", "killed", the name of an exception; "" while it is written.
        live: whether a process is writing it.
        steps: the highest step of the clock "updates" (of any, where there is no such).
        last_loss: the last train loss; NaN where there is none.
        signals: how many signals it has.
        points: numbers recorded.
        bytes: size of its files.
        tags: words to find it by.
        summary: what its author noted as the result.
        config: its settings.
    """

    path: Path
    id: str
    name: str
    started: float
    ended: float | None
    reason: str
    live: bool
    steps: int
    last_loss: float
    signals: int
    points: int
    bytes: int
    tags: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


class Runs:
    """A list of run summaries.

    Attributes:
        warnings: the files that were left out, and why.
    """

    def __init__(self, summaries: list[RunSummary], warnings: list[str] | None = None) -> None:
        self._rows = summaries
        self.warnings = list(warnings or [])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[RunSummary]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> RunSummary: ...

    @overload
    def __getitem__(self, index: slice) -> "Runs": ...

    def __getitem__(self, index: int | slice) -> "RunSummary | Runs":
        return Runs(self._rows[index], self.warnings) if isinstance(index, slice) else self._rows[index]

    def where(self, condition: Callable[[RunSummary], bool] | None = None, **conditions: Any) -> "Runs":
        """The runs that meet all conditions.

        Args:
            condition: a function of a summary.
            **conditions: attribute of the summary, or key of its config, -> the value it must have, a pattern
                ("cnn-*") for text, a tag it must carry for ``tags``, or a function of the value.

        >>> runs = Runs([])
        >>> len(runs.where(lambda run: run.last_loss < 2, name="cnn-*", lr=0.1, steps=lambda n: n > 1000))
        0
        """
        kept = [
            row
            for row in self._rows
            if (condition is None or condition(row)) and all(_meets(row, k, v) for k, v in conditions.items())
        ]
        return Runs(kept, self.warnings)

    def frame(self) -> Any:
        """A pandas data frame with a row for each run.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("a data frame needs pandas: pip install 'thalweg[frames]'") from error
        return pd.DataFrame([asdict(row) for row in self._rows])

    def load(self, index: int) -> Run:
        """Open one of the runs."""
        return open_run(self._rows[index].path)

    def __repr__(self) -> str:
        return f"<Runs: {len(self)}>"


def open_runs(folder: str | os.PathLike[str], *, recursive: bool = True) -> Runs:
    """The runs in a folder, oldest first; files that are no runs are left out and named in `Runs.warnings`.

    Args:
        folder: where to look; a single run file is a list of one.
        recursive: also in the folders below it.

    Raises:
        RunFileError: there is no such folder.
    """
    root = Path(folder).absolute()
    if root.is_file():
        files = [root]
    elif root.is_dir():
        files = sorted(_files(root, recursive))
    else:
        raise RunFileError(f"{root}: there is no such folder")
    runs: dict[tuple[Path, str], list[tuple[int, int, RunSummary]]] = {}
    warnings = []
    for path in files:
        try:
            segment, rank, row = peek(path)
        except (RunFileError, OSError) as error:
            warnings.append(str(error))
            continue
        runs.setdefault((path.parent, row.id or str(path)), []).append((segment, rank, row))
    rows = [_merged(parts) for parts in runs.values()]
    return Runs(sorted(rows, key=lambda row: (row.started, str(row.path))), warnings)


def peek(path: Path) -> tuple[int, int, RunSummary]:
    """The last segment, lowest rank and summary of one run file, from its head and its last summary."""
    head = read_head(path, len(SQLITE_MAGIC))
    if head.startswith(SQLITE_MAGIC):
        return _peek_closed(path)
    if head.startswith(MAGIC):
        return _peek_log(path)
    raise RunFileError(f"{path} is no run file")


def _peek_closed(path: Path) -> tuple[int, int, RunSummary]:
    with closing(open_database(path)) as db:
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            refuse_newer(path, version, SCHEMA)
            marks = ",".join("?" * len(_WANTED))
            rows = db.execute(f"SELECT key, json FROM meta WHERE key IN ({marks})", _WANTED).fetchall()
            cursor = db.execute("SELECT * FROM segments ORDER BY id LIMIT 100000")
            names = [column[0] for column in cursor.description]
            parts = [upgrade_row("segments", dict(zip(names, row, strict=True)), version) for row in cursor]
        except damage() as error:
            raise RunFileError(f"{path} is damaged ({error})") from error
    meta = {}
    for key, text in rows:
        try:
            meta[key] = loads(text)
        except (ValueError, TypeError):
            meta[key] = None
    last = max(parts, key=lambda part: _whole(part.get("id")) % (1 << 20), default={})
    started = [p["started"] for p in parts if isinstance(p.get("started"), int | float)]
    view = Overview.from_dict(meta[OVERVIEW_KEY] if isinstance(meta.get(OVERVIEW_KEY), dict) else {})
    ended = last.get("ended")
    row = _row(path, str(meta.get("run_id") or ""), meta, view, float(min(started, default=0.0)))
    row.ended = float(ended) if isinstance(ended, int | float) else None
    row.reason = str(last.get("reason") or "killed")
    return _whole(last.get("id")) % (1 << 20), 0, row


def _peek_log(path: Path) -> tuple[int, int, RunSummary]:
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size

        def read_at(at: int, count: int) -> bytes:
            return os.pread(fd, count, at)

        version = format_of(read_at(0, HEADER_SIZE))
        refuse_newer(path, version or 0, FORMAT)
        start = next(scan(lambda at, n: read_at(at, min(n, 1 << 16)), min(size, 1 << 16), Scan()), None)
        end = last_of(read_at, size, bytes([END, SUMMARY]), _REACH)
        if start is None or start.kind != START or end is None:
            return _peek_whole(path)
        first = upgrade_record("start", get_mapping(start.payload), version or 0)
        record = upgrade_record("end", get_mapping(end.payload), version or 0)
        live = end.kind != END and is_alive(first, fd)
        view = Overview.from_dict(record)
        if end.kind != END:
            _count_tail(read_at, size, end.end, view)
        meta = {**_mapping(first.get("meta")), "summary": record.get("summary")}
        row = _row(path, str(first.get("run_id", "")), meta, view, _real(first.get("started")))
        row.live = live
        row.ended = None if live else _real(record.get("ended")) or os.fstat(fd).st_mtime
        row.reason = "" if live else str(record.get("reason", "killed"))
        return _whole(first.get("segment")), _whole(first.get("rank")), row
    except DecodeError as error:
        raise RunFileError(f"{path} is damaged ({error})") from error
    finally:
        os.close(fd)


def _count_tail(read_at: Callable[[int, int], bytes], size: int, at: int, view: Overview) -> None:
    """Count the blocks behind the last summary of a log that has no end."""
    for frame in scan(read_at, size, Scan(position=at)):
        if frame.kind == BLOCK:
            head, steps = get_block_head(frame.payload)
            view.points += (len(frame.payload) - head.values_at) // 4
            if len(steps) and set(view.steps) <= {"updates"}:
                view.steps["updates"] = max(int(steps.max()), view.steps.get("updates", 0))


def _peek_whole(path: Path) -> tuple[int, int, RunSummary]:
    """A log without any summary yet: short, so it is read."""
    with closing(LogSource(path)) as source:
        part = source.segments()[0]
        row = _row(path, source.run_id, source.meta, source.overview(), part.started)
        row.live, row.ended, row.reason = part.live, part.ended, part.reason
        return part.id, part.rank, row


def _row(path: Path, run_id: str, meta: Mapping[str, Any], view: Overview, started: float) -> RunSummary:
    tags = meta.get("tags")
    return RunSummary(
        path=path,
        id=run_id,
        name=str(meta.get("name") or path.stem),
        started=started,
        ended=None,
        reason="",
        live=False,
        steps=view.main_step,
        last_loss=view.last_loss,
        signals=view.signals,
        points=view.points,
        bytes=path.stat().st_size,
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else [],
        summary=_mapping(meta.get("summary")),
        config=_mapping(meta.get("config")),
    )


def _merged(parts: list[tuple[int, int, RunSummary]]) -> RunSummary:
    """Files of one run as one row: the last segment tells how it ended and how far it came."""
    parts.sort(key=lambda part: (part[0], -part[1]))
    row, first = parts[-1][2], parts[0][2]
    if len(parts) == 1:
        return row
    rows = [part[2] for part in parts]
    row.path = min((r.path for r in rows), key=lambda path: (len(path.name), path.name))
    row.started = min(r.started for r in rows)
    row.live = any(r.live for r in rows)
    row.points, row.bytes = sum(r.points for r in rows), sum(r.bytes for r in rows)
    row.signals = max(r.signals for r in rows)
    row.tags, row.config = row.tags or first.tags, row.config or first.config
    row.summary = row.summary or first.summary
    return row


def _files(root: Path, recursive: bool) -> Iterator[Path]:
    for entry in os.scandir(root):
        if entry.name.startswith("."):
            continue
        if entry.name.endswith(SUFFIX) and entry.is_file():
            yield Path(entry.path)
        elif recursive and entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), recursive)


def _meets(row: RunSummary, key: str, wanted: Any) -> bool:
    value = getattr(row, key) if hasattr(row, key) else row.config.get(key)
    if callable(wanted):
        try:
            return bool(wanted(value))
        except TypeError:
            return False
    if key == "tags" and isinstance(wanted, str):
        return wanted in row.tags
    if isinstance(wanted, str):
        return fnmatch.fnmatchcase(str(value), wanted)
    return bool(value == wanted)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _real(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
