"""MLflow's stores: the folder ``mlruns`` (a file a metric) and the database ``mlflow.db``; each run of them is one.

A metric is a line ``milliseconds value step`` of the file ``metrics/NAME``, or a row of the table ``metrics``. A run
that was resumed writes into the same files: what was logged later comes later in time, which is taken as the order of
the log.
"""

import math
import os
import re
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing import progress
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.databases import has_table, opened
from thalweg.record.importing.tabular import to_number

CARD = Card(
    name="mlflow",
    kind="importer",
    summary="MLflow: the folder mlruns or the database mlflow.db, with parameters and tags.",
    needs="metrics/NAME files beside a meta.yaml, or an SQLite database with the tables runs and metrics",
)
_DEPTH = 4
_SMALL = 1 << 16  # bytes of a parameter, a tag or a meta.yaml that are read
_LONGEST = 1 << 10  # characters of a metric's line
_INFINITE = 1.797e308  # what the database holds in an infinity's place
_QUIET = 60.0
_DATABASE = "mlflow.db"


def accepts(path: Path) -> float:
    """0.95 for a database with MLflow's tables; 0.9 for a folder with runs or with an mlflow.db, 0.5 deep below."""
    if path.is_dir():
        if _is_run(path) or has_table(path / _DATABASE, "metrics", ["run_uuid", "key", "value"]):
            return 0.9
        first = next(_run_folders(path), None)
        if first is None:
            return 0.0
        return 0.9 if len(first.relative_to(path).parts) < 3 or (path / "mlruns").is_dir() else 0.5
    return 0.95 if has_table(path, "metrics", ["run_uuid", "key", "value"]) else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs that have metrics, in the order of their starts."""
    runs: list[_Run] = []
    if path.is_dir():
        runs += [_read_folder(folder) for folder in _run_folders(path)]
        if (path / _DATABASE).is_file():
            runs += _read_database(path / _DATABASE)
    else:
        runs += _read_database(path)
    filled = [run for run in runs if run.metrics and not run.deleted]
    if not filled:
        said = "; ".join([warning for run in runs for warning in run.warnings][:4])
        raise RunFileError(
            f"{path}: {len(runs)} runs of MLflow, none with a metric{': ' + said if said else ''}"
        )
    filled.sort(key=lambda run: (run.started, run.run_id))
    called = [run.name or run.run_id for run in filled]
    for run, name in zip(filled, called, strict=True):
        unique = name if called.count(name) == 1 else f"{name} ({run.run_id[:8]})"
        yield run.imported(path, unique)


@dataclass
class _Metric:
    """Values of one name, as they were logged: times in milliseconds."""

    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    times: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, step: Any, value: Any, moment: Any) -> bool:
        """Take a value; False if it is none."""
        number = to_number(value)
        if number is None or not isinstance(step, int) or not isinstance(moment, int):
            return False
        if abs(step) >= 1 << 62 or abs(moment) >= 1 << 62:
            return False
        self.steps.append(step)
        self.values.append(number)
        self.times.append(moment)
        return True

    def column(self, name: str) -> Column:
        """As a column; measurements of the machine count samples rather than steps."""
        times = np.array(self.times, np.int64)
        own = name.startswith("system/")
        return Column(
            name=name,
            steps=np.array(self.steps, np.int64),
            values=np.array(self.values, np.float64),
            times=times / 1e3,
            order=None if own else times,
            clock="samples" if own else "updates",
        )


@dataclass
class _Run:
    """One run of a store."""

    run_id: str
    name: str = ""
    started: float = 0.0
    ended: float = 0.0
    deleted: bool = False
    running: bool = False
    changed: float = 0.0
    metrics: dict[str, _Metric] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    unread: int = 0

    def imported(self, path: Path, name: str) -> Imported:
        """As what an importer gives."""
        if self.unread:
            self.warnings.append(
                f"{self.unread:,} values of metrics can't be read, or are just being written: left out"
            )
        columns = [metric.column(key) for key, metric in self.metrics.items()]
        config = {key: _typed(value) for key, value in self.params.items()}
        environment = {key: self.tags[key] for key in ("mlflow.source.git.commit",) if key in self.tags}
        return Imported(
            path=path,
            name=name,
            format=CARD.name,
            parts=[Part(columns=columns, started=self.started, ended=self.ended)],
            config=config,
            environment=environment,
            tags=[f"{key}={value}" for key, value in self.tags.items() if not key.startswith("mlflow.")],
            warnings=self.warnings,
            live=self.running and time.time() - self.changed < _QUIET,
        )


def _typed(value: Any) -> Any:
    """A parameter, which MLflow keeps as text, as a number where it is one."""
    text = str(value)
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


# The folder.


def _is_run(folder: Path) -> bool:
    return (folder / "meta.yaml").is_file() and (folder / "metrics").is_dir()


def _run_folders(path: Path) -> Iterator[Path]:
    """Folders of runs; links to folders are not followed."""
    for place, below, names in os.walk(path):
        folder = Path(place)
        if "meta.yaml" in names and "metrics" in below:
            below[:] = []
            yield folder
        elif len(folder.relative_to(path).parts) >= _DEPTH:
            below[:] = []
        else:
            below[:] = sorted(name for name in below if name != "artifacts")


def _read_folder(folder: Path) -> _Run:
    lines = re.findall(r"^(\w+): (.*)$", _small(folder / "meta.yaml"), re.MULTILINE)
    meta: dict[str, str] = dict(lines)
    run_id = meta.get("run_id") or meta.get("run_uuid") or folder.name
    run = _Run(run_id=run_id.strip("'\""))
    run.tags = {name: _small(file) for name, file in _named(folder / "tags")}
    run.params = {name: _small(file) for name, file in _named(folder / "params")}
    run.name = meta.get("run_name", "").strip("'\"") or run.tags.get("mlflow.runName", "")
    run.started, run.ended = _seconds(meta.get("start_time")), _seconds(meta.get("end_time"))
    run.deleted = meta.get("lifecycle_stage") == "deleted"
    run.running = not run.ended
    files = list(_named(folder / "metrics"))
    for done, (name, file) in enumerate(files):
        progress.say(done, len(files))
        _read_metric(run, name, file)
    return run


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder, under their paths in it: a metric ``val/acc`` is a file in a folder."""
    for place, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            file = Path(place) / name
            yield str(file.relative_to(folder).as_posix()), file


def _read_metric(run: _Run, name: str, file: Path) -> None:
    metric = _Metric()
    try:
        if not file.is_file():
            return
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in iter(lambda: lines.readline(_LONGEST), ""):
                parts = line.split()
                whole = len(parts) in (2, 3) and line.endswith("\n") and metric.add(*_line(parts))
                run.unread += bool(parts) and not whole
        run.changed = max(run.changed, file.stat().st_mtime)
    except OSError as error:
        run.warnings.append(f"{name} can't be read ({error.strerror}): left out")
    if metric.values:
        run.metrics[name] = metric


def _line(parts: list[str]) -> tuple[int | None, str, int | None]:
    step = parts[2] if len(parts) == 3 else "0"
    return _integer(step), parts[1], _integer(parts[0])


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else None


def _small(file: Path) -> str:
    try:
        if not file.is_file():
            return ""
        with file.open(encoding="utf-8", errors="replace") as opened_file:
            return opened_file.read(_SMALL).strip()
    except OSError:
        return ""


def _seconds(moment: Any) -> float:
    """Milliseconds as Unix seconds; 0 where there are none."""
    number = to_number(str(moment)) if moment is not None else None
    return number / 1e3 if number is not None and math.isfinite(number) and abs(number) < 1e15 else 0.0


# The database.


def _read_database(path: Path) -> list[_Run]:
    runs: dict[str, _Run] = {}
    with opened(path, ["runs", "metrics"]) as database:
        columns = ["run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage"]
        for run_id, name, status, started, ended, stage in database.rows("runs", columns):
            runs[str(run_id)] = _Run(
                run_id=str(run_id),
                name=str(name or ""),
                started=_seconds(started),
                ended=_seconds(ended),
                deleted=stage == "deleted",
                running=status == "RUNNING",
                changed=path.stat().st_mtime,
            )
        for key, value, run_id in database.rows("params", ["key", "value", "run_uuid"]):
            if str(run_id) in runs:
                runs[str(run_id)].params[str(key)] = value
        for key, value, run_id in database.rows("tags", ["key", "value", "run_uuid"]):
            if str(run_id) in runs:
                runs[str(run_id)].tags[str(key)] = str(value)
        fields = ["run_uuid", "key", "value", "timestamp", "step", "is_nan"]
        for run_id, key, value, moment, step, is_nan in database.rows("metrics", fields):
            run = runs.setdefault(str(run_id), _Run(run_id=str(run_id)))
            metric = run.metrics.setdefault(str(key), _Metric())
            run.unread += not metric.add(step or 0, _stored(value, is_nan), moment)
        damage = database.warnings
    for run in runs.values():
        run.metrics = {key: metric for key, metric in run.metrics.items() if metric.values}
        run.name = run.name or run.tags.get("mlflow.runName", "")
        run.warnings += damage
    return list(runs.values())


def _stored(value: Any, is_nan: Any) -> Any:
    """A value as it was logged: the database has 0 for NaN and the largest number for infinity."""
    if is_nan:
        return math.nan
    if isinstance(value, float) and abs(value) >= _INFINITE:
        return math.copysign(math.inf, value)
    return value if isinstance(value, int | float) else "?"
