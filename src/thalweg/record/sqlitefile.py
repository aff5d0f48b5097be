"""The closed form of a run file: one SQLite database, written once by one process and never changed.

Rows that were logged together share their steps and wall times, so these are kept once, as the chunks of a signal with
the role "wall time" (named "time/<clock>", "time/<clock>#2", ...). The ``steps`` of any other chunk name that signal;
its chunk of the same segment and number has as many rows. ``segments.id`` is the segment's number plus 2**20 times the
rank.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from numpy.typing import NDArray

from thalweg.core.errors import RunFileError
from thalweg.record.codecs import Ints, put_ints, put_planes, put_varint
from thalweg.record.jsontext import dumps
from thalweg.record.signals import Role, SignalSpec
from thalweg.record.sources import Event, Segment

if TYPE_CHECKING:
    import sqlite3

SQLITE_MAGIC = b"SQLite format 3\x00"
RANK_UNIT = 1 << 20
VALUES_CODEC, TIMES_CODEC = "planes", "micro"
TIME_ROLE: Role = "wall time"
TIME_PREFIX = "time/"
OVERVIEW_KEY = "overview"

_PAGES = ((512, 1 << 18), (1024, 1 << 22), (4096, 1 << 26))

TABLES = """
PRAGMA user_version = 1;
CREATE TABLE meta(key TEXT PRIMARY KEY, json TEXT);
CREATE TABLE segments(id INTEGER PRIMARY KEY, rank INTEGER, world INTEGER, first_step INTEGER,
    started REAL, ended REAL, reason TEXT);
CREATE TABLE clocks(id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE signals(id INTEGER PRIMARY KEY, name TEXT, role TEXT, clock INTEGER, layer TEXT, unit TEXT, dtype TEXT,
    shape TEXT, stage TEXT, reduce TEXT, formula TEXT, "window" INTEGER, estimator TEXT, version INTEGER,
    UNIQUE(name, version, dtype, shape, reduce, formula));
CREATE TABLE chunks(signal INTEGER, segment INTEGER, seq INTEGER, first INTEGER, last INTEGER, n INTEGER, codec TEXT,
    steps BLOB, vals BLOB, PRIMARY KEY(signal, segment, seq));
CREATE TABLE events(id INTEGER PRIMARY KEY, segment INTEGER, clock INTEGER, step INTEGER, time REAL, kind TEXT,
    severity TEXT, source TEXT, json TEXT);
"""


def segment_key(part: Segment) -> int:
    """A part's ``segments.id``."""
    return part.id + part.rank * RANK_UNIT


class SqliteWriter:
    """Writes the closed form to a private name; nobody reads it before it is renamed.

    No journal, no locks (they don't work everywhere), one fsync at the end.

    Args:
        path: a name that isn't taken.
        expected: about how many bytes will come: small files get small pages, which waste less.
    """

    def __init__(self, path: Path, expected: int) -> None:
        import sqlite3

        self.path = path
        self._db = sqlite3.connect(_uri(path, "mode=rwc&nolock=1"), uri=True, isolation_level=None)
        page = next((size for size, below in _PAGES if expected < below), 16384)
        self._db.executescript(
            f"PRAGMA page_size={page}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            f"PRAGMA locking_mode=EXCLUSIVE; PRAGMA temp_store=MEMORY; {TABLES} BEGIN;"
        )
        self._clocks: dict[str, int] = {}
        self._signals: dict[tuple[str, ...], int] = {}

    def meta(self, key: str, value: Any) -> None:
        """Enter a fact of the run."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (_text(key), dumps(value)))

    def segment(self, part: Segment) -> None:
        """Enter a part."""
        row = (
            segment_key(part),
            part.rank,
            part.world,
            part.first_step,
            part.started,
            part.ended,
            part.reason,
        )
        self._db.execute("INSERT INTO segments VALUES(?, ?, ?, ?, ?, ?, ?)", row)

    def clock(self, name: str) -> int:
        """The id of a clock."""
        if name not in self._clocks:
            self._clocks[name] = len(self._clocks)
            self._db.execute("INSERT INTO clocks VALUES(?, ?)", (self._clocks[name], _text(name)))
        return self._clocks[name]

    def signal(self, spec: SignalSpec) -> int:
        """The id of a signal; one that is known, and stored and joined in the same way, keeps its first entry."""
        shape = dumps(list(spec.shape))
        key = (spec.name, str(spec.version), spec.dtype, shape, spec.reduce, spec.formula)
        if key not in self._signals:
            self._signals[key] = number = len(self._signals) + 1
            row = (number, spec.name, spec.role, self.clock(spec.clock), spec.layer, spec.unit, spec.dtype)
            more = (
                shape,
                spec.stage,
                spec.reduce,
                spec.formula,
                spec.window,
                spec.estimator,
                spec.version,
            )
            self._db.execute("INSERT INTO signals VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)", (*row, *more))
        return self._signals[key]

    def times(self, clock: str, number: int) -> int:
        """The id of the signal that holds the wall times of the `number`-th set of rows on a clock, from 0."""
        name = f"{TIME_PREFIX}{clock}" + (f"#{number + 1}" if number else "")
        return self.signal(
            SignalSpec(name=name, role=TIME_ROLE, clock=clock, unit="s", dtype="float64", version=0)
        )

    def time_chunk(self, base: int, part: int, seq: int, steps: Ints, times: Ints) -> None:
        """The steps and wall times (microseconds) of a set of rows."""
        self.raw_chunk(
            (base, part, seq, int(steps.min()), int(steps.max()), len(steps), TIMES_CODEC),
            put_varint(0) + put_ints(steps, deflate=True),
            put_ints(times, deflate=True),
        )

    def chunk(self, signal: int, base: int, part: int, seq: int, steps: Ints, values: NDArray[Any]) -> None:
        """A signal's values [n, *shape] at the rows of a `time_chunk`."""
        self.raw_chunk(
            (signal, part, seq, int(steps.min()), int(steps.max()), len(steps), VALUES_CODEC),
            put_varint(base),
            put_planes(values),
        )

    def raw_chunk(self, head: tuple[int, int, int, int, int, int, str], steps: bytes, values: bytes) -> None:
        """A chunk whose parts are coded already."""
        self._db.execute("INSERT INTO chunks VALUES(?,?,?,?,?,?,?,?,?)", (*head, steps, values))

    def event(self, part: int, event: Event) -> None:
        """Enter an event."""
        row = (
            part,
            self.clock(event.clock),
            event.step,
            event.time,
            _text(event.kind),
            _text(event.severity),
        )
        self._db.execute(
            "INSERT INTO events(segment, clock, step, time, kind, severity, source, json) VALUES(?,?,?,?,?,?,?,?)",
            (*row, _text(event.source), dumps(event.details)),
        )

    def finish(self) -> None:
        """Commit, and wait until all of it is on the disk."""
        self._db.execute("COMMIT")
        self._db.close()
        fd = os.open(self.path, os.O_RDWR)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def abandon(self) -> None:
        """Close and remove what was written."""
        self._db.close()
        self.path.unlink(missing_ok=True)


def open_database(path: Path) -> "sqlite3.Connection":
    """Open the closed form for reading, on the terms that a stranger's file calls for.

    Read-only and immutable (no locks, no journal), no trusted schema, bounded sizes and bounded work for a query; a
    database with views, triggers or virtual tables is refused, since no run file has them.

    Raises:
        RunFileError: it isn't a readable run file.
    """
    import sqlite3

    try:
        db = sqlite3.connect(
            _uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise RunFileError(f"{path} can't be opened ({error})") from error
    try:
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 28)
        db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1 << 20)
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA cell_size_check=ON")
        db.execute("PRAGMA query_only=ON")
        kinds = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
        odd = [name for kind, name, sql in kinds if kind not in ("table", "index") or _virtual(sql)]
        if odd:
            raise RunFileError(f"{path} is no run file: it holds {odd[0]!r}, which run files never do")
        missing = {"meta", "segments", "signals", "chunks"} - {name for _, name, _ in kinds}
        if missing:
            raise RunFileError(
                f"{path} is an SQLite file, but no run: it has no table {sorted(missing)[0]!r}"
            )
    except damage() as error:
        db.close()
        raise RunFileError(f"{path} is damaged ({error})") from error
    except BaseException:
        db.close()
        raise
    return db


def damage() -> tuple[type[Exception], ...]:
    """What reading a damaged database raises: besides SQLite's own errors those of text and numbers it hands over."""
    import sqlite3

    return sqlite3.Error, ValueError, OverflowError, MemoryError


def _virtual(sql: Any) -> bool:
    text = str(sql or "").upper()
    return "VIRTUAL" in text.split("(")[0] or "GENERATED" in text or " AS (" in text


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(os.fsencode(path.absolute()))}?{options}"


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()
