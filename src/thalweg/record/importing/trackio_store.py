"""Trackio's database: one a project, a row a call of ``log`` with its metrics as JSON; each run of it is one."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.databases import Database, has_table, opened
from thalweg.record.importing.tabular import Rows, to_number, to_seconds

CARD = Card(
    name="trackio",
    kind="importer",
    summary="Trackio's SQLite database, one a project, with settings and measurements of the machine.",
    needs="an SQLite database with a table metrics(run_name, timestamp, step, metrics)",
)
_COLUMNS = ("run_name", "timestamp", "step", "metrics")
_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_QUIET = 60.0
_DEPTH = 8  # of nested metrics
_MOST_FILES = 200


def accepts(path: Path) -> float:
    """0.95 for a database with Trackio's table, 0.9 for a folder with one."""
    if path.is_dir():
        return 0.9 if any(has_table(file, "metrics", _COLUMNS) for file in _databases(path)[:8]) else 0.0
    return 0.95 if has_table(path, "metrics", _COLUMNS) else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs of the project, or of all projects of a folder."""
    files = _databases(path) if path.is_dir() else [path]
    files = [file for file in files if file == path or has_table(file, "metrics", _COLUMNS)]
    found = [run for file in files for run in _Project(file, names).runs(path)]
    filled = [run for run in found if any(part.columns for part in run.parts)]
    if not filled:
        parquet = path.is_dir() and any(path.glob("*.parquet"))
        hint = "; its Parquet files are not read: keep the database beside them" if parquet else ""
        raise RunFileError(f"{path}: no run of Trackio with a metric in it{hint}")
    called = [run.name for run in filled]
    for run in filled:
        if called.count(run.name) > 1:
            run.name = f"{run.tags[0]}/{run.name}" if len(files) > 1 else f"{run.name} ({run.tags[1][:8]})"
        run.tags = run.tags[:1]
    yield from filled


def _databases(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.db") if file.is_file())[:_MOST_FILES]


class _Project:
    """One database."""

    def __init__(self, file: Path, names: NameMap) -> None:
        self._file = file
        self._names = NameMap({"step": "_step", "time": "_timestamp", **names.wanted}, names.pattern)
        self._rows: dict[str, Rows] = {}
        self._called: dict[str, str] = {}
        self._warnings: dict[str, list[str]] = {}
        self._unread: dict[str, int] = {}
        self._spans: dict[str, tuple[float, float]] = {}
        self._system: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        with opened(file, ["metrics"]) as database:
            if missing := set(_COLUMNS) - set(database.tables["metrics"]):
                raise RunFileError(f"{file}: its table metrics has no column {min(missing)!r}")
            self._read_metrics(database)
            self._read_system(database)
            self._read_configs(database)
            self._damage = database.warnings

    def runs(self, path: Path) -> Iterator[Imported]:
        """The runs; their first tag is the project, the second the run's id."""
        fresh = time.time() - max(
            _changed(self._file), _changed(self._file.with_name(self._file.name + "-wal"))
        )
        for run_id, rows in self._rows.items():
            part = rows.part()
            part.started, part.ended = self._spans.get(run_id, (0.0, 0.0))
            part.columns += self._machine(run_id, part)
            warnings = self._warnings[run_id]
            warnings += self._damage
            if count := self._unread.get(run_id):
                warnings.append(f"{count:,} rows hold no JSON that can be read: left out")
            yield Imported(
                path=path,
                name=self._called[run_id],
                format=CARD.name,
                parts=[part],
                config=self._configs.get(run_id, {}),
                tags=[self._file.stem, run_id],
                notes=list(rows.notes),
                warnings=warnings,
                live=fresh < _QUIET,
            )

    def _read_metrics(self, database: Database) -> None:
        fields = ["run_id", "run_name", "timestamp", "step", "metrics"]
        for run_id, name, moment, step, metrics in database.rows("metrics", fields):
            key = self._key(run_id, name)
            if key not in self._rows:
                self._called[key] = str(name or key)
                self._warnings[key] = []
                self._rows[key] = Rows(self._names, self._warnings[key], timed_by="_timestamp")
            values = _mapping(metrics)
            if values is None:
                self._unread[key] = self._unread.get(key, 0) + 1
                continue
            row: dict[str, object] = dict(_flat(values))
            at = _moment(moment)
            if at is not None:
                first, last = self._spans.get(key, (at, at))
                self._spans[key] = (min(first, at), max(last, at))
                row["_timestamp"] = at
            row["_step"] = step if isinstance(step, int | float) else None
            self._rows[key].add(row)

    def _read_system(self, database: Database) -> None:
        fields = ["run_id", "run_name", "timestamp", "metrics"]
        for run_id, name, moment, metrics in database.rows("system_metrics", fields):
            at, values = _moment(moment), _mapping(metrics)
            if at is None or values is None:
                continue
            mine = self._system.setdefault(self._key(run_id, name), {})
            for quantity, value in _flat(values):
                if isinstance(value, float):
                    times, numbers = mine.setdefault(f"system/{quantity}", ([], []))
                    times.append(at)
                    numbers.append(value)

    def _read_configs(self, database: Database) -> None:
        for run_id, name, config in database.rows("configs", ["run_id", "run_name", "config"]):
            settings = _mapping(config) or {}
            kept = {key: value for key, value in settings.items() if not key.startswith("_")}
            self._configs[self._key(run_id, name)] = kept

    def _machine(self, run_id: str, part: Part) -> list[Column]:
        """Measurements of the machine, on a clock of their own: seconds since the run began."""
        measured = self._system.get(run_id, {})
        began = part.started or min((times[0] for times, _ in measured.values()), default=0.0)
        return [
            Column(
                name=name,
                steps=np.clip(np.array(times) - began, 0, 1e12).astype(np.int64),
                values=np.array(values),
                times=np.array(times),
                clock="seconds",
            )
            for name, (times, values) in measured.items()
        ]

    def _key(self, run_id: Any, name: Any) -> str:
        """Runs are told apart by their id; older databases have names only."""
        return str(run_id if run_id is not None else name)


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _mapping(value: Any) -> dict[str, Any] | None:
    """A JSON object, from text or bytes."""
    if not isinstance(value, str | bytes):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _flat(values: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Names and numbers; nested names joined by slashes; texts, tables and media are left out."""
    if "_type" in values or depth > _DEPTH:
        return
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/", depth + 1)
        elif isinstance(value, str):
            if value in _NAMES:
                yield prefix + name, _NAMES[value]
        elif isinstance(value, int | float):
            number = to_number(value)
            if number is not None:
                yield prefix + name, number


def _moment(value: Any) -> float | None:
    """An ISO time, or Unix seconds."""
    moment = to_seconds(value) if isinstance(value, str) else to_number(value)
    return moment if moment is not None and math.isfinite(moment) else None
