"""``thalweg report``: one HTML page about one run, or about several overlaid."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def write_report(
    runs: Annotated[
        list[str], Argument(metavar="RUN...", help="Paths, or beginnings of names or ids in runs/.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The page to write; an earlier one is replaced.")] = Path(
        "runs/report.html"
    ),
    open_it: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
    map: Annotated[
        list[str] | None,
        Option("--map", help="In another tool's log: what a name means, as in loss=train/my_loss."),
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Write one HTML page that opens without a network: curves, heat maps by layer, cost, events."""
    from thalweg.cli.foreign import open_any
    from thalweg.cli.output import near, print_json, size, write
    from thalweg.reports.page import report

    path = report([open_any(run, map or ()) for run in runs], out)
    written = path.stat().st_size
    if json:
        print_json([{"path": path, "bytes": written, "runs": runs}])
    else:
        write(f"{near(path)} ({size(written)})")
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
