"""Where the command line starts: it puts the commands together and turns errors into one line and an exit code.

Exit codes: 0 done, 1 an error that Thalweg or the file system explains, 2 wrong usage, 3 findings (with --exit-code),
130 interrupted.
"""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typer import Typer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: what follows the program's name; from the process if None.

    Raises:
        SystemExit: always, with the exit code.
    """
    from thalweg.core.errors import MissingExtra, ThalwegError, UsageError

    warnings.showwarning = _warn
    try:
        command_line()(args=arguments, prog_name="thalweg")
    except BrokenPipeError:
        _silence_output()
        sys.exit(1)
    except UsageError as error:
        _complain(error)
        sys.exit(2)
    except (ThalwegError, MissingExtra, OSError) as error:
        _complain(error)
        sys.exit(1)


def command_line() -> "Typer":
    """Build the application of all commands."""
    from typer import Typer

    from thalweg.cli.compact_command import compact_runs
    from thalweg.cli.data_command import fetch_data, list_data
    from thalweg.cli.demo_command import run_demonstration
    from thalweg.cli.diagnose_command import diagnose_run
    from thalweg.cli.explain_command import explain_kind
    from thalweg.cli.export_command import export_run
    from thalweg.cli.import_command import import_log
    from thalweg.cli.ls_command import list_runs
    from thalweg.cli.methods_command import list_methods
    from thalweg.cli.papers_command import list_papers
    from thalweg.cli.report_command import write_report
    from thalweg.cli.schedule_command import show_schedules
    from thalweg.cli.show_command import show_run

    app = Typer(
        name="thalweg",
        help="What a training run is doing, from its record. Each command has --help with an example, and --json.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands: dict[str, tuple[Callable[..., None], str]] = {
        "demo": (run_demonstration, "thalweg demo --quick 10"),
        "ls": (list_runs, "thalweg ls runs/"),
        "show": (show_run, "thalweg show first loss 'grad/norm*'"),
        "diagnose": (diagnose_run, "thalweg diagnose tb_logs/ --map loss=train/my_loss"),
        "explain": (explain_kind, "thalweg explain loss-spike"),
        "report": (write_report, "thalweg report first second -o runs/report.html --open"),
        "schedule": (show_schedules, "thalweg schedule 'wsd(peak=3e-4, total=24000, decay=0.2)'"),
        "import": (import_log, "thalweg import tb_logs/ -o runs/ --map loss=train/my_loss"),
        "export": (export_run, "thalweg export first --csv first.csv --signal 'grad/*'"),
        "compact": (compact_runs, "thalweg compact runs/first.tw"),
        "methods": (list_methods, "thalweg methods --kind instrument"),
        "papers": (list_papers, "thalweg papers sharpness"),
    }
    for name, (function, example) in commands.items():
        app.command(name, epilog=f"Example:  {example}")(function)
    data = Typer(
        no_args_is_help=True, help="List the real data sets that the experiments use, or fetch them."
    )
    data.command("list", epilog="Example:  thalweg data list")(list_data)
    data.command("fetch", epilog="Example:  thalweg data fetch fashion_mnist")(fetch_data)
    app.add_typer(data, name="data")
    return app


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning as one line: where in the code it was raised says nothing to a user."""
    from thalweg.record.plotting import safe_text

    print(f"thalweg: warning: {safe_text(message)}", file=sys.stderr)


def _complain(error: BaseException) -> None:
    """Write what went wrong as one line on the error stream, without anything that steers a terminal."""
    from thalweg.record.plotting import safe_text

    text = " ".join(safe_text(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{safe_text(error.filename)}: {error.strerror or text}"
    print(f"thalweg: {text}", file=sys.stderr)


def _silence_output() -> None:
    """Let the interpreter's last flush go nowhere: the reader (``head``) has left, which is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
