"""Rows of text or numbers under names, as columns: shared by tables, JSON Lines and text logs.

Which column holds the step, the epoch and the wall time is told by its name or by the user's map; all others that hold
numbers are signals. A cell that is empty is no value; one that is text in a number's place is counted in a warning.
"""

import re
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg.record.importing.contracts import Column, Floats, NameMap, Part

_STEP = re.compile(
    r"^(?:.*[/._ ])?(?:step|steps|global_?step|_step|trainer/global_step|iter|iters|iteration|iter_?num|update|"
    r"num_updates|batch_idx|batch)$",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"^(?:.*[/._ ])?(?:epoch|epochs|current_epoch)$", re.IGNORECASE)
_TIME = re.compile(
    r"^(?:_?timestamp|wall_?time|time|date|datetime|created_at|relative time.*)$", re.IGNORECASE
)
_EMPTY = frozenset({"", "null", "none", "n/a", "na", "-", "--"})
_NAMED_NUMBERS = {
    "nan": np.nan, "+nan": np.nan, "-nan": np.nan, "inf": np.inf, "+inf": np.inf, "infinity": np.inf,
    "+infinity": np.inf, "-inf": -np.inf, "-infinity": -np.inf, "true": 1.0, "false": 0.0,
}  # fmt: skip


class Rows:
    """Cells as they come, a growing array for each column: 16 bytes a number, nothing kept of the text.

    Attributes:
        text: column -> how many of its cells held text, with the first such cell.
    """

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self._fields = list(fields)
        self._values: dict[str, array[float]] = {}
        self._places: dict[str, array[int]] = {}
        self.text: dict[str, tuple[int, str]] = {}
        self.count = 0

    def add(self, cells: Sequence[str]) -> None:
        """Take a row of cells, in the order of the fields; missing ones are empty."""
        self.add_named(dict(zip(self._fields, cells, strict=False)))

    def add_named(self, cells: Mapping[str, object]) -> None:
        """Take a row of named cells: text, numbers or None."""
        for name, cell in cells.items():
            value = to_number(cell)
            if value is None:
                count, first = self.text.get(name, (0, str(cell)[:40]))
                self.text[name] = (count + 1, first)
            elif value is not _NO_VALUE:
                self._values.setdefault(name, array("d")).append(value)
                self._places.setdefault(name, array("q")).append(self.count)
        self.count += 1

    def names(self) -> list[str]:
        """The columns that hold numbers, in the order they were first seen."""
        return list(self._values)

    def column(self, name: str) -> tuple[NDArray[np.int64], Floats]:
        """The rows [n] at which a column has a number, and the numbers [n]."""
        return np.array(self._places[name], np.int64), np.array(self._values[name], np.float64)


_NO_VALUE = float("nan")  # told apart from a NaN of the log by identity


def to_number(cell: object) -> float | None:
    """A cell as a number; `_NO_VALUE` for an empty one; None for text."""
    if cell is None:
        return _NO_VALUE
    if isinstance(cell, bool | int | float):
        try:
            return float(cell)
        except OverflowError:
            return float("inf")
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    try:
        return float(text.replace("_", "x"))
    except ValueError:
        pass
    low = text.lower()
    if low in _EMPTY:
        return _NO_VALUE
    if low in _NAMED_NUMBERS:
        return _NAMED_NUMBERS[low]
    return _localised(text)


_POINT_GROUPS = re.compile(r"^[+-]?\d{1,3}(?:\.\d{3})+,\d+$")
_COMMA_GROUPS = re.compile(r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
_COMMA_DECIMAL = re.compile(r"^[+-]?\d+,\d+(?:[eE][+-]?\d+)?$")


def _localised(text: str) -> float | None:
    """Numbers with a decimal comma or grouped thousands: "0,25", "1.234,5", "1,234.5", "12 %"."""
    text = text.rstrip(" %").replace("\u00a0", "").replace(" ", "")
    if _POINT_GROUPS.match(text):
        return float(text.replace(".", "").replace(",", "."))
    if _COMMA_GROUPS.match(text):
        return float(text.replace(",", ""))
    if _COMMA_DECIMAL.match(text):
        return float(text.replace(",", "."))
    try:
        return float(text)
    except ValueError:
        return None


def columns_of(rows: Rows, names: NameMap, warnings: list[str]) -> Part:
    """The rows as columns with steps: what each row's step is, and which columns are signals."""
    there = rows.names()
    step = names.column("step") or _named(there, _STEP)
    epoch = names.column("epoch") or _named(there, _EPOCH)
    time = names.column("time") or _named(there, _TIME)
    base, clock = (step, "updates") if step else (epoch, "epochs") if epoch else (None, "rows")
    steps = _spread(rows, base) if base else np.arange(rows.count, dtype=np.float64)
    times = _spread(rows, time) if time else None
    known = np.isfinite(steps)
    if lost := int((~known).sum()):
        warnings.append(f"{lost:,} rows have no {base}: left out")
    columns = []
    for name in there:
        if name in (base, time):
            continue
        places, values = rows.column(name)
        kept = known[places]
        places, values = places[kept], values[kept]
        columns.append(
            Column(
                name=name,
                steps=steps[places].astype(np.int64),
                values=values,
                times=None if times is None else times[places],
                order=places,
                clock=clock,
            )
        )
    for name, (count, first) in rows.text.items():
        if name in there and name not in (time,):
            warnings.append(
                f"{name}: {count:,} cells hold text in a number's place, the first {first!r}: left out"
            )
    return Part(columns=columns)


def _named(names: Sequence[str], pattern: re.Pattern[str]) -> str | None:
    """The column that is named so, the shortest of several."""
    return min((name for name in names if pattern.match(name)), key=lambda n: (len(n), n), default=None)


def _spread(rows: Rows, name: str) -> Floats:
    """[rows] a column's number at every row, NaN where it has none."""
    out = np.full(rows.count, np.nan)
    places, values = rows.column(name)
    out[places] = values
    return out
