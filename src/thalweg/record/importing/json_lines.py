"""Numbers in JSON: an object a line (``*.jsonl``, ``*.ndjson``), an array of objects, or an object of lists.

Nested objects become names with "/". Steps come from the key that is named so, else from epochs, else objects are
counted. A line that is no JSON is counted and left out, also the last one if it is half written. An object of lists
(``{"loss": [2.3, 1.9], "val_loss": [...]}``, what a notebook dumps) is a table whose columns are the lists.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.lines import head_of, lines_of, still_written
from thalweg.record.importing.tabular import Rows, usual_spacing

CARD = Card(
    name="json-lines",
    kind="importer",
    summary="JSON Lines, a JSON array of objects, or a JSON object of lists.",
    needs="objects with numbers under names",
)
SUFFIXES = (".jsonl", ".ndjson", ".json")
KNOWN = ("metrics.jsonl", "trainer_log.jsonl", "train_log.jsonl", "log.jsonl", "logs.jsonl", "history.json")
LONGEST = 1 << 20
"""Characters of a line; a longer one counts as broken."""
LARGEST = 1 << 28
"""Bytes of a JSON file that isn't in lines: it has to be read as a whole."""
_DEEPEST = 8
_ROWS = ("history", "logs", "log_history", "metrics", "epochs", "records", "data", "steps")


def accepts(path: Path) -> float:
    """0.8 for lines of objects, 0.6 for other JSON with numbers, 0.5 for a folder with a ``metrics.jsonl``."""
    if path.is_dir():
        return 0.5 if _in_folder(path) else 0.0
    if not path.is_file():
        return 0.0
    named = path.suffix.lower() in SUFFIXES
    head = head_of(path).lstrip()
    first = next((line for line in head.splitlines() if line.strip()), "")
    if head.startswith("{") and isinstance(_parsed(first), dict):
        return 0.8 if named else 0.5
    return 0.6 if named and head[:1] in ("{", "[") and any(c.isdigit() for c in head) else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs there: one a file.

    Raises:
        RunFileError: it isn't JSON, or holds no objects with numbers.
    """
    files = _in_folder(path) if path.is_dir() else [path]
    if not files:
        raise RunFileError(f"{path}: no JSON Lines here; expected a file such as {', '.join(KNOWN[:3])}")
    for file in files:
        yield _run(file, path, names)


def _in_folder(folder: Path) -> list[Path]:
    found = [file for name in KNOWN for file in sorted(folder.glob(name)) + sorted(folder.glob(f"*/{name}"))]
    found = found or [file for suffix in SUFFIXES[:2] for file in sorted(folder.glob(f"*{suffix}"))]
    return list(dict.fromkeys(file for file in found if file.is_file()))[:1000]


def _run(file: Path, path: Path, names: NameMap) -> Imported:
    warnings: list[str] = []
    rows = Rows(names, warnings)
    if _is_in_lines(file):
        _take_lines(file, rows, warnings)
    else:
        _take_whole(file, rows)
    part = Part(columns=_described(rows.part().columns))
    name = file.parent.name if file.name in KNOWN else file.stem
    if path.is_dir() and file.parent != path:
        name = str(file.parent.relative_to(path))
    return Imported(
        path=path,
        name=name or file.stem,
        format=CARD.name,
        parts=[part],
        config=rows.facts,
        notes=rows.notes,
        warnings=warnings,
        live=still_written(file),
    )


def _described(columns: list[Column]) -> list[Column]:
    """LLaMA-Factory writes the Trainer's losses, which are means since the row before."""
    if not {"total_steps", "percentage"} <= {column.name for column in columns}:
        return columns
    return [
        replace(column, window=max(1, usual_spacing(column.steps)), estimator="mean since the row before")
        if column.name == "loss"
        else column
        for column in columns
    ]


def _is_in_lines(file: Path) -> bool:
    """Whether the first lines are whole JSON objects, or the name says so."""
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        return True
    first = next((line for line in lines_of(file, cut=LONGEST) if line.strip()), "")
    return isinstance(_parsed(first), dict)


def _take_lines(file: Path, rows: Rows, warnings: list[str]) -> None:
    broken = other = 0
    first, last = "", 0
    number = 0
    for number, line in enumerate(lines_of(file, cut=LONGEST), 1):
        if not line.strip():
            continue
        found = _parsed(line)
        if isinstance(found, dict):
            rows.add(flat(found))
        elif found is None:
            broken, last = broken + 1, number
            first = first or f"line {number}: {line[:40]!r}"
        else:
            other += 1
    if broken == 1 and last == number:
        warnings.append(f"the last line is half written, and was left out: {first}")
    elif broken:
        warnings.append(f"{broken:,} lines are no JSON, and were left out; the first is {first}")
    if other:
        warnings.append(f"{other:,} lines are no objects, and were left out")
    if not rows.count:
        raise RunFileError(f"{file}: none of its {number:,} lines is a JSON object; the first is {first}")


def _take_whole(file: Path, rows: Rows) -> None:
    if file.stat().st_size > LARGEST:
        raise RunFileError(
            f"{file} is one JSON value of more than {LARGEST >> 20} MB: write an object a line (JSON Lines) instead"
        )
    text = "\n".join(lines_of(file, cut=LARGEST))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunFileError(f"{file} is no JSON: {str(error)[:200]}") from error
    taken = 0
    for row in _objects(found):
        rows.add(flat(row))
        taken += 1
    if not taken:
        raise RunFileError(
            f"{file}: expected an array of objects or an object of lists, and found {_kind(found)}"
        )


def _objects(found: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a JSON value: those of an array, or of the lists of an object, or of the key that holds rows."""
    if isinstance(found, list):
        yield from (row for row in found if isinstance(row, dict))
    elif isinstance(found, dict):
        held = next((found[key] for key in _ROWS if isinstance(found.get(key), list | dict)), None)
        lists = {str(key): value for key, value in found.items() if isinstance(value, list)}
        if isinstance(held, list) and any(isinstance(row, dict) for row in held):
            yield from _objects(held)
        elif any(_is_numbers(values) for values in lists.values()):
            table = {key: values for key, values in lists.items() if _is_numbers(values)}
            for cells in itertools.zip_longest(*table.values()):
                yield dict(zip(table, cells, strict=True))
        elif isinstance(held, dict):
            yield from _objects(held)
        elif found and all(isinstance(row, dict) for row in found.values()):
            yield from _numbered(found)


def _numbered(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """``{"1": {"loss": ...}, "2": ...}``: the keys are the steps."""
    for key, row in found.items():
        try:
            yield {"step": int(key), **row}
        except ValueError:
            return


def _is_numbers(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(v, int | float | None) for v in values[:50])


def flat(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested objects as one level with "/" between the names; lists and what lies too deep are left out."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        name = f"{prefix}{key}"[:200]
        if isinstance(value, dict):
            if depth < _DEEPEST:
                out |= flat(value, f"{name}/", depth + 1)
        elif isinstance(value, list):
            if len(value) == 1 and isinstance(value[0], int | float):
                out[name] = value[0]
        else:
            out[name] = value
    return out


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _kind(found: Any) -> str:
    if isinstance(found, dict):
        return f"an object with the keys {', '.join(map(str, list(found)[:6]))}"
    return f"a {type(found).__name__}"
