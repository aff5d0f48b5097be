"""Older files: what was different in each version, as functions from one version's records to the next one's.

Files are never changed when they are read; what is read from them is brought up to date record by record. A new
version of either form adds one function to its table, and a small file of the old version to the tests.
Version 0 is that of drafts before the first release.
"""

from collections.abc import Callable, Mapping
from typing import Any

from thalweg.core.errors import RunFileError
from thalweg.record.frames import FORMAT

SCHEMA = 1
"""Version of the SQLite form (its ``user_version``)."""

Record = dict[str, Any]
Step = Callable[[str, Record], Record]


def _schema_0(table: str, row: Record) -> Record:
    """Segments said "stopped" for "ended"; signals had neither formula, window, estimator nor version."""
    if table == "segments":
        return {("ended" if key == "stopped" else key): value for key, value in row.items()}
    if table == "signals":
        return {"formula": "", "window": 1, "estimator": "", "version": 1, **row}
    return row


def _log_0(kind: str, record: Record) -> Record:
    """The start frame said "id" for "run_id", the end frame "stopped" for "ended"."""
    names = {"start": {"id": "run_id"}, "end": {"stopped": "ended"}}.get(kind, {})
    return {names.get(key, key): value for key, value in record.items()}


SCHEMA_STEPS: Mapping[int, Step] = {0: _schema_0}
LOG_STEPS: Mapping[int, Step] = {0: _log_0}


def upgrade_row(table: str, row: Record, version: int) -> Record:
    """A row of the SQLite form as version `SCHEMA` has it."""
    for number in range(version, SCHEMA):
        row = SCHEMA_STEPS[number](table, row)
    return row


def upgrade_record(kind: str, record: Record, version: int) -> Record:
    """A record of the log form ("start", "end", "meta", "event", "summary") as version `FORMAT` has it."""
    for number in range(version, FORMAT):
        record = LOG_STEPS[number](kind, record)
    return record


def refuse_newer(path: object, version: int, known: int) -> None:
    """Raise RunFileError for a file that a later release wrote."""
    if version > known:
        raise RunFileError(
            f"{path} was written by a newer Thalweg (file version {version}, this one reads up to {known}): "
            "upgrade with `pip install -U thalweg`"
        )
