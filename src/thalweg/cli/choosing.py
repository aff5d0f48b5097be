"""From what a user types for a run (a path, a folder, the beginning of a name or id) to a run's path."""

from collections.abc import Sequence
from pathlib import Path

from thalweg.cli.output import near
from thalweg.core.errors import RunFileError, UsageError
from thalweg.record.naming import SUFFIX
from thalweg.record.opening import is_foreign

RUNS = Path("runs")  # where runs are written unless the user says otherwise
_LISTED = 12


def find_run(text: str) -> Path:
    """Return the path of the run that ``text`` means.

    A file is taken as it is. A folder stands for the only run in it. Anything else is looked up in ``runs/``: first
    as a whole name or id, then as the beginning of one.

    Raises:
        RunFileError: nothing is there, or a folder holds no run.
        UsageError: several runs would fit; the message lists them.
    """
    path = Path(text)
    if path.exists() and is_foreign(path.absolute()) and not _holds_run_files(path):
        return path
    if path.is_dir():
        return _only_one(path)
    if path.exists() or is_foreign(path.absolute()):
        return path
    if len(path.parts) > 1:
        raise RunFileError(f"{text} does not exist; {_what_is_in(path.parent)}")
    if not RUNS.is_dir():
        raise RunFileError(
            f"{text} is no file, and there is no folder runs/ here to look it up in: give a path"
        )
    return _by_name(text)


def _holds_run_files(path: Path) -> bool:
    return path.is_dir() and next(path.rglob(f"*{SUFFIX}"), None) is not None


def _by_name(text: str) -> Path:
    """Look ``text`` up in ``runs/`` by file name, run name and id."""
    from thalweg.record import open_runs

    known = [((s.path.name, s.path.stem, s.name, s.id), s.path) for s in open_runs(RUNS)]
    whole = list(dict.fromkeys(path for names, path in known if text in names))
    begins = list(
        dict.fromkeys(path for names, path in known if any(name.startswith(text) for name in names))
    )
    found = whole or begins
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{text} could mean {_listed([near(path) for path in found])}: give one of these paths"
        )
    raise RunFileError(f"no run in runs/ has a name or id that begins with {text}; {_what_is_in(RUNS)}")


def _only_one(folder: Path) -> Path:
    from thalweg.record import open_runs

    paths = [summary.path for summary in open_runs(folder)]
    if len(paths) == 1:
        return paths[0]
    if paths:
        listed = _listed([near(path) for path in paths])
        raise UsageError(f"{folder} holds {len(paths)} runs, and one is meant: choose {listed}")
    raise RunFileError(f"{folder} is a folder without a run; {_what_is_in(folder)}")


def _what_is_in(folder: Path) -> str:
    """Say what a folder holds, for messages."""
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    runs = [name for name in names if name.endswith(".tw")]
    return f"{folder}/ holds {_listed(runs or names) or 'nothing'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
