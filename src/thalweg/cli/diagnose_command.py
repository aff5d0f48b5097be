"""``thalweg diagnose``: what went wrong in a run, from any log."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

if TYPE_CHECKING:
    from thalweg.diagnosis import Diagnosis
    from thalweg.record import Run

FOUND = 3  # exit code with --exit-code: told apart from an error (1) and wrong usage (2)


def diagnose_run(
    path: Annotated[
        str,
        Argument(help="A log of any known format, a run file, or the beginning of a name or id in runs/."),
    ],
    against: Annotated[
        str | None, Option("--against", help="A run that should be the same: where do the two part?")
    ] = None,
    ignore: Annotated[
        list[str] | None, Option("--ignore", help="A kind to leave out; may be given several times.")
    ] = None,
    map: Annotated[
        list[str] | None, Option("--map", help="What a name in the log means, as in loss=train/my_loss.")
    ] = None,
    pattern: Annotated[
        str,
        Option(
            "--pattern", help="For text logs: a regular expression with named groups, one of them 'step'."
        ),
    ] = "",
    out: Annotated[
        Path | None, Option("--out", "-o", help="Write the report with the findings there.")
    ] = None,
    exit_code: Annotated[
        bool, Option("--exit-code", help="Exit with 3 if there is any finding above a note.")
    ] = False,
    follow: Annotated[bool, Option("--follow", help="Repeat while the run grows; Ctrl-C ends it.")] = False,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Say what went wrong in a run, how sure that is, what to do, and what could not be judged."""
    from thalweg.cli import output
    from thalweg.cli.foreign import open_any

    run = open_any(path, map or (), pattern)
    other = open_any(against, map or (), pattern) if against else None
    silenced = _ignored(ignore or ())
    latest: list[Diagnosis] = []

    def look() -> "Diagnosis":
        from thalweg.diagnosis import diagnose

        latest[:] = [diagnose(run, against=other, ignore=silenced)]
        return latest[0]

    def growing() -> bool:
        return follow and _grows(run)

    if json:
        output.follow_json(lambda: [record(look())], growing)
    elif follow:
        output.follow(lambda: _page(look()), growing)
    else:
        output.write(_page(look()))
    if out is not None:
        from thalweg.reports import report

        report(run, out, diagnoses=latest)
        if not json:
            output.write("", f"Report: {output.near(out)}")
    if exit_code and latest[0].worst in ("warning", "critical"):
        raise Exit(FOUND)


def record(diagnosis: "Diagnosis") -> Mapping[str, Any]:
    """A diagnosis as one record."""
    names = ("run", "findings", "not_evaluable", "judged", "ignored", "failed", "warnings")
    return {name: getattr(diagnosis, name) for name in names}


def _page(diagnosis: "Diagnosis") -> str:
    from shutil import get_terminal_size

    from thalweg.diagnosis.rendering import as_text

    return as_text(diagnosis, width=max(40, min(get_terminal_size((100, 30)).columns, 110)))


def _grows(run: "Run") -> bool:
    """Whether a run is being written: a run file says so itself, another log has changed within the last minute."""
    import time

    from thalweg.record.importing.signature import signature_of

    run.refresh()
    return run.live or time.time() - signature_of(run.path)[2] / 1e9 < 60


def _ignored(named: "list[str] | tuple[()]") -> list[str]:
    """The kinds of the command line, and those of ``[tool.thalweg] ignore`` in the nearest pyproject.toml."""
    return [*named, *_project_setting("ignore")]


def _project_setting(name: str) -> list[str]:
    import tomllib

    from thalweg.core.errors import UsageError

    here = Path.cwd()
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            settings = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("thalweg", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} can't be read ({error})") from error
        value = settings.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{file}: [tool.thalweg] {name} should be a list of names")
        return value
    return []
