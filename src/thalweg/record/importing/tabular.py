"""Rows of named cells as columns with steps: shared by tables, JSON Lines and text logs.

Which column holds the step, the epoch and the wall time is told by its name, or by the user's map ("step", "epoch",
"time"); all others that hold numbers are signals. A cell that is empty is no value; one that is text in a number's place
is counted in a warning. A row without a step takes that of the row before it.

Rows are settled a stretch at a time, so that memory is bounded: of a log with more than `MOST_POINTS` numbers, the
smallest and the largest of each few successive values are kept, never a mean, and `Run.warnings` says so.
"""

import math
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from thalweg.record.importing.contracts import Column, Floats, NameMap, Part

MOST_POINTS = 8_000_000
"""Numbers kept of one log, 32 bytes each: a few hundred megabytes."""
THINNED = "smallest and largest of every"
"""How the estimator of a thinned signal begins."""
_STRETCH = 1 << 19  # numbers that are gathered before their steps are looked up
_MOST_COLUMNS = 20_000  # of one log; more are names with a counter in them

_STEPS = tuple(
    re.compile(rf"^(?:{pattern})$", re.IGNORECASE)
    for pattern in (
        r"(?:.*[/._ ])?global[_ ]?steps?",
        r"_?steps?|iterations?|iters?|iter_?num|current_steps?|train(?:ing)?[_/ ]steps?",
        r"(?:num_|n_)?updates?|update_steps?|optimizer_steps?|(?:.*[/._ ])(?:step|iteration|iter)",
        r"batch|batch_idx|batch_index|mini_?batch",
    )
)
_EPOCHS = (re.compile(r"^(?:.*[/._ ])?(?:current_|num_)?epochs?$", re.IGNORECASE),)
_TIMES = tuple(
    re.compile(rf"^(?:{pattern})$", re.IGNORECASE)
    for pattern in (
        r"_?timestamps?|wall[_ ]?time|datetime|date_?time|created_at",
        r"time|date|relative time.*|(?:elapsed|wall|total|train(?:ing)?)_?time(?:_?(?:s|sec|seconds))?|elapsed|_runtime",
    )
)
_EMPTY = frozenset({"", "null", "none", "n/a", "na", "-", "--"})
_NAMED_NUMBERS = {
    "nan": np.nan, "+nan": np.nan, "-nan": np.nan, "inf": np.inf, "+inf": np.inf, "infinity": np.inf,
    "+infinity": np.inf, "-inf": -np.inf, "-infinity": -np.inf, "1.#inf": np.inf, "-1.#inf": -np.inf,
    "1.#qnan": np.nan, "-1.#ind": np.nan, "true": 1.0, "false": 0.0,
}  # fmt: skip
_NO_VALUE = float("nan")  # told apart from a NaN of the log by identity
Clock = str
Target = tuple[Callable[[float], None], Callable[[int], None]]
"""Where a column takes a number and its row."""


_Piece = tuple[NDArray[np.int64], Floats, Floats | None, NDArray[np.int64]]  # steps, values, times, places


class _Settled:
    """A column whose values have their steps: arrays, one for each stretch.

    Attributes:
        every: of each 2 * every successive values two are kept; 1 keeps all.
    """

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.every = 1

    def count(self) -> int:
        return sum(len(piece[0]) for piece in self.pieces)

    def append(self, piece: _Piece) -> None:
        """Take what follows, thinned as the rest is."""
        self.pieces.append(_thinned(piece, 2 * self.every) if self.every > 1 else piece)

    def halve(self) -> None:
        """Keep the smallest and largest of every four successive values; what is not finite stays."""
        self.pieces = [_thinned(self.joined(), 4)]
        self.every *= 2

    def joined(self) -> _Piece:
        if len(self.pieces) > 1:
            parts = list(zip(*self.pieces, strict=True))
            times = None if any(t is None for t in parts[2]) else np.concatenate(parts[2])
            self.pieces = [
                (np.concatenate(parts[0]), np.concatenate(parts[1]), times, np.concatenate(parts[3]))
            ]
        return self.pieces[0]


def _thinned(piece: _Piece, bucket: int) -> _Piece:
    steps, values, times, places = piece
    kept = extremes(values, bucket)
    return steps[kept], values[kept], None if times is None else times[kept], places[kept]


class Rows:
    """Cells as they come, gathered in growing arrays; nothing is kept of the text.

    Args:
        names: what the user says of names.
        warnings: where to say what was left out.
        comma: whether a comma is a decimal mark also where it could separate thousands ("1,234").
        timed_by: the only column that may hold wall times, where the importer knows; by default any with such a name.
        carried: whether it is usual that a row without a step belongs to the one before, so that nothing need be said.

    Attributes:
        count: rows so far.
        clock: what the steps count; known after the first stretch.
        notes: facts for the reader of the record.
        facts: what columns of text say that is the same in all rows.
    """

    def __init__(
        self,
        names: NameMap,
        warnings: list[str],
        *,
        comma: bool = False,
        timed_by: str | None = None,
        carried: bool = False,
    ) -> None:
        self._carried = carried
        self._names, self._warnings, self._comma, self._timed_by = names, warnings, comma, timed_by
        self._values: dict[str, array[float]] = {}
        self._places: dict[str, array[int]] = {}
        self._text: dict[str, tuple[int, str]] = {}
        self._settled: dict[str, _Settled] = {}
        self._gathered = 0
        self._first = 0  # row at which the stretch begins
        self._base: str | None = None
        self._time: str | None = None
        self._unroll: _Unroll | None = None
        self._chosen = False
        self._last_step = math.nan
        self._lost = self._filled = 0
        self._names_left_out = 0
        self.count = 0
        self.clock: Clock = "rows"
        self.notes: list[str] = []
        self.facts: dict[str, str] = {}

    def add(self, cells: Mapping[str, object]) -> None:
        """Take a row of named cells: text, numbers or None."""
        for name, cell in cells.items():
            self._take(name, cell, self.count)
        self._end_row()

    def _end_row(self) -> None:
        self.count += 1
        if self._gathered > _STRETCH:
            self._settle()

    def _take(self, name: str, cell: object, place: int) -> None:
        value = to_number(cell, comma=self._comma)
        if value is None:
            value = self._of_text(name, cell)
        if value is _NO_VALUE or value is None or not self._new_if_missing(name):
            return
        self._values[name].append(value)
        self._places[name].append(place)
        self._gathered += 1

    def target(self, name: str) -> Target | None:
        """Where `add_numbers` puts numbers of a name; None where there are too many names."""
        return (self._values[name].append, self._places[name].append) if self._new_if_missing(name) else None

    def add_numbers(
        self, targets: Sequence[Target], numbers: Sequence[float], others: Mapping[str, object]
    ) -> None:
        """Take a row of numbers, and other cells: as `add` does, without looking any name up."""
        place = self.count
        for (take_number, take_place), number in zip(targets, numbers, strict=True):
            take_number(number)
            take_place(place)
        self._gathered += len(targets)
        for name, cell in others.items():
            self._take(name, cell, place)
        self._end_row()

    def add_block(self, fields: Sequence[str], block: Sequence[Sequence[str]]) -> None:
        """Take rows of text cells in the order of the fields: as `add` does, many times as fast for plain numbers."""
        start = self.count
        for name, cells in zip(fields, zip_longest(*block, fillvalue=""), strict=False):
            full = [place for place, cell in enumerate(cells, start) if cell]
            try:
                values = array("d", map(float, filter(None, cells)))
            except ValueError:
                for place, cell in enumerate(cells, start):
                    self._take(name, cell, place)
                continue
            if full and self._new_if_missing(name):
                self._values[name].extend(values)
                self._places[name].extend(full)
                self._gathered += len(full)
        self.count += len(block)
        if self._gathered > _STRETCH:
            self._settle()

    def part(self) -> Part:
        """All of it as columns, in the order their names were first seen."""
        self._settle()
        self._say_what_was_left_out()
        columns = []
        for name, settled in self._settled.items():
            steps, values, times, places = settled.joined()
            thinned = f"{THINNED} {2 * settled.every} values" if settled.every > 1 else ""
            columns.append(
                Column(
                    name=name,
                    steps=steps,
                    values=values,
                    times=times,
                    order=places,
                    clock=self.clock,
                    estimator=thinned,
                )
            )
        return Part(columns=columns)

    def _new_if_missing(self, name: str) -> bool:
        """Whether there is a column for the name; False where there are too many to begin one more."""
        if name in self._values:
            return True
        if len(self._values) >= _MOST_COLUMNS:
            self._names_left_out += 1
            return False
        self._places[name] = array("q")
        self._values[name] = array("d")
        return True

    def _of_text(self, name: str, cell: object) -> float | None:
        """A cell that is no number: a moment in a column of times, else text, which is counted."""
        text = str(cell).strip()
        seconds = to_seconds(text) if _rank_of_name(name, _TIMES) is not None or self._is_time(name) else None
        if seconds is not None:
            return seconds
        count, first = self._text.get(name, (0, text[:40]))
        if count == 0 and len(self.facts) < 100:
            self.facts[name] = text[:200]
        elif self.facts.get(name) != text[:200]:
            self.facts.pop(name, None)
        self._text[name] = (count + 1, first)
        return None

    def _is_time(self, name: str) -> bool:
        return name in (self._names.column("time"), self._timed_by)

    def _settle(self) -> None:
        """Give what was gathered its steps, and thin what is too much."""
        rows = self.count - self._first
        filled = {name: values for name, values in self._values.items() if values}
        if not rows or not filled:
            return
        if not self._chosen:
            self._choose(list(filled), rows)
        steps = self._steps(rows)
        times = (
            None if self._time is None else _as_unix(_forward(self._spread(self._time, rows), math.nan)[0])
        )
        known = np.isfinite(steps) & (np.abs(steps) < 2.0**62)
        self._lost += int((~known).sum())
        whole = np.where(known, steps, 0).astype(np.int64)
        for name, values in filled.items():
            if name in (self._base, self._time):
                continue
            places = np.array(self._places[name], np.int64)
            at = places - self._first
            kept = known[at]
            if not kept.any():
                continue
            row = at[kept]
            self._settled.setdefault(name, _Settled()).append(
                (
                    whole[row],
                    np.array(values, np.float64)[kept],
                    None if times is None else times[row],
                    places[kept],
                )
            )
        for name in filled:
            del self._values[name][:]
            del self._places[name][:]
        self._first, self._gathered = self.count, 0
        self._bound()

    def _bound(self) -> None:
        while sum(column.count() for column in self._settled.values()) > MOST_POINTS:
            for column in self._settled.values():
                if column.count() > 8:
                    column.halve()

    def _choose(self, there: list[str], rows: int) -> None:
        """Which columns hold steps, epochs and times: settled with the first stretch, for the whole log."""
        self._chosen = True
        step = self._names.column("step") or self._best(there, _STEPS, rows)
        epoch = self._names.column("epoch") or self._best(there, _EPOCHS, rows)
        self._time = self._names.column("time") or self._time_column(there, rows)
        mapped = "step" in self._names.wanted
        if step and epoch and not mapped:
            steps, epochs = self._spread(step, rows), self._spread(epoch, rows)
            if _restarts_with(steps, epochs):
                self._unroll = _Unroll()
                self.notes.append(
                    f"{step} begins anew in every {epoch}: steps are counted on over the epochs"
                )
            elif _known(steps) < 0.5 * _known(epochs) or (
                len(np.unique(steps[np.isfinite(steps)])) == 1 < rows
            ):
                step = None
        self._base = step or epoch
        if self._base is not None and self._base not in there:
            self._base = None
        if self._time is not None and self._time not in there:
            self._time = None
        self.clock = "updates" if step and self._base == step else "epochs" if self._base else "rows"
        if self.clock == "rows":
            self.notes.append("the log names no steps and no epochs: its rows are counted")
        if self.clock == "epochs":
            whole = self._spread(self._base or "", rows)
            if _fractional(whole):
                self._base, self.clock = None, "rows"
                self.notes.append("the log has fractions of epochs and no steps: its rows are counted")

    def _time_column(self, there: list[str], rows: int) -> str | None:
        """The column of wall times: they never go back; what each step or epoch took does."""
        if self._timed_by is not None:
            return self._timed_by if self._timed_by in there else None
        name = self._best(there, _TIMES, rows)
        if name is None:
            return None
        known = self._spread(name, rows)
        known = known[np.isfinite(known)]
        return name if len(known) < 3 or float((np.diff(known) >= 0).mean()) > 0.95 else None

    def _best(self, there: list[str], patterns: Sequence[re.Pattern[str]], rows: int) -> str | None:
        """The column whose name fits the first pattern that any fits; of several the fullest, then the shortest."""
        ranked = []
        for name in there:
            rank = _rank_of_name(name, patterns)
            if rank is not None:
                ranked.append((rank, -round(len(self._values[name]) / rows, 1), len(name), name))
        return min(ranked)[-1] if ranked else None

    def _steps(self, rows: int) -> Floats:
        if self._base is None:
            return np.arange(self._first, self._first + rows, dtype=np.float64)
        own = self._spread(self._base, rows)
        if self._unroll is not None:
            own = self._unroll(own)
        steps, filled, self._last_step = _forward(own, self._last_step)
        self._filled += filled
        return steps

    def _spread(self, name: str, rows: int) -> Floats:
        """[rows] a column's number at every row of the stretch, NaN where it has none."""
        out = np.full(rows, np.nan)
        if name in self._values and len(self._values[name]):
            out[np.array(self._places[name], np.int64) - self._first] = np.array(
                self._values[name], np.float64
            )
        return out

    def _say_what_was_left_out(self) -> None:
        say = self._warnings.append
        if self._lost:
            say(f"{self._lost:,} rows have no {self._base}: left out")
        if self._filled and not self._carried:
            say(f"{self._filled:,} rows have no {self._base}: they take that of the row before them")
        if self._names_left_out:
            say(f"more than {_MOST_COLUMNS:,} names: the others are left out; is there a counter in them?")
        thinned = max((column.every for column in self._settled.values()), default=1)
        if thinned > 1:
            say(
                f"more than {MOST_POINTS:,} numbers: of every {2 * thinned} successive values of a signal the "
                "smallest and the largest are kept"
            )
        for name, (count, first) in self._text.items():
            if name in self._settled:
                say(f"{name}: {count:,} cells hold text in a number's place, the first {first!r}: left out")
                self.facts.pop(name, None)


class _Unroll:
    """Steps that begin anew in every epoch, as steps that go on."""

    def __init__(self) -> None:
        self._before = self._highest = 0.0
        self._last = -math.inf

    def __call__(self, steps: Floats) -> Floats:
        out = np.full(len(steps), np.nan)
        places = np.flatnonzero(np.isfinite(steps))
        for place, step in zip(places.tolist(), steps[places].tolist(), strict=True):
            if step < self._last:
                self._before = self._highest + 1
            self._last = step
            self._highest = max(self._highest, self._before + step)
            out[place] = self._before + step
        return out


def extremes(values: Floats, bucket: int) -> NDArray[np.int64]:
    """Places of the smallest and largest of every `bucket` successive values, and of all that are not finite."""
    whole = len(values) // bucket * bucket
    boxes = values[:whole].reshape(-1, bucket)
    odd = ~np.isfinite(values)
    low = np.where(np.isfinite(boxes), boxes, np.inf).argmin(axis=1)
    high = np.where(np.isfinite(boxes), boxes, -np.inf).argmax(axis=1)
    starts = np.arange(len(boxes)) * bucket
    places = [starts + low, starts + high, np.arange(whole, len(values))]
    if odd.any():  # up to a quarter of all places; more of them say no more
        places.append(np.flatnonzero(odd)[:: max(1, 4 * int(odd.sum()) // len(values))])
    return np.unique(np.concatenate(places)).astype(np.int64)


def usual_spacing(steps: NDArray[np.int64]) -> int:
    """The usual distance of successive steps; 1 where there are fewer than two."""
    gaps = np.diff(np.unique(steps))
    return int(np.median(gaps)) if len(gaps) else 1


def to_number(cell: object, *, comma: bool = False) -> float | None:
    """A cell as a number; `_NO_VALUE` for an empty one; None for text.

    Args:
        cell: text, a number, or None.
        comma: whether "1,234" is a fraction rather than a thousand.
    """
    kind = type(cell)
    if kind is float:
        return cell  # type: ignore[return-value]  # told by its exact type, which is faster
    if cell is None:
        return _NO_VALUE
    if isinstance(cell, bool | int | float):
        try:
            return float(cell)
        except OverflowError:
            return math.inf if cell > 0 else -math.inf
    if not isinstance(cell, str):
        return None
    try:
        return float(cell)
    except ValueError:
        return _unusual_number(cell, comma)


def _unusual_number(cell: str, comma: bool) -> float | None:
    text = cell.strip()
    low = text.lower()
    if low in _EMPTY:
        return _NO_VALUE
    if low in _NAMED_NUMBERS:
        return _NAMED_NUMBERS[low]
    if len(text) > 60:
        return None
    text = text.rstrip(" %").replace("\u00a0", "").replace("\u202f", "").replace(" ", "")
    if _POINT_GROUPS.match(text) or (comma and _COMMA_DECIMAL.match(text)):
        text = text.replace(".", "").replace(",", ".")
    elif _COMMA_GROUPS.match(text):
        text = text.replace(",", "")
    elif _COMMA_DECIMAL.match(text):
        text = text.replace(",", ".")
    if wrapped := _WRAPPED.match(text):
        text = wrapped[1]
    try:
        return float(text)
    except ValueError:
        return None


_POINT_GROUPS = re.compile(r"^[+-]?\d{1,3}(?:\.\d{3})+,\d+$")
_COMMA_GROUPS = re.compile(r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
_COMMA_DECIMAL = re.compile(r"^[+-]?\d+,\d+(?:[eE][+-]?\d+)?$")
_WRAPPED = re.compile(r"^(?:tensor|array|np\.float\d+|float)?\(?\[?([-+\w.]{1,40})[\])](?:,.{0,40})?\)?$")
_DURATION = re.compile(r"^(?:(\d{1,6}) days?, )?(\d{1,6}):(\d\d)(?::(\d\d(?:\.\d+)?))?$")


def to_seconds(text: str) -> float | None:
    """A moment ("2024-06-01 10:00:00,123", in UTC unless it says otherwise) or a duration ("1 day, 0:08:23") as seconds."""
    if match := _DURATION.match(text):
        days, first, second, third = match.groups()
        small = float(third) if third else 0.0
        if third is None:
            return 60.0 * int(first) + int(second)
        return 86400.0 * int(days or 0) + 3600.0 * int(first) + 60.0 * int(second) + small
    try:
        moment = datetime.fromisoformat(text.replace(",", ".").replace("/", "-").strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _rank_of_name(name: str, patterns: Sequence[re.Pattern[str]]) -> int | None:
    return next((rank for rank, pattern in enumerate(patterns) if pattern.match(name)), None)


def _as_unix(times: Floats) -> Floats:
    """Times in seconds, whatever unit since 1970 they were in; seconds since some start stay as they are."""
    usual = np.nanmedian(times) if np.isfinite(times).any() else 0.0
    scale = 1e9 if usual > 1e17 else 1e6 if usual > 1e14 else 1e3 if usual > 1e11 else 1.0
    return times / scale


def _forward(steps: Floats, last: float) -> tuple[Floats, int, float]:
    """Steps with holes filled by the one before; how many holes; the last step."""
    known = ~np.isnan(steps)
    places = np.where(known, np.arange(len(steps)), -1)
    np.maximum.accumulate(places, out=places)
    out = np.where(places >= 0, steps[np.maximum(places, 0)], last)
    return out, int((~known & ~np.isnan(out)).sum()), float(out[-1]) if len(out) else last


def _known(values: Floats) -> int:
    return int(np.isfinite(values).sum())


def _fractional(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return bool((known != np.round(known)).any())


def _restarts_with(steps: Floats, epochs: Floats) -> bool:
    """Whether steps go back each time that the epoch goes on, and at no other time."""
    both = np.isfinite(steps) & np.isfinite(epochs)
    back, on = np.diff(steps[both]) < 0, np.diff(epochs[both]) > 0
    return bool(back.any()) and bool((back == on).all())
