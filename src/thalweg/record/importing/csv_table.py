"""A table of comma-, semicolon-, tab- or space-separated values: a row a step, a column a signal.

Lightning's ``metrics.csv`` (rows with holes: training and evaluation are logged at different rows), Ultralytics'
``results.csv``, Keras' CSVLogger, a data frame's ``to_csv``, the export button of a web page; also tables with a line a
value (``signal, step, value``), as `thalweg export` writes them. The separator and the decimal mark are told from the
first rows. Steps come from the column that is named so (``step``, ``global_step``, ``iteration``, ...), else from the
epochs, else rows are counted; the user's map decides otherwise ("step", "epoch", "time"). A folder with several such
tables (``lightning_logs/version_*/metrics.csv``) holds several runs; the ``hparams.yaml`` or ``args.yaml`` beside one
gives its settings.
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.lines import head_of, lines_of, still_written
from thalweg.record.importing.tabular import Rows, to_number, usual_spacing

CARD = Card(
    name="csv-table",
    kind="importer",
    summary="Any table of separated values; Lightning's metrics.csv, Ultralytics' results.csv, our own export.",
    needs="a first line with names, or numbers in the order of the columns",
)
SUFFIXES = (".csv", ".tsv")
KNOWN = (
    "metrics.csv", "results.csv", "progress.csv", "training_log.csv", "train_log.csv", "log.csv", "history.csv",
    "summary.csv",
)  # fmt: skip
_SETTINGS = ("hparams.yaml", "args.yaml")
_BLOCK = 4096  # rows
_LONGEST = 1 << 20  # characters of a line; a longer one loses its end
_DEPTH, _MOST_RUNS, _MOST_FIELDS = 4, 1000, 20_000
_COMMA_DECIMAL = re.compile(r"(?:^|[;\t|\s])\"?[+-]?\d+,\d+(?:[eE][+-]?\d+)?\"?(?=$|[;\t|\s])")
_UNIT = re.compile(
    r"[\[(]\s{0,4}(ms|s|sec|seconds|min|h|%|MB|MiB|GB|GiB|nats|bits|it/s|tok/s|tokens/s|dB|W|°C)\s{0,4}[\])]\s{0,4}$"
)
_NAME_FIELDS = frozenset({"signal", "metric", "tag", "key", "variable", "name"})


def accepts(path: Path) -> float:
    """0.7 for a table with a header, 0.5 for a folder with known tables, 0.4 for columns without names."""
    if path.is_dir():
        return 0.5 if _files(path) else 0.0
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return 0.0
    lines = [line for line in head_of(path).splitlines() if line.strip()]
    if not lines:
        return 0.0
    return 0.7 if _separator(lines[0]) else 0.4


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs there: one a table.

    Raises:
        RunFileError: no table there, or one without columns.
    """
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise RunFileError(f"{path} holds no table; expected a file such as {', '.join(KNOWN[:3])}")
    for file in files:
        yield _run(file, path, names)


def _files(folder: Path) -> list[Path]:
    """Known tables in a folder and in those below it, in the order of their names; else the tables it holds itself."""
    found: list[Path] = []
    for where, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if len(Path(where).relative_to(folder).parts) >= _DEPTH:
            below.clear()
        found += [Path(where) / name for name in sorted(names) if name in KNOWN]
        if len(found) > _MOST_RUNS:
            break
    own = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES) if not found else []
    return sorted(found, key=_natural)[:_MOST_RUNS] or [file for file in own if file.is_file()][:_MOST_RUNS]


def _natural(path: Path) -> list[tuple[int, str]]:
    """version_10 after version_9."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d{1,18})", str(path))]


def _name(file: Path, asked: Path) -> str:
    if file.name not in KNOWN:
        return file.stem
    if asked.is_dir() and file.parent != asked:
        return str(file.parent.relative_to(asked))
    return file.parent.name or file.stem


def _run(file: Path, path: Path, names: NameMap) -> Imported:
    warnings: list[str] = []
    rows, fields = _table(file, names, warnings)
    part = rows.part()
    if len(part.columns) == 1 and part.columns[0].name.lower() == "value":
        part = Part(columns=[replace(part.columns[0], name=file.stem)])
    part = Part(columns=[_described(column, part.columns) for column in part.columns])
    notes = rows.notes + ([f"its columns are {', '.join(fields[:30])}"] if not part.columns else [])
    return Imported(
        path=path,
        name=_name(file, path),
        format=CARD.name,
        parts=[part],
        config=_settings(file.parent) | rows.facts,
        notes=notes,
        warnings=warnings,
        live=still_written(file),
    )


def _table(file: Path, names: NameMap, warnings: list[str]) -> tuple[Rows, list[str]]:
    head = [line for line in head_of(file).splitlines() if line.strip()]
    lines: Iterator[str] = (line for line in lines_of(file, cut=_LONGEST) if line.strip())
    first = next(lines, None)
    if first is None or not head:
        raise RunFileError(f"{file} is empty, or no text: a table was expected")
    separator = _separator(first)
    while first is not None and first.startswith("#") and not _is_header(first.lstrip("# "), separator):
        first = next(lines, None)
    if first is None:
        raise RunFileError(f"{file} holds comments, and no table")
    first = first.lstrip("# ") if first.startswith("#") else first
    fields = _cells(first, separator)
    if len(fields) > _MOST_FIELDS:
        raise RunFileError(f"{file}: {len(fields):,} columns are more than any log has; is it a data set?")
    if not _is_header(first, separator):
        lines = chain([first], lines)
        fields = [f"column {index}" for index in range(1, len(fields) + 1)]
        warnings.append(f"the first line holds numbers: columns are called {fields[0]}, ..., {fields[-1]}")
    comma = separator != "," and any(_COMMA_DECIMAL.search(line) for line in head[1:200])
    rows = Rows(_without_header(fields, names, head, separator, comma), warnings, comma=comma)
    _fill(rows, _unique(fields), lines, separator, warnings)
    return rows, fields


def _fill(rows: Rows, fields: list[str], lines: Iterator[str], separator: str, warnings: list[str]) -> None:
    long = _long_form(fields)
    broken = ragged = 0
    block: list[list[str]] = []
    for cells in _parsed(lines, separator):
        if cells is None:
            broken += 1
            continue
        ragged += len(cells) > len(fields) and any(cells[len(fields) :])
        if long:
            rows.add(_pivoted(dict(zip(fields, cells, strict=False)), *long))
            continue
        block.append(cells)
        if len(block) >= _BLOCK:
            rows.add_block(fields, block)
            block = []
    rows.add_block(fields, block)
    if broken:
        warnings.append(
            f"{broken:,} lines have a quotation mark that never ends, or a cell of more than 128 kB: left out"
        )
    if ragged:
        warnings.append(f"{ragged:,} rows have more cells than there are columns: the others are left out")


def _parsed(lines: Iterator[str], separator: str) -> Iterator[list[str] | None]:
    """Rows of cells; None for one that can't be read, after which reading goes on."""
    if separator == " ":
        yield from (line.split() for line in lines)
        return
    while True:
        reader = csv.reader(lines, delimiter=separator or ",")
        try:
            yield from reader
            return
        except csv.Error:
            yield None


def _long_form(fields: Sequence[str]) -> tuple[str, str] | None:
    """The fields that name a signal and hold its value, in a table with a line a value."""
    low = {field.lower(): field for field in fields}
    name = next((low[word] for word in _NAME_FIELDS if word in low), None)
    return (name, low["value"]) if name and "value" in low else None


def _pivoted(row: dict[str, object], name: str, value: str) -> dict[str, object]:
    kept = {key: cell for key, cell in row.items() if key.lower() in ("step", "epoch", "time", "timestamp")}
    return kept | {str(row.get(name) or "value")[:200]: row.get(value)}


def _without_header(
    fields: list[str], names: NameMap, head: list[str], separator: str, comma: bool
) -> NameMap:
    """In a table without names a first column of whole numbers that only grow holds the steps."""
    if fields[0] != "column 1" or "step" in names.wanted or len(fields) < 2:
        return names
    firsts = [to_number(cells[0], comma=comma) for line in head[:200] if (cells := _cells(line, separator))]
    numbers = np.array([np.nan if v is None else v for v in firsts[:-1] or firsts])
    grows = (
        len(numbers) > 1 and bool((np.diff(numbers) > 0).all()) and bool((numbers == np.round(numbers)).all())
    )
    return replace(names, wanted={**names.wanted, "step": fields[0]}) if grows else names


def _is_header(line: str, separator: str) -> bool:
    """Whether a line names columns: any cell of it is a word."""
    return any(cell.strip() and to_number(cell) is None for cell in _cells(line, separator))


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator or ","), [])]
    except csv.Error:
        return [cell.strip() for cell in line.split(separator or ",")]


def _unique(fields: list[str]) -> list[str]:
    """Names of columns, each once: a second "loss" is "loss.2"; one without a name is called by its place."""
    out: list[str] = []
    taken: set[str] = set()
    for index, field in enumerate(fields, 1):
        name = base = field[:200] or f"column {index}"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}.{count}"
        taken.add(name)
        out.append(name)
    return out


def _separator(header: str) -> str:
    """The separator that makes the most columns; a space where words have only that between them; "" for one word."""
    counts = {mark: header.count(mark) for mark in ",;\t|"}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best]:
        return (
            ";"
            if counts[";"] and counts[best] <= 2 * counts[";"] and best == "," and '"' not in header
            else best
        )
    return " " if len(header.split()) > 2 else ""


def _described(column: Column, every: Sequence[Column]) -> Column:
    """The column with its unit; Lightning's ``..._epoch`` are means over an epoch."""
    unit = found[1] if (found := _UNIT.search(column.name)) else ""
    stem = column.name.removesuffix("_epoch")
    if (
        stem != column.name
        and any(other.name == f"{stem}_step" for other in every)
        and column.clock == "updates"
    ):
        return replace(column, unit=unit, window=usual_spacing(column.steps), estimator="mean over an epoch")
    return replace(column, unit=unit)


def _settings(folder: Path) -> dict[str, Any]:
    """The plain settings of a YAML file beside the table: ``name: value`` on its lines, and what is nested in none."""
    out: dict[str, Any] = {}
    for name in _SETTINGS:
        for line in head_of(folder / name).splitlines():
            found = re.match(r"^([A-Za-z_][\w.\-]{0,80}):[ ]{1,4}([^\s#&*!|>{\[].{0,400})$", line)
            if found:
                number = to_number(found[2])
                out[found[1]] = found[2].strip("'\" ") if number is None or number != number else number
    return out
