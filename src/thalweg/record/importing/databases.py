"""SQLite files of other tools, opened on the terms that a stranger's file calls for."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from thalweg.core.errors import RunFileError

_MAGIC = b"SQLite format 3\0"
_STEPS = 1_000_000  # instructions of SQLite between two looks at the bound
_DAMAGE = (sqlite3.Error, ValueError, OverflowError, MemoryError)


@contextmanager
def opened(path: Path, tables: Sequence[str]) -> Iterator["Database"]:
    """Open a database for reading: immutable, no trusted schema, bounded sizes and bounded work.

    What its writer keeps in a journal beside it (``-wal``) is only readable with that: both are copied then, and the
    copy is read, so that nothing is written beside the original.

    Raises:
        RunFileError: it is no database, damaged, or lacks one of the tables.
    """
    try:
        with _readable(path) as (file, options), closing(_connect(file, options)) as connection:
            database = Database(path, connection)
            if missing := [name for name in tables if name not in database.tables]:
                raise RunFileError(f"{path} is an SQLite file without a table {missing[0]!r}")
            yield database
    except _DAMAGE as error:
        raise RunFileError(f"{path} can't be read as a database ({error})") from error
    except OSError as error:
        raise RunFileError(f"{path} can't be read ({error.strerror})") from error


class Database:
    """An open database.

    Attributes:
        tables: its plain tables, with the names of their columns; views and virtual tables are left out.
        warnings: where a table was damaged.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self.warnings: list[str] = []
        kinds = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type='table'").fetchall()
        self.tables: dict[str, list[str]] = {}
        for name, sql in kinds:
            if "VIRTUAL" not in str(sql).upper().split("(")[0]:
                quoted = str(name).replace('"', '""')
                columns = connection.execute(f'PRAGMA table_info("{quoted}")').fetchall()
                self.tables[str(name)] = [str(column[1]) for column in columns]

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of a table, up to where it is damaged; None for a column that it lacks."""
        there = self.tables.get(table, [])
        wanted = ", ".join(f'"{name}"' if name in there else "NULL" for name in columns)
        if not there:
            return
        count = 0
        try:
            for row in self._connection.execute(f'SELECT {wanted} FROM "{table}" ORDER BY rowid'):
                yield row
                count += 1
        except _DAMAGE as error:
            self.warnings.append(
                f"{self._path.name}: its table {table} is damaged ({error}): the first {count:,} rows are read"
            )


def is_database(path: Path) -> bool:
    """Whether a file begins as an SQLite database."""
    with path.open("rb") as file:
        return file.read(16) == _MAGIC


def has_table(path: Path, table: str, columns: Sequence[str]) -> bool:
    """Whether a file is a database with a table of these columns; reads its schema only."""
    try:
        if not path.is_file() or not is_database(path):
            return False
        with opened(path, [table]) as database:
            return set(columns) <= set(database.tables[table])
    except (OSError, RunFileError):
        return False


def _connect(file: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(file.absolute()))}?{options}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 28)
    left = 100 + file.stat().st_size // _STEPS * 20

    def bound() -> int:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(bound, _STEPS)
    for setting in ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON"):
        connection.execute(f"PRAGMA {setting}")
    return connection


@contextmanager
def _readable(path: Path) -> Iterator[tuple[Path, str]]:
    journal = path.with_name(path.name + "-wal")
    if not journal.is_file() or not journal.stat().st_size:
        yield path, "mode=ro&immutable=1"
        return
    with tempfile.TemporaryDirectory(prefix="thalweg-import-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(journal, copy.with_name(journal.name))
        yield copy, "mode=rw"
