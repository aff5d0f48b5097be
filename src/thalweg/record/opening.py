"""From a path to a run: which form a file has, which files belong together, and what they say as a whole."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thalweg.core.errors import RunFileError
from thalweg.record.frames import MAGIC
from thalweg.record.logreader import LogSource
from thalweg.record.naming import SELECTOR, SUFFIX, family, split_name
from thalweg.record.overview import Overview
from thalweg.record.run import Run
from thalweg.record.sources import Segment, Source
from thalweg.record.sqlitefile import SQLITE_MAGIC
from thalweg.record.sqlitereader import SqliteSource


def open_run(
    path: str | os.PathLike[str], *, segment: int | None = None, map: Mapping[str, str] | None = None
) -> Run:
    """Open a run, finished, killed or still being written, with all its segments and ranks; or another tool's log.

    Args:
        path: any of the run's files (".tw" may be left out), a folder with the files of one run, or a log of any known format: a TensorBoard folder, a
            ``trainer_state.json``, a CSV, ... (`thalweg methods --kind importer`); ``PATH::NAME`` for one of several.
        segment: read this segment alone and whole (from 0), also where a later one replaced it.
        map: what the names in it mean: ``{"loss": "train/my_loss"}``.

    Raises:
        RunFileError: no such file, or it isn't a run that can be read; the message says what it looks like.
    """
    full = Path(path).absolute()
    if not full.exists() and full.suffix != SUFFIX and full.with_name(full.name + SUFFIX).exists():
        full = full.with_name(full.name + SUFFIX)
    if full.is_dir():
        full = _only_run_in(full) or full
    if is_foreign(full):
        return _imported(path, segment, map)
    return Run(full, open_sources, segment=segment, names=map)


def is_foreign(path: Path) -> bool:
    """Whether a path is something for the importers: a folder, one of several runs, or a file that is no run file."""
    if not path.exists():
        return SELECTOR in path.name
    return path.is_dir() or (path.suffix != SUFFIX and not read_head(path, 16).startswith(MAGIC))


def _only_run_in(folder: Path) -> Path | None:
    """The one run whose files a folder holds; None where there is none, so that it may be another tool's log.

    Raises:
        RunFileError: it holds several.
    """
    files = sorted(file for file in folder.glob(f"*{SUFFIX}") if file.is_file())
    names = sorted({split_name(file).base for file in files})
    if len(names) > 1:
        listed = ", ".join(f"{name}{SUFFIX}" for name in names[:12])
        raise RunFileError(
            f"{folder} is a folder with {len(names)} runs: name one of {listed}, or open them all with open_runs"
        )
    return files[0] if files else None


def _imported(path: str | os.PathLike[str], segment: int | None, map: Mapping[str, str] | None) -> Run:
    from thalweg.record.importing import import_runs

    runs = import_runs(path, segment=segment, map=map)
    if len(runs) > 1:
        listed = ", ".join(run.name for run in runs[:12])
        raise RunFileError(
            f"{path} holds {len(runs)} runs, and one is meant: {path}{SELECTOR}NAME with one of {listed}"
        )
    return runs[0]


def open_file(path: Path) -> Source:
    """Open one run file of either form.

    Raises:
        RunFileError: it isn't one.
    """
    head = read_head(path, 16)
    if head.startswith(SQLITE_MAGIC):
        return SqliteSource(path)
    if head.startswith(MAGIC):
        return LogSource(path)
    raise RunFileError(f"{path} is no run file: {_looks_like(head)}")


def open_sources(path: Path) -> list[Source]:
    """All files of the run that a file belongs to, by segment and rank; siblings that can't be read are left out."""
    mine = open_file(path)
    sources: list[Source] = [mine]
    for other in family(path):
        if other == path:
            continue
        try:
            sibling = open_file(other)
        except RunFileError as error:
            mine.warnings.append(f"{other.name} was left out: {error}")
            continue
        if sibling.run_id == mine.run_id and mine.run_id:
            sources.append(sibling)
        else:
            sibling.close()
    return sorted(
        sources, key=lambda s: (min(((p.id, p.rank) for p in s.segments()), default=(0, 0)), s.path.name)
    )


def parts_of(sources: list[Source]) -> Iterator[tuple[Source, Segment]]:
    """Every part once: where a merged file and what it was merged from are both there, the merged one's."""
    seen = set()
    for source in sorted(sources, key=lambda s: -len(s.segments())):
        for part in source.segments():
            if (part.id, part.rank) not in seen:
                seen.add((part.id, part.rank))
                yield source, part


def merged_meta(sources: list[Source]) -> dict[str, Any]:
    """Facts of the run: a later segment's replace an earlier one's, rank 0's those of other ranks."""
    out: dict[str, Any] = {}
    order = sorted(sources, key=lambda s: max(((p.id, -p.rank) for p in s.segments()), default=(0, 0)))
    for source in order:
        out |= {k: v for k, v in source.meta.items() if v not in ({}, [], None, "") or k not in out}
    out |= {"run_id": sources[0].run_id, "parent": next((s.parent for s in order if s.parent), None)}
    return out


def merged_overview(sources: list[Source]) -> Overview:
    """Counts over all files; steps and loss of the one that was written last."""
    views = [(max((p.id for p in s.segments()), default=0), s.overview()) for s in sources]
    views.sort(key=lambda pair: pair[0])
    out = views[-1][1]
    for _, view in views[:-1]:
        out.points += view.points
        out.dropped += view.dropped
        out.signals = max(out.signals, view.signals)
        out.steps = {**view.steps, **out.steps}
    return out


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise RunFileError(f"{path} is no file (a pipe or a device is never read)")
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise RunFileError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise RunFileError(
            f"{path} is a folder: name one run in it, or open them all with open_runs"
        ) from None
    except OSError as error:
        raise RunFileError(f"{path} can't be read ({error.strerror})") from error


def _looks_like(head: bytes) -> str:
    kinds = {
        b"": "it is empty",
        b"\x89PNG": "it is a PNG image",
        b"PK\x03\x04": "it is a ZIP archive (a PyTorch checkpoint?)",
        b"\x1f\x8b": "it is compressed with gzip",
        b"\x80": "it is a pickle, which is never read",
        b"{": "it looks like JSON",
    }
    for magic, words in kinds.items():
        if head == magic or (magic and head.startswith(magic)):
            return words
    return f"it begins with {head[:8]!r}"
