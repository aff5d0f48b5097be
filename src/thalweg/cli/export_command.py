"""``thalweg export``: a run's values as one CSV file or one Parquet file."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def export_run(
    run: Annotated[str, Argument(help="A path, or the beginning of a name or id in runs/.")],
    csv: Annotated[
        Path | None, Option("--csv", metavar="FILE", help="Write this CSV file: a line a value.")
    ] = None,
    parquet: Annotated[
        Path | None, Option("--parquet", metavar="FILE", help="Write this Parquet file.")
    ] = None,
    signal: Annotated[
        list[str] | None, Option("--signal", metavar="PATTERN", help="Only these signals; may be repeated.")
    ] = None,
    map: Annotated[
        list[str] | None,
        Option("--map", help="In another tool's log: what a name means, as in loss=train/my_loss."),
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Write the values of a run as CSV or Parquet, for other tools."""
    from thalweg.cli.foreign import open_any
    from thalweg.cli.output import near, print_json, write
    from thalweg.core.errors import UsageError
    from thalweg.record import export_csv, export_parquet

    if csv is None and parquet is None:
        raise UsageError("export needs --csv FILE or --parquet FILE")
    opened = open_any(run, map or ())
    names = [name for pattern in signal or () for name in opened.names(pattern)] if signal else None
    if names == []:
        raise UsageError(f"{opened.path} has no signal that fits {', '.join(signal or ())}")
    written = []
    if csv is not None:
        written.append(export_csv(opened, csv, names))
    if parquet is not None:
        written.append(export_parquet(opened, parquet, names))
    if json:
        print_json([{"path": path} for path in written])
    else:
        for path in written:
            write(near(path))
