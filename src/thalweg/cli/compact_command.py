"""``thalweg compact``: a run's log files made into one small database, under the same name."""

from typing import Annotated

from typer import Argument, Option


def compact_runs(
    runs: Annotated[
        list[str], Argument(metavar="RUN...", help="Paths, or beginnings of names or ids in runs/.")
    ],
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Compact runs that were killed or too large at their end, and merge their segments and ranks."""
    from thalweg.cli.choosing import find_run
    from thalweg.cli.output import near, print_json, size, write
    from thalweg.core.errors import RunFileError
    from thalweg.record import compact
    from thalweg.record.opening import is_foreign

    found = [find_run(run) for run in runs]
    for path in found:
        if is_foreign(path.absolute()):
            raise RunFileError(f"{path} is another tool's log: thalweg import keeps it as a compact run file")
    paths = [compact(path) for path in found]
    if json:
        print_json([{"path": path, "bytes": path.stat().st_size} for path in paths])
    else:
        for path in paths:
            write(f"{near(path)} ({size(path.stat().st_size)})")
