"""A table of comma-, semicolon- or tab-separated values: a row a step, a column a signal.

Lightning's ``metrics.csv`` (rows with holes: training and evaluation are logged at different rows), a data frame's
``to_csv``, the export button of a web page. The separator and the decimal mark are told from the first rows. Steps
come from the column that is named so (``step``, ``global_step``, ``iteration``, ...), else from the epochs, else rows
are counted; the user's map decides otherwise ("step", "epoch", "time").
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing.contracts import Imported, NameMap
from thalweg.record.importing.tabular import Rows, columns_of

CARD = Card(
    name="csv-table",
    kind="importer",
    summary="Any table of separated values with a header; Lightning's metrics.csv.",
    needs="a first line with names",
)
SUFFIXES = (".csv", ".tsv")
_HEAD = 1 << 16


def accepts(path: Path) -> float:
    """0.7 for a file that is named so and has a header with a separator; a Lightning folder with a metrics.csv."""
    file = _file(path)
    if file is None:
        return 0.0
    header = file.read_text(encoding="utf-8", errors="replace")[:_HEAD].partition("\n")[0]
    return 0.7 if _separator(header) else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The one run of the table."""
    file = _file(path)
    if file is None:
        raise RunFileError(
            f"{path} is no table: a file *.csv or *.tsv, or a folder with a metrics.csv, is meant"
        )
    warnings: list[str] = []
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        separator = _separator(header := lines.readline())
        fields = [name.strip() for name in next(csv.reader([header], delimiter=separator or ","), [])]
        if not any(fields):
            raise RunFileError(f"{file}: the first line should name the columns; it is {header[:80]!r}")
        table = Rows(fields)
        for row in csv.reader((line.replace("\0", "") for line in lines), delimiter=separator or ","):
            table.add(row)
    part = columns_of(table, names, warnings)
    yield Imported(path=path, name=_name(file), format=CARD.name, parts=[part], warnings=warnings)


def _file(path: Path) -> Path | None:
    if path.is_dir():
        path = path / "metrics.csv"
    return path if path.is_file() and path.suffix.lower() in SUFFIXES else None


def _name(file: Path) -> str:
    return file.parent.name if file.name == "metrics.csv" else file.stem


def _separator(header: str) -> str:
    """The separator that makes the most columns; "" for a line of one word."""
    counts = {mark: header.count(mark) for mark in ",;\t|"}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ""
