"""Weights & Biases: local run folders (``run-ID.wandb``), and what is exported from its web page or its API.

A ``.wandb`` file is a log of records in blocks of 32 KiB, each piece with its CRC-32; the records are protocol buffers.
It holds the whole history. What is exported often doesn't: ``run.history()`` gives 500 rows chosen from all, and the
page's CSV files hold means of bins or a choice of points; such columns say so (`estimator`, `window` 0).
"""

import csv
import json
import math
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing import progress
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.tabular import Rows, to_number
from thalweg.record.importing.wire import BYTES, VARINT, Field, WireError, fields, signed, text

CARD = Card(
    name="wandb",
    kind="importer",
    summary="Weights & Biases: local runs, offline or synced, and exported histories; sampled ones are marked.",
    needs="a file run-ID.wandb, or an export with _step, or with columns RUN - METRIC",
)
SUFFIX = ".wandb"
_MAGIC = b":W&B"
_HEADER = 7
_BLOCK = 32768
_LARGEST = 64 << 20  # bytes of a record; no history row comes near
_LARGEST_JSON = 256 << 20
_DEPTH = 4
_QUIET = 60.0  # seconds after which a run without an end counts as ended
_NAMED = 3
_HISTORY_FILE = "wandb-history.jsonl"
_SUMMARY_FILE = "wandb-summary.json"
_BIN = re.compile(r"^(.*?)(?:__(MIN|MAX))?$", re.DOTALL)
_SEPARATOR = " - "
_FACTS = {"os": 1, "python": 2, "gpu_type": 18, "gpu_count": 19, "cuda_version": 25}


def accepts(path: Path) -> float:
    """0.98 for a .wandb file, 0.9 for a folder with one or for an export; 0.55 where it lies deeper than in wandb/."""
    if path.is_dir():
        files = _files(path)
        if not files:
            return 0.0
        near = files[0].parent in (path, path / "files") or files[0].parent.parent in (path, path / "wandb")
        return 0.9 if near else 0.55
    if not path.is_file():
        return 0.0
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(_MAGIC):
        return 0.98
    if path.name in (_HISTORY_FILE, _SUMMARY_FILE):
        return 0.95
    first = head.decode("utf-8-sig", "replace").splitlines()[:1]
    if path.suffix.lower() == ".csv":
        names = next(_cells(csv.reader(first), []), [])
        if _is_page(names):
            return 0.95 if any(name.endswith(("__MIN", "__MAX")) for name in names) else 0.8
        return 0.9 if "_step" in names and {"_runtime", "_timestamp"} & set(names) else 0.0
    known = b'"_step"' in head and (b'"_timestamp"' in head or b'"_runtime"' in head)
    return 0.9 if known and head.lstrip()[:1] in (b"{", b"[") else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs there; files of one run id are its resumptions."""
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise RunFileError(f"{path} holds no run of W&B: run-ID{SUFFIX} or {_HISTORY_FILE} is meant")
    logs = [file for file in files if file.suffix == SUFFIX]
    with_names = _unique(_joined([_Log(file, names) for file in logs])) if logs else []
    runs = [run.imported(path) for run in with_names]
    for file in files:
        if file not in logs:
            runs += _export(file, path, names)
    filled = [run for run in runs if any(part.columns for part in run.parts)]
    if not filled:
        said = "; ".join([warning for run in runs for warning in run.warnings][:4])
        raise RunFileError(f"{path}: read as wandb, and no history is in it{': ' + said if said else ''}")
    filled[0].warnings += [warning for run in runs if run not in filled for warning in run.warnings]
    yield from filled


def _files(folder: Path) -> list[Path]:
    """Logs of runs, and histories in folders that have none; links to folders are not followed."""
    logs, histories = [], []
    for place, below, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        below[:] = sorted(below) if depth < _DEPTH else []
        logs += [Path(place) / name for name in sorted(names) if name.endswith(SUFFIX)]
        histories += [Path(place) / name for name in names if name == _HISTORY_FILE]
    with_log = {file.parent for file in logs}
    return logs + [file for file in histories if not {file.parent, file.parent.parent} & with_log]


# The local log.


class _Log:
    """One .wandb file: what one process wrote.

    Attributes:
        run_id: common to all resumptions of a run.
        parts: what it holds.
        system: measurements of the machine.
    """

    def __init__(self, path: Path, names: NameMap) -> None:
        self.path = path
        self.run_id = path.stem.removeprefix("run-")
        self.name = ""
        self.config: dict[str, Any] = {}
        self.environment: dict[str, Any] = {}
        self.tags: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.started = 0.0
        self.ended = 0.0
        self.finished = False
        self.skipped = 0
        self._unread = 0
        self.system: dict[str, tuple[list[float], list[float]]] = {}
        self._rows = Rows(_own_places(names), self.warnings, timed_by="_timestamp")
        try:
            self._read()
            self.changed = path.stat().st_mtime
        except OSError as error:
            self.warnings.append(f"{path.name} can't be read ({error.strerror}): left out")
            self.changed = 0.0
        self.part = self._rows.part()
        self.notes += self._rows.notes
        self.part.started, self.part.ended = self.started, self.ended

    def _read(self) -> None:
        chunks = _Pieces(self.path)
        for record in chunks.records():
            try:
                for found in fields(record):
                    if found[1] == BYTES:
                        self._take(record, found)
            except WireError:
                self._unread += 1
        self.warnings += chunks.warnings
        if self._unread:
            self.warnings.append(f"{self.path.name}: {self._unread:,} records can't be understood: left out")

    def _take(self, data: bytes, found: Field) -> None:
        number, _, start, end = found
        if number == 2:
            self._take_history(data, start, end)
        elif number == 5:
            self._take_config(data, start, end)
        elif number == 7:
            self._take_stats(data, start, end)
        elif number == 17:
            self._take_run(data, start, end)
        elif number == 18:
            self.finished = True
        elif number == 26:
            self._take_environment(data, start, end)

    def _take_history(self, data: bytes, start: int, end: int) -> None:
        row: dict[str, object] = {}
        rich: list[str] = []
        for number, kind, low, high in fields(data, start, end):
            if number == 1 and kind == BYTES:
                name, value = _item(data, low, high)
                if value[:1] not in (b'"', b"[", b"{"):
                    row[name] = _number(value)
                    continue
                self.skipped += 1
                if name.endswith("._type"):  # of media: their widths and sizes are no signals
                    rich.append(name.removesuffix("_type"))
            elif number == 2 and kind == BYTES:
                for inner, wire, a, b in fields(data, low, high):
                    if inner == 1 and wire == VARINT:
                        row.setdefault("_step", float(signed(data, a, b)))
        if rich:
            row = {name: value for name, value in row.items() if not name.startswith(tuple(rich))}
        moment = row.get("_timestamp")
        if isinstance(moment, float) and math.isfinite(moment):
            self.ended = max(self.ended, moment)
        self._rows.add(row)

    def _take_config(self, data: bytes, start: int, end: int) -> None:
        for number, kind, low, high in fields(data, start, end):
            if number == 1 and kind == BYTES:
                name, value = _item(data, low, high)
                if not name.startswith("_wandb"):
                    self.config[name] = _json(value)

    def _take_stats(self, data: bytes, start: int, end: int) -> None:
        moment, values = math.nan, {}
        for number, kind, low, high in fields(data, start, end):
            if number == 2 and kind == BYTES:
                moment = _moment(data, low, high)
            elif number == 3 and kind == BYTES:
                name, value = _item(data, low, high)
                values[name] = _number(value)
        if not math.isfinite(moment):
            return
        for name, number_ in values.items():
            if number_ is not None:
                times, numbers = self.system.setdefault(name, ([], []))
                times.append(moment)
                numbers.append(number_)

    def _take_run(self, data: bytes, start: int, end: int) -> None:
        for number, kind, low, high in fields(data, start, end):
            if kind != BYTES:
                continue
            if number == 1:
                self.run_id = text(data, low, high)
            elif number == 4:
                self._take_config(data, low, high)
            elif number == 8:
                self.name = text(data, low, high)
            elif number == 10:
                self.tags.append(text(data, low, high))
            elif number == 17:
                self.started = _moment(data, low, high)

    def _take_environment(self, data: bytes, start: int, end: int) -> None:
        """Versions and hardware; names of users, machines and folders are left where they are."""
        wanted = {number: name for name, number in _FACTS.items()}
        for number, kind, low, high in fields(data, start, end):
            if number in wanted:
                fact = text(data, low, high) if kind == BYTES else signed(data, low, high)
                self.environment[wanted[number]] = fact


@dataclass
class _Run:
    """All logs of one run id, in the order of their starts."""

    logs: list[_Log]
    name: str = ""
    extra: list[str] = field(default_factory=list)

    def imported(self, path: Path) -> Imported:
        config: dict[str, Any] = {}
        environment: dict[str, Any] = {}
        for log in self.logs:
            config |= log.config
            environment |= log.environment
        parts = [log.part for log in self.logs if log.part.columns] or [Part(columns=[])]
        parts[0].columns += self._system()
        last = self.logs[-1]
        skipped = sum(log.skipped for log in self.logs)
        notes = (
            [f"left out, since they are no numbers: {skipped:,} texts, tables and media"] if skipped else []
        )
        return Imported(
            path=path,
            name=self.name,
            format=CARD.name,
            parts=parts,
            config=config,
            environment=environment,
            tags=list(dict.fromkeys(tag for log in self.logs for tag in log.tags)),
            notes=notes + [note for log in self.logs for note in log.notes],
            warnings=[warning for log in self.logs for warning in log.warnings],
            live=not last.finished and time.time() - last.changed < _QUIET,
        )

    def _system(self) -> list[Column]:
        """Measurements of the machine, on a clock of their own: seconds since the run began."""
        began = self.logs[0].started
        joined: dict[str, tuple[list[float], list[float]]] = {}
        for log in self.logs:
            for name, (times, values) in log.system.items():
                to = joined.setdefault(f"system/{name}", ([], []))
                to[0].extend(times)
                to[1].extend(values)
        began = began or min((times[0] for times, _ in joined.values()), default=0.0)
        return [
            Column(
                name=name,
                steps=np.clip(np.array(times) - began, 0, 1e12).astype(np.int64),
                values=np.array(values),
                times=np.array(times),
                clock="seconds",
            )
            for name, (times, values) in joined.items()
        ]


def _joined(logs: list[_Log]) -> list[_Run]:
    runs: dict[str, _Run] = {}
    for log in sorted(logs, key=lambda log: (log.started, log.path.name)):
        run = runs.setdefault(log.run_id, _Run([]))
        run.logs.append(log)
        run.name = log.name or run.name or log.run_id
    return list(runs.values())


def _unique(runs: list[_Run]) -> list[_Run]:
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = f"{run.name} ({run.logs[0].run_id})"
    return runs


def _own_places(names: NameMap) -> NameMap:
    """W&B's own step and time, unless the user says otherwise."""
    return NameMap({"step": "_step", "time": "_timestamp", **names.wanted}, names.pattern)


def _item(data: bytes, start: int, end: int) -> tuple[str, bytes]:
    """Name and JSON of an item; nested names joined by dots, as W&B shows them."""
    key, nested, value = "", [], b""
    for number, kind, low, high in fields(data, start, end):
        if kind != BYTES:
            continue
        if number == 1:
            key = text(data, low, high)
        elif number == 2:
            nested.append(text(data, low, high))
        elif number == 16:
            value = data[low:high]
    return key or ".".join(nested), value


def _number(value: bytes) -> float | None:
    """A number of JSON, with NaN and infinities; None for anything else."""
    try:
        return float(value)
    except ValueError:
        return {b"true": 1.0, b"false": 0.0}.get(value)


def _json(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return text(value, 0, min(len(value), 1000))


def _moment(data: bytes, start: int, end: int) -> float:
    """A Timestamp in Unix seconds."""
    parts = {n: signed(data, a, b) for n, kind, a, b in fields(data, start, end) if kind == VARINT}
    return parts.get(1, 0) + parts.get(2, 0) / 1e9


class _Pieces:
    """The records of a log, joined from their pieces; damage in words with the place."""

    def __init__(self, path: Path) -> None:
        self.warnings: list[str] = []
        self._path = path
        self._damaged = 0

    def records(self) -> Iterator[bytes]:
        """Each whole record whose pieces have the right checksums.

        Raises:
            OSError: the file can't be read.
        """
        kept: list[bytes] = []
        for kind, piece in self._pieces():
            if kind not in (3, 4):
                kept = []
            if kind == 1:
                yield piece
            elif kind == 2 or (kind in (3, 4) and kept):
                kept.append(piece)
                if sum(map(len, kept)) > _LARGEST:
                    kept = []
                elif kind == 4:
                    yield b"".join(kept)
                    kept = []
        if self._damaged > _NAMED:
            self.warnings.append(f"{self._path.name}: damaged at {self._damaged - _NAMED:,} more places")

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Kind (1 whole, 2 first, 3 middle, 4 last, 0 damaged) and bytes of each piece."""
        with self._path.open("rb") as file:
            total = file.seek(0, 2)
            file.seek(0)
            at = 0
            while block := file.read(_BLOCK):
                progress.say(at, total)
                place = _HEADER if at == 0 else 0
                if at == 0 and not block.startswith(_MAGIC):
                    self.warnings.append(f"{self._path.name} doesn't begin as a log of W&B")
                while place + 7 <= len(block):
                    check, length, kind = struct.unpack_from("<IHB", block, place)
                    if not (check or length or kind) and not any(block[place:]):
                        break  # room that was not written yet
                    end = place + 7 + length
                    right = end <= len(block) and zlib.crc32(block[place + 6 : end]) == check
                    if right:
                        yield kind, block[place + 7 : end]
                    elif end > len(block) and at + len(block) >= total and len(block) < _BLOCK:
                        self.warnings.append(
                            f"{self._path.name} ends within a record: it is still being written, or its writer was killed"
                        )
                    else:
                        self._say_damage(at + place)
                        yield 0, b""
                    place = end
                at += len(block)

    def _say_damage(self, place: int) -> None:
        self._damaged += 1
        if self._damaged <= _NAMED:
            self.warnings.append(
                f"{self._path.name}: damaged at byte {place:,}: a piece doesn't have its checksum"
            )


# Exports.


def _export(file: Path, path: Path, names: NameMap) -> list[Imported]:
    try:
        return _read_export(file, path, names)
    except OSError as error:
        raise RunFileError(f"{file} can't be read ({error.strerror})") from error


def _read_export(file: Path, path: Path, names: NameMap) -> list[Imported]:
    if file.suffix.lower() == ".csv":
        return _csv(file, path, names)
    if file.name == _SUMMARY_FILE:
        rows: Iterator[dict[str, Any]] = iter([_mapping(_loaded(file))])
    elif file.suffix.lower() == ".jsonl":
        rows = _json_lines(file)
    else:
        rows = _frame(file)
    return [_history(file, path, names, rows, [])]


def _csv(file: Path, path: Path, names: NameMap) -> list[Imported]:
    warnings: list[str] = []
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        table = _cells(csv.reader(line.replace("\0", "") for line in lines), warnings)
        head = next(table, [])
        if _is_page(head):
            return _page(file, path, names, head, table, warnings)
        rows = (dict(zip(head, row, strict=False)) for row in table)
        return [_history(file, path, names, rows, warnings)]


def _cells(reader: Iterator[list[str]], warnings: list[str]) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        warnings.append(f"the table can't be read further ({error})")


def _history(
    file: Path, path: Path, names: NameMap, rows: Iterator[dict[str, Any]], warnings: list[str]
) -> Imported:
    """A history with ``_step``, one row a step, whole or sampled."""
    table = Rows(_own_places(names), warnings, timed_by="_timestamp")
    for row in rows:
        table.add({name: value for name, value in _flat(row) if name and not name.startswith("Unnamed: ")})
    part = table.part()
    notes = list(table.notes)
    if _seems_sampled(table.count, part):
        notes.append(
            f"{table.count} rows chosen from more steps: taken as sampled, as run.history() does; "
            "run.scan_history() gives all"
        )
        for column in part.columns:
            column.window, column.estimator = 0, "sampled"
    beside = file.parent / "config.yaml"
    return Imported(
        path=path,
        name=_export_name(file),
        format=CARD.name,
        parts=[part],
        config=_settings(beside, notes) if beside.is_file() else {},
        notes=notes,
        warnings=warnings,
    )


def _flat(row: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Names and values; nested names joined by dots; media, tables and texts left out."""
    if "_type" in row or depth > 8:
        return
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.", depth + 1)
        elif not isinstance(value, list):
            yield f"{prefix}{name}", value


def _seems_sampled(rows: int, part: Part) -> bool:
    """Whether a history looks like a choice of rows: a round number of them, or about 500, over more steps."""
    steps = (
        np.unique(np.concatenate([column.steps for column in part.columns])) if part.columns else np.empty(0)
    )
    gaps = np.diff(steps)
    if len(gaps) < 2 or gaps.max() == gaps.min():
        return False
    return 450 <= rows <= 500 or (rows >= 100 and rows % 100 == 0)


def _export_name(file: Path) -> str:
    if file.name not in (_HISTORY_FILE, _SUMMARY_FILE):
        return file.stem
    folder = file.parent.parent if file.parent.name == "files" else file.parent
    return folder.name


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in iter(lambda: lines.readline(_LARGEST), ""):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


def _frame(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a data frame's ``to_json``: a list of rows, or a mapping of columns to mappings of rows."""
    try:
        found = _loaded(file)
    except RunFileError:
        yield from _json_lines(file)
        return
    if isinstance(found, list):
        yield from (row for row in found if isinstance(row, dict))
    elif isinstance(found, dict) and isinstance(found.get("_step"), dict):
        columns = {name: column for name, column in found.items() if isinstance(column, dict)}
        for key in columns["_step"]:
            yield {name: column.get(key) for name, column in columns.items()}
    else:
        yield _mapping(found)


def _loaded(file: Path) -> Any:
    if file.stat().st_size > _LARGEST_JSON:
        raise RunFileError(f"{file} is larger than 256 MB: export it as JSON Lines or CSV")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunFileError(f"{file} is no JSON that can be read ({error})") from error


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _settings(file: Path, notes: list[str]) -> dict[str, Any]:
    """The plain values of a ``config.yaml``: ``NAME:`` and below it ``value: ...``; nested ones are left out."""
    out: dict[str, Any] = {}
    name, left_out = "", 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines.read(1 << 20).splitlines():
            if top := re.match(r"^([^\s#:][^:]*):\s*$", line):
                name = top[1].strip("'\"")
            elif name and (found := re.match(r"^ {2,4}value:\s*(.*)$", line)):
                value = found[1].strip()
                if value[:1] in ("", "{", "[", "|", ">", "&", "*"):
                    left_out += 1
                elif not name.startswith("_wandb"):
                    out[name] = _scalar(value)
    if left_out:
        notes.append(f"config.yaml: {left_out} nested settings are left out")
    return out


def _scalar(value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    if value in ("null", "~"):
        return None
    if re.fullmatch(r"[+-]?\d{1,18}", value):
        return int(value)
    number = to_number(value)
    return value.strip("'\"") if number is None or value[:1] in "'\"" else number


# The web page's CSV.


def _is_page(head: list[str]) -> bool:
    """Whether columns are named RUN - METRIC, besides one for the horizontal axis."""
    there = [name for name in head if _SEPARATOR in name]
    return len(head) >= 2 and len(there) >= len(head) - 3 and _SEPARATOR not in head[0] and bool(there)


def _page(
    file: Path, path: Path, names: NameMap, head: list[str], rows: Iterator[list[str]], warnings: list[str]
) -> list[Imported]:
    """A run for each prefix of the columns."""
    axis = names.column("step") or head[0]
    clock = _clock_of(axis)
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        cells = dict(zip(head, row, strict=False))
        at = to_number(cells.get(axis))
        if at is None or not math.isfinite(at) or abs(at) > 2.0**62:
            continue
        for name, cell in cells.items():
            if _SEPARATOR not in name or f"{_SEPARATOR}_step" in name or not cell:
                continue
            value = to_number(cell)
            if value is not None:
                steps, values = columns.setdefault(name, ([], []))
                steps.append(at)
                values.append(value)
    runs: dict[str, list[Column]] = {}
    for name, (steps, values) in columns.items():
        run, _, metric = name.rpartition(_SEPARATOR)
        estimator = _estimator(name, columns)
        runs.setdefault(run, []).append(
            Column(
                name=metric,
                steps=np.array(steps).astype(np.int64),
                values=np.array(values),
                order=np.arange(len(steps)),
                clock=clock,
                window=0 if estimator else 1,
                estimator=estimator,
            )
        )
    note = f"from a chart of the web page, over {axis}: charts hold means of bins or a choice of points"
    return [
        Imported(
            path=path,
            name=run or file.stem,
            format=CARD.name,
            parts=[Part(columns=found)],
            notes=[note],
            warnings=warnings,
        )
        for run, found in runs.items()
    ]


def _clock_of(axis: str) -> str:
    low = axis.lower()
    if "epoch" in low:
        return "epochs"
    return "seconds" if "time" in low else "updates"


def _estimator(name: str, columns: dict[str, tuple[list[float], list[float]]]) -> str:
    """What a column of a chart is: a mean, smallest or largest of bins, sampled points, or (""): every step."""
    found = _BIN.match(name)
    plain, edge = (found[1], found[2]) if found else (name, None)
    low, high = columns.get(f"{plain}__MIN"), columns.get(f"{plain}__MAX")
    if low and high and low[1] != high[1]:
        return {"MIN": "smallest of a bin", "MAX": "largest of a bin"}.get(edge or "", "mean of a bin")
    steps = np.unique(columns[name][0])
    whole = len(steps) > 1 and steps[-1] - steps[0] == len(steps) - 1
    return "" if whole else "sampled"
