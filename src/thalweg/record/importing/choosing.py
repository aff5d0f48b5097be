"""Which importer reads a path: each says how sure it is, and the surest reads.

Importers are found by their cards in the index of methods; the module of one is imported when it is asked. A third
party's importer comes from its own index (see `thalweg.core.method_index`).
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from thalweg.core.errors import RunFileError, ThalwegError
from thalweg.core.method_index import of_kind
from thalweg.record.importing.assembling import assemble, short_names
from thalweg.record.importing.contracts import Imported, Importer, NameMap
from thalweg.record.importing.progress import Tell, listening
from thalweg.record.naming import SELECTOR
from thalweg.record.opening import read_head
from thalweg.record.run import Run
from thalweg.record.sources import Source

_SURE_ENOUGH = 0.2


def import_runs(
    path: str | os.PathLike[str],
    *,
    segment: int | None = None,
    map: Mapping[str, str] | None = None,
    pattern: str = "",
    format: str = "",
    tell: Tell | None = None,
) -> list[Run]:
    """Read the runs of another tool's log, whatever its format.

    Args:
        path: a file or a folder; ``PATH::NAME`` means the run of that name in it.
        segment: read this segment of each run alone and whole.
        map: what the names in the log mean: ``{"loss": "train/my_loss", "step": "global_step"}``.
        pattern: for text logs, a regular expression with named groups (``step`` among them).
        format: name of the importer; by default the one that is surest.
        tell: called with the bytes read and the bytes there are, now and then.

    Returns:
        The runs, in the order of the log; at least one.

    Raises:
        RunFileError: nothing there, no importer takes it, or it can't be read; the message says what was tried.
    """
    text, wanted = _parts_of(os.fspath(path))
    full = Path(text).absolute()
    if not full.exists():
        raise RunFileError(f"{text}: there is no such file or folder")
    if not full.is_dir():
        read_head(full, 1)  # says in words what can't be read, and never waits for a pipe
    names = NameMap(dict(map or {}), pattern)
    importer = _importer(format) if format else _surest(full, names)
    with listening(tell):
        found = list(importer.read(full, names))
    if wanted:
        found = [one for one in found if one.name == wanted] or _no_such(text, wanted, found)
    if not found:
        raise RunFileError(f"{text}: read as {importer.CARD.name}, and no run was found in it")
    return [_as_run(one, importer, names, segment) for one in found]


def _parts_of(text: str) -> tuple[str, str]:
    """A path, and the name of one run in it; a file that is called so with its "::" is one path."""
    path, _, wanted = text.partition(SELECTOR)
    return (text, "") if wanted and Path(text).exists() else (path, wanted)


def _as_run(imported: Imported, importer: Importer, names: NameMap, segment: int | None) -> Run:
    """A run whose first look is at what was read just now; `Run.refresh` reads the log again."""
    first = [imported]

    def sources(path: Path) -> list[Source]:
        if first:
            return [assemble(first.pop(), names)]
        for one in importer.read(path, names):
            if one.name == imported.name:
                return [assemble(one, names)]
        raise RunFileError(f"{path} no longer holds a run named {imported.name!r}")

    return Run(imported.path, sources, segment=segment, names=short_names(names))


def importer_names() -> list[str]:
    """Names of the importers there are."""
    return [row.card.name for row in of_kind("importer")]


def _no_such(text: str, wanted: str, found: list[Imported]) -> list[Imported]:
    listed = ", ".join(repr(one.name) for one in found[:12])
    raise RunFileError(f"{text} holds no run named {wanted!r}; it holds {listed}")


def _surest(path: Path, names: NameMap) -> Importer:
    if names.pattern:
        return _importer("text-log")
    scored = [(_how_sure(importer, path), importer.CARD.name, importer) for importer in _importers()]
    sure, _, importer = max(scored, key=lambda row: (row[0], row[1]))
    if sure >= _SURE_ENOUGH:
        return importer
    tried = ", ".join(sorted(name for _, name, _ in scored))
    if path.is_dir():
        raise RunFileError(
            f"{path} is a folder without a run: no run file, and no log that an importer knows ({tried})"
        )
    raise RunFileError(f"{path}: no importer knows this file; tried: {tried}")


def _how_sure(importer: Importer, path: Path) -> float:
    try:
        return importer.accepts(path)
    except (OSError, ValueError, ThalwegError):
        return 0.0


def _importers() -> Iterator[Importer]:
    for row in of_kind("importer"):
        yield cast(Importer, importlib.import_module(row.module))


def _importer(name: str) -> Importer:
    for row in of_kind("importer"):
        if row.card.name == name:
            return cast(Importer, importlib.import_module(row.module))
    raise RunFileError(f"there is no importer {name!r}; there are: {', '.join(importer_names())}")
