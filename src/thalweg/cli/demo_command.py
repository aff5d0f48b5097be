"""``thalweg demo``: train small networks on real data, watched, and look at their runs; one goes wrong on purpose."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def run_demonstration(
    folder: Annotated[Path, Argument(metavar="[FOLDER]", help="Where the runs and the page go.")] = Path(
        "runs"
    ),
    quick: Annotated[int, Option(help="Train this many times shorter.", min=1)] = 1,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Train two small networks and one that goes wrong, for about a minute; show what was recorded and found."""
    from importlib.util import find_spec

    from thalweg.core.errors import MissingExtra

    if find_spec("torch") is None:
        raise MissingExtra(
            "thalweg demo trains small networks and needs PyTorch: pip install 'thalweg[torch,data]'"
        )
    from rich.console import Console

    from thalweg.cli.output import near, print_json, write
    from thalweg.demo import run_demo
    from thalweg.reports.page import report

    made = run_demo(folder, shorten=quick, console=Console(stderr=json))
    page = report([str(path) for path in made], folder / "report.html")
    if json:
        print_json([{"path": path} for path in [*made, page]])
        return
    _show(folder, made)
    write(f"\nThe page of all three runs: {near(page)}")


def _show(folder: Path, made: list[Path]) -> None:
    from thalweg.cli.entry import command_line

    app = command_line()
    *healthy, wrong = map(str, made)
    commands = [
        ["ls", str(folder)],
        *(["show", path, "loss", "grad/norm"] for path in healthy),
        ["diagnose", wrong],
    ]
    for arguments in commands:
        print(f"\n$ thalweg {' '.join(arguments)}")
        app(args=arguments, prog_name="thalweg", standalone_mode=False)
