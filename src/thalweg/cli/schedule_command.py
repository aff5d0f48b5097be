"""``thalweg schedule``: schedules plotted and compared, their values, and the line of Python that makes each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from thalweg.schedules import Schedule

_MOST = 10_000_000  # values of a schedule; more are neither read nor drawn


def show_schedules(
    expressions: Annotated[
        list[str],
        Argument(metavar="EXPR...", help="Schedules, as in 'wsd(peak=3e-4, total=24000, decay=0.2)'."),
    ],
    steps: Annotated[
        int | None, Option("--steps", help="How many updates to show; by default the longest total.")
    ] = None,
    csv: Annotated[Path | None, Option("--csv", help="Write all values to this file, a column each.")] = None,
    plot: Annotated[
        Path | None, Option("--plot", help="Write a picture to this file: .html or .svg.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records, with all values.")] = False,
) -> None:
    """Plot schedules over each other, and print the line of Python that makes each.

    A schedule is named as `thalweg methods --kind schedule` lists it, and can be joined:
    'cosine(peak=1e-3, total=900).warmed(100)', 'rex(peak=1, total=9) * 0.5', 'A(...).then(B(...))'.
    """
    from thalweg.cli.output import near, print_json, write
    from thalweg.schedules import parse

    made = {text: parse(text) for text in expressions}
    count = _steps(made, steps)
    if csv:
        _write_csv(csv, made, count)
    if plot:
        _write_plot(plot, made, count)
    if json:
        print_json(_record(text, schedule, count) for text, schedule in made.items())
        return
    write(_page(made, count), *(f"wrote {near(path)}" for path in (csv, plot) if path))


def _steps(made: "dict[str, Schedule]", steps: int | None) -> int:
    from thalweg.core.errors import UsageError

    if steps is not None:
        if steps < 1:
            raise UsageError(f"--steps {steps}: at least one update is shown")
        return _bearable(steps)
    totals = [schedule.total for schedule in made.values() if schedule.total is not None]
    if not totals:
        raise UsageError("these schedules have no end: say with --steps how many updates to show")
    return _bearable(max(totals))


def _bearable(count: int) -> int:
    from thalweg.core.errors import UsageError

    if count > _MOST:
        raise UsageError(
            f"{count:,} updates are more than the {_MOST:,} that are shown: say with --steps how many"
        )
    return count


def _record(text: str, schedule: "Schedule", count: int) -> dict[str, Any]:
    import numpy as np

    return {
        "expression": text,
        "code": schedule.code,
        "total": schedule.total,
        "values": schedule(np.arange(count)),
    }


def _page(made: "dict[str, Schedule]", count: int) -> str:
    """The plot, a table of values, and the lines of Python."""
    import shutil
    from string import ascii_lowercase

    import numpy as np

    from thalweg.cli.output import heading, table
    from thalweg.record.plotting import number, terminal_overlay, terminal_plot

    # a step more than the updates, so that the end is seen that a decay goes to
    x = np.unique(np.linspace(0, count, 2_000).round())
    curves = [(x, schedule(x)) for schedule in made.values()]
    width = min(shutil.get_terminal_size().columns, 100)
    plot = terminal_plot(*curves[0], width) if len(made) == 1 else terminal_overlay(curves, width)
    letters = ascii_lowercase if len(made) > 1 else " "
    at = dict.fromkeys(round(share * (count - 1)) for share in (0, 0.25, 0.5, 0.75, 1))
    rows = [
        (letter, *(number(schedule(step)) for step in at), number(float(schedule(np.arange(count)).max())))
        for letter, schedule in zip(letters, made.values(), strict=False)
    ]
    columns = (" ", *(f"step {number(step)}" for step in at), "largest")
    lines = [f"{letter}  {s.code}".strip() for letter, s in zip(letters, made.values(), strict=False)]
    return "\n".join(
        [plot, "", table(columns, rows, right=columns[1:]), "", heading("import thalweg as tw"), *lines, ""]
    )


def _write_csv(path: Path, made: "dict[str, Schedule]", count: int) -> None:
    import csv

    import numpy as np

    steps = np.arange(count)
    columns = [schedule(steps).tolist() for schedule in made.values()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *made])
        writer.writerows(zip(steps.tolist(), *columns, strict=True))


def _write_plot(path: Path, made: "dict[str, Schedule]", count: int) -> None:
    from thalweg.core.errors import UsageError
    from thalweg.schedules import figure, picture

    if path.suffix == ".svg":
        path.write_text(picture(made, count), encoding="utf-8")
    elif path.suffix in (".html", ".htm"):
        figure(made, count).write_html(path, include_plotlyjs=True)
    else:
        raise UsageError(f"--plot {path.name}: the picture is an .html or an .svg file")
