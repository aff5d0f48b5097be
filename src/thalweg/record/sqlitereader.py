"""Reading the closed form of a run file."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import MAX_ROWS, DecodeError, Ints, get_ints, get_planes, get_varint, size_of
from thalweg.record.jsontext import loads
from thalweg.record.logreader import event_from
from thalweg.record.migrations import SCHEMA, refuse_newer, upgrade_row
from thalweg.record.overview import Overview
from thalweg.record.payloads import spec_from_dict
from thalweg.record.signals import SignalSpec
from thalweg.record.sources import Event, Segment, chained, file_identity
from thalweg.record.sqlitefile import (
    OVERVIEW_KEY,
    RANK_UNIT,
    TIME_PREFIX,
    TIME_ROLE,
    TIMES_CODEC,
    VALUES_CODEC,
    damage,
    open_database,
    segment_key,
)

_MAX_SERIES = 1 << 32
_MAX_WARNINGS = 50
_CACHED = 8
_WORK = 50_000_000


class SqliteSource:
    """A closed run file as a `Source`. Files of older versions are brought up to date as they are read.

    Raises:
        RunFileError: it isn't a readable run file, or a newer version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._steps_cache: OrderedDict[tuple[int, int], list[Ints]] = OrderedDict()
        self._db = open_database(path)
        try:
            self._identity = file_identity(path.stat())
            self._version = int(self._rows("PRAGMA user_version")[0][0])
            refuse_newer(path, self._version, SCHEMA)
            self._read_head()
        except OSError as error:
            self.close()
            raise RunFileError(f"{path} can't be read ({error.strerror})") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        if hasattr(self, "_db"):
            self._db.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def refresh(self) -> bool:
        """A closed file never changes; False if another one has its name now."""
        try:
            return file_identity(self.path.stat()) == self._identity
        except FileNotFoundError:
            self._warn("the file was removed; what was read of it before is still shown")
            return True

    def segments(self) -> list[Segment]:
        """The parts in this file."""
        return list(self._parts)

    def specs(self) -> dict[str, SignalSpec]:
        """Name -> declaration, in the order of declaration; of several versions the latest."""
        return {name: forms[-1][1] for name, forms in self._signals.items()}

    def spec(self, name: str, part: Segment) -> SignalSpec:
        """The declaration of a signal as the part stored it."""
        return self._form(name, part)[1]

    def wrote(self, name: str, part: Segment) -> bool:
        """Whether the part holds rows of the signal."""
        forms = self._signals.get(name, ())
        return any((number, segment_key(part)) in self._present for number, _ in forms)

    def _form(self, name: str, part: Segment) -> tuple[int, SignalSpec]:
        """Id and declaration of a signal in a part: parts may have stored it in different ways."""
        forms = self._signals[name]
        return next((f for f in forms if (f[0], segment_key(part)) in self._present), forms[-1])

    def column(self, name: str, part: Segment) -> tuple[Ints, NDArray[Any]]:
        """A signal's steps [n] and values [n, *shape]; a chunk that can't be read is left out, with a warning."""
        return chained(self._columns(*self._form(name, part), part))

    def times(self, name: str, part: Segment) -> tuple[Ints, Ints]:
        """A signal's steps [n] and wall times [n] in microseconds."""
        return chained(self._timed(self._form(name, part)[0], part))

    def wall(self, clock: str, part: Segment) -> tuple[Ints, Ints]:
        """Steps and wall times of everything on a clock."""
        mine = [number for number, its in self._bases.items() if its == clock]
        return chained(pair for number in mine for pair in self._timed(number, part))

    def first_on(self, clock: str, part: Segment) -> int | None:
        """The lowest step the part wrote on a clock."""
        mine = [number for number, its in self._bases.items() if its == clock]
        if not mine:
            return None
        marks = ",".join("?" * len(mine))
        query = f"SELECT min(first) FROM chunks WHERE segment = ? AND signal IN ({marks})"
        first = self._rows(query, (segment_key(part), *mine))[0][0]
        return first if type(first) is int else None

    def events(self, part: Segment) -> list[Event]:
        """What happened in a part."""
        out = []
        for row in self._table("events", "segment = ? ORDER BY id", (segment_key(part),)):
            with suppress(ValueError):
                row["details"] = loads(row.get("json") or "{}")
            row["clock"] = self._clocks.get(row.get("clock"), "updates")
            out.append(event_from(row, part.id))
        return out

    def overview(self) -> Overview:
        """As it was when the file was closed."""
        return Overview.from_dict(self._overview)

    def chunks(self, part: Segment) -> Iterator[tuple[Any, ...]]:
        """All chunks of a part as stored, for copying: signal, seq, first, last, n, codec, steps, vals."""
        query = "SELECT signal, seq, first, last, n, codec, steps, vals FROM chunks WHERE segment = ? ORDER BY rowid"
        yield from self._query(query, (segment_key(part),))

    def all_specs(self) -> dict[int, SignalSpec]:
        """Every declaration by its id, wall times and older versions included."""
        return dict(self._all)

    # The head: everything but chunks and events.

    def _read_head(self) -> None:
        self.meta: dict[str, Any] = {}
        for row in self._table("meta"):
            try:
                self.meta[str(row["key"])] = loads(row["json"])
            except (ValueError, TypeError, KeyError):
                self._warn(f"the note {row.get('key')!r} can't be read")
        overview = self.meta.pop(OVERVIEW_KEY, None)
        self._overview = overview if isinstance(overview, dict) else {}
        self.run_id = str(self.meta.pop("run_id", ""))
        parent = self.meta.pop("parent", None)
        self.parent = parent if isinstance(parent, str) else None
        self._clocks = {row.get("id"): str(row.get("name")) for row in self._table("clocks")}
        self._parts = [part for row in self._table("segments", "1 ORDER BY id") if (part := self._part(row))]
        self._read_signals()
        pairs = self._rows("SELECT DISTINCT signal, segment FROM chunks")
        self._present = {(signal, segment) for signal, segment in pairs}

    def _read_signals(self) -> None:
        self._signals: dict[str, list[tuple[int, SignalSpec]]] = {}
        self._all: dict[int, SignalSpec] = {}
        self._bases: dict[int, str] = {}
        for row in self._table("signals", "1 ORDER BY id"):
            try:
                row["shape"] = loads(row.get("shape") or "[]")
                row["clock"] = self._clocks.get(row.get("clock"), "updates")
                spec, number = spec_from_dict(row), row.get("id")
            except (ValueError, TypeError) as error:
                self._warn(f"a signal is left out: {error}")
                continue
            if type(number) is not int:
                continue
            self._all[number] = spec
            if spec.version == 0 and spec.role == TIME_ROLE and spec.name.startswith(TIME_PREFIX):
                self._bases[number] = spec.clock
                continue
            known = self._signals.setdefault(spec.name, [])
            if known and known[0][1].version != spec.version:
                self._warn(f"{spec.name}: values of an older definition are left out")
            if known and known[0][1].version < spec.version:
                known.clear()
            if not known or known[0][1].version == spec.version:
                known.append((number, spec))

    def _part(self, row: dict[str, Any]) -> Segment | None:
        number = row.get("id")
        if type(number) is not int or number < 0:
            self._warn("a segment is left out: its number is impossible")
            return None
        ended = row.get("ended")
        return Segment(
            id=number % RANK_UNIT,
            rank=number // RANK_UNIT,
            world=max(1, _integer(row.get("world"), 1)),
            first_step=_integer(row.get("first_step"), 0),
            started=_number(row.get("started")),
            ended=None if ended is None else _number(ended),
            reason=str(row.get("reason") or "killed"),
            path=self.path,
        )

    # Chunks.

    def _columns(self, number: int, spec: SignalSpec, part: Segment) -> Iterator[tuple[Ints, NDArray[Any]]]:
        total = 0
        items, dtype = size_of(spec.shape), np.dtype(spec.dtype)
        for seq, n, codec, steps, vals in self._chunks(number, part):
            try:
                if codec != VALUES_CODEC:
                    raise DecodeError(f"values in the coding {codec!r}, which this version can't read")
                total += n * items * dtype.itemsize
                if total > _MAX_SERIES:
                    raise DecodeError(f"more than {_MAX_SERIES >> 30} GB of values")
                rows = self._steps(part, seq, n, steps)
                yield rows, get_planes(vals, n * items, dtype).reshape(n, *spec.shape)
            except DecodeError as error:
                self._warn(f"{spec.name}: rows were left out: {error}")

    def _timed(self, number: int, part: Segment) -> Iterator[tuple[Ints, Ints]]:
        """Steps and times of a signal's rows: from the chunks of its wall time with the same numbers."""
        kept: dict[int, dict[int, Any]] = {}
        for seq, n, codec, steps, vals in self._chunks(number, part):
            try:
                rows = self._steps(part, seq, n, steps)
                if codec != TIMES_CODEC:
                    base, _ = get_varint(steps, 0)
                    if base not in kept:
                        kept[base] = {chunk[0]: chunk for chunk in self._chunks(base, part)}
                    _, n_base, codec, _, vals = kept[base].get(seq, (seq, -1, "", b"", b""))
                    if n_base != n or codec != TIMES_CODEC:
                        raise DecodeError("the wall times of some rows are missing")
                yield rows, get_ints(vals, 0, n)[0]
            except DecodeError as error:
                self._warn(str(error))

    def _steps(self, part: Segment, seq: int, n: int, coded: bytes) -> Ints:
        """The steps of a chunk: its own, or those of the wall-time chunk it names."""
        base, at = get_varint(coded, 0)
        if base == 0:
            return get_ints(coded, at, n)[0]
        key = (base, segment_key(part))
        if key not in self._steps_cache:
            self._steps_cache[key] = self._base_steps(base, part)
            while len(self._steps_cache) > _CACHED:
                self._steps_cache.popitem(last=False)
        known = self._steps_cache[key]
        if not 0 <= seq < len(known) or len(known[seq]) != n:
            raise DecodeError("the steps of some rows are missing")
        return known[seq]

    def _base_steps(self, base: int, part: Segment) -> list[Ints]:
        out: list[Ints] = []
        for seq, n, _, steps, _ in self._chunks(base, part):
            own, at = get_varint(steps, 0)
            if seq != len(out) or own != 0:
                break
            out.append(get_ints(steps, at, n)[0])
        return out

    def _chunks(self, number: int, part: Segment) -> Iterator[tuple[int, int, str, bytes, bytes]]:
        query = "SELECT seq, n, codec, steps, vals FROM chunks WHERE signal = ? AND segment = ? ORDER BY seq"
        for seq, n, codec, steps, vals in self._query(query, (number, segment_key(part))):
            good = type(seq) is int and type(n) is int and 0 < n <= MAX_ROWS
            if good and isinstance(steps, bytes) and isinstance(vals, bytes):
                yield seq, n, str(codec), steps, vals
            else:
                self._warn("a chunk of impossible size was left out")

    # SQL.

    def _table(self, table: str, where: str = "1", values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows as dictionaries, whatever columns there are, brought up to date."""
        columns = [row[1] for row in self._rows(f"PRAGMA table_info({table})")]
        rows = self._rows(f"SELECT * FROM {table} WHERE {where}", values)
        return [upgrade_row(table, dict(zip(columns, row, strict=False)), self._version) for row in rows]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return list(self._query(query, values))

    def _query(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        turns = iter(range(_WORK // 100_000))
        try:
            self._db.set_progress_handler(lambda: 1 if next(turns, None) is None else 0, 100_000)
            yield from self._db.execute(query, values)
        except damage() as error:
            raise RunFileError(f"{self.path} is damaged ({error})") from error

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)


def _integer(value: Any, default: int) -> int:
    return value if type(value) is int else default


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
