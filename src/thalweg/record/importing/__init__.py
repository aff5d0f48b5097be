"""Logs of other tools as runs: one file a format, one common layer that turns what it read into a `Run`."""

from thalweg.record.importing.choosing import import_runs, importer_names
from thalweg.record.importing.contracts import Column, Imported, Importer, NameMap, Part
from thalweg.record.importing.keeping import keep
from thalweg.record.importing.listing import list_log

__all__ = [
    "Column",
    "Imported",
    "Importer",
    "NameMap",
    "Part",
    "import_runs",
    "importer_names",
    "keep",
    "list_log",
]
