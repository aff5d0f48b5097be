"""``thalweg ls``: the runs of a folder, a line each."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

if TYPE_CHECKING:
    from thalweg.record import Runs


_MINUTES = len("2026-07-31 10:22")
_ID_SHOWN = 8  # enough to tell runs apart, and to name one


def list_runs(
    folder: Annotated[
        Path, Argument(help="The folder to look in, with all its folders; or another tool's log.")
    ] = Path("runs"),
    map: Annotated[
        list[str] | None,
        Option("--map", help="In another tool's log: what a name means, as in loss=train/my_loss."),
    ] = None,
    follow: Annotated[bool, Option("--follow", help="Repeat while a run grows; Ctrl-C ends it.")] = False,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """List the runs of a folder: when, how each ended, steps, last loss, size."""
    from thalweg.cli import output
    from thalweg.core.errors import ThalwegWarning

    def growing() -> bool:
        return follow and any(summary.live for summary in _runs(folder, map))

    if json:
        output.follow_json(lambda: _runs(folder, map), growing)
    elif follow:
        output.follow(lambda: _table(_runs(folder, map), folder), growing)
    else:
        runs = _runs(folder, map)
        output.write(_table(runs, folder))
        for warning in runs.warnings:
            warnings.warn(warning, ThalwegWarning, stacklevel=1)


def _runs(folder: Path, maps: "list[str] | None") -> "Runs":
    """The run files of a folder; where there are none, the runs of the log that it is."""
    from thalweg.cli.foreign import as_map
    from thalweg.core.errors import RunFileError
    from thalweg.record import open_runs
    from thalweg.record.importing import list_log
    from thalweg.record.opening import is_foreign

    if not folder.exists():
        raise RunFileError(
            f"there is no folder {folder}; runs are written to runs/ of the folder a script starts in"
        )
    if folder.is_file() and is_foreign(folder.absolute()):
        return list_log(folder, map=as_map(maps or ()))
    if not folder.is_dir():
        raise RunFileError(f"{folder} is a file, and a folder is meant; for one run: thalweg show {folder}")
    runs = open_runs(folder)
    if len(runs) or runs.warnings:
        return runs
    try:
        return list_log(folder, map=as_map(maps or ()))
    except RunFileError:
        return runs


def _table(runs: "Runs", folder: Path) -> str:
    from thalweg.cli.output import near, size, table
    from thalweg.record.plotting import safe_text
    from thalweg.reports.words import duration, moment

    columns = (
        "name",
        "id",
        "started (UTC)",
        "lasted",
        "ended",
        "steps",
        "last loss",
        "signals",
        "points",
        "size",
        "path",
    )
    if not len(runs):
        return f"No runs in {safe_text(folder)}/."
    rows = [
        (
            s.name,
            s.id[:_ID_SHOWN],
            moment(s.started)[:_MINUTES],
            duration(s.ended - s.started) if s.ended and s.started else "",
            "running" if s.live else s.reason or "unknown",
            f"{s.steps:,}",
            "" if math.isnan(s.last_loss) else f"{s.last_loss:.5g}",
            f"{s.signals:,}",
            f"{s.points:,}",
            size(s.bytes),
            near(s.path),
        )
        for s in runs
    ]
    return table(columns, rows, right=("lasted", "steps", "last loss", "signals", "points", "size"))
