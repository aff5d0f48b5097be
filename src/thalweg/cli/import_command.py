"""``thalweg import``: another tool's log kept as run files, with what each of its signals was taken for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from thalweg.record import Run

_BAR_FROM = 20_000_000  # bytes; what is smaller is read before a bar could be seen


def import_log(
    path: Annotated[
        str, Argument(help="A file or folder of another tool; PATH::NAME for one of several runs in it.")
    ],
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="The run file to write; for several runs a folder. By default in runs/."),
    ] = None,
    map: Annotated[
        list[str] | None,
        Option(
            "--map",
            help="What a name in the log means: loss=train/my_loss, step=iter; may be given several times.",
        ),
    ] = None,
    pattern: Annotated[
        str,
        Option(
            "--pattern", help="For text logs: a regular expression with named groups, one of them 'step'."
        ),
    ] = "",
    format: Annotated[
        str,
        Option(
            "--format", help="The importer to use (thalweg methods --kind importer), if the guess is wrong."
        ),
    ] = "",
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Keep another tool's log as run files, and show what each signal was taken for, to be corrected with --map."""
    from thalweg.cli.foreign import as_map
    from thalweg.cli.output import near, print_json, write
    from thalweg.record.importing import import_runs, keep

    with _progress(path, quiet=json) as tell:
        runs = import_runs(path, map=as_map(map or ()), pattern=pattern, format=format, tell=tell)
    paths = [keep(run, target) for run, target in zip(runs, _targets(runs, out), strict=True)]
    if json:
        print_json([_record(run, written) for run, written in zip(runs, paths, strict=True)])
        return
    for run, written in zip(runs, paths, strict=True):
        write(_page(run), f"Written: {near(written)}", "")


def _targets(runs: "list[Run]", out: Path | None) -> Iterator[Path]:
    """Where each run goes: to `out` if there is one, else to files named after the runs, in a folder."""
    import re

    folder = Path("runs") if out is None else out
    if len(runs) == 1 and out is not None and not out.is_dir():
        yield out
        return
    taken: set[str] = set()
    for run in runs:
        stem = base = re.sub(r"[^\w.\-]+", "-", run.name).strip("-.")[:100] or "run"
        number = 1
        while stem in taken:
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem)
        yield folder / f"{stem}.tw"


def _record(run: "Run", written: Path) -> dict[str, Any]:
    return {
        "path": written,
        "id": run.id,
        "name": run.name,
        "format": run.meta["imported"]["format"],
        "notes": run.meta["imported"]["notes"],
        "warnings": run.warnings,
        "signals": [{"name": spec.name, **_facts(run, spec.name)} for spec in run.signals],
    }


def _facts(run: "Run", name: str) -> dict[str, Any]:
    series = run[name]
    spec, some = series.spec, len(series) > 0
    return {
        "role": spec.role,
        "clock": spec.clock,
        "points": len(series),
        "window": spec.window,
        "estimator": spec.estimator,
        "unit": spec.unit,
        "first_step": int(series.steps[0]) if some else None,
        "last_step": int(series.steps[-1]) if some else None,
        "first": float(series.values[0]) if some else None,
        "last": float(series.values[-1]) if some else None,
    }


def _page(run: "Run") -> str:
    from thalweg.cli.output import heading, table
    from thalweg.record.plotting import number, safe_text

    origin = run.meta["imported"]
    lines = [heading(f"{run.name} ({origin['format']})")]
    lines += [safe_text(f"Note: {note}") for note in origin["notes"]]
    lines += [safe_text(f"Warning: {warning}") for warning in run.warnings]
    if len(run.segments) > 1:
        lines.append(
            f"{len(run.segments)} segments; a later one replaces the earlier ones from its first step on"
        )
    rows = []
    for spec in run.signals:
        facts = _facts(run, spec.name)
        span = "" if facts["first_step"] is None else f"{facts['first_step']:,} to {facts['last_step']:,}"
        ends = "" if facts["first"] is None else f"{number(facts['first'])} to {number(facts['last'])}"
        window = {0: "mean", 1: ""}.get(spec.window, f"mean of {spec.window:,}")
        rows.append((spec.name, spec.role or "-", spec.clock, f"{facts['points']:,}", span, window, ends))
    columns = ("signal", "role", "clock", "points", "steps", "window", "first to last")
    lines.append(table(columns, rows, right=("points",)))
    if not any(spec.role == "train loss" for spec in run.signals):
        lines.append("No signal was taken for the train loss; --map loss=NAME says which one it is.")
    return "\n".join(lines)


@contextmanager
def _progress(path: str, *, quiet: bool) -> "Iterator[Callable[[int, int], None] | None]":
    """A bar on the error stream while something large is read; None where nobody would see it."""
    import sys

    from thalweg.record.importing.signature import signature_of

    if quiet or not sys.stderr.isatty() or signature_of(Path(path))[1] < _BAR_FROM:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("Reading", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
