"""``python -m benchmarks``: measure, print the tables, and write them into the documentation."""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import recorder, startup

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
JOBS = ("mlp", "cnn", "gpt")
TITLE = """# Speed and size

What watching costs, beside other tools. `make bench` measures it and writes this page.
"""
ABOUT = {
    "watch": """## Watching

Each loop trains its own copy of the same network in one process, on one thread, and the loops take turns of some
tens of steps, in an order that turns around at every round. Ratios are of total time to the plain loop's, with a 95 %
interval from resampled rounds. Processor time is disturbed less by other programs than time on the wall, and holds
all that the watch's background threads do. The target: at most 3 % of the step or 60 us, whichever is larger.
""",
    "recorder": """## Recording

Each measurement in a process of its own; the recorders take turns.
""",
    "startup": """## Starting
""",
    "importing": """## Reading event files

Both readers take turns in one process on the same folder, and their values are compared bit for bit; checksums are
verified by both. Times are processor time, and the ratio is of their totals. The targets: 5 times as fast, and a
folder of 100 MB in under 10 s.
""",
    "schedules": """## Schedules

A million values at once, and one value alone, in milliseconds of processor time; the schedules take turns. The first
call is apart, since some schedules walk through the run then, once. The target: 50 ms.
""",
}


def watch(quick: bool) -> tuple[Any, str]:
    """Each job in a fresh process, so that none meets what another has left behind."""
    from benchmarks import watching

    results = []
    for job in JOBS:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.watching",
            job,
            "--json",
            *["--quick"][:quick],
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PAGE.parents[1])
        results += json.loads(done.stdout)
    return results, "\n\n".join([watching.coverage(), *(watching.show(r) for r in results)])


def record(quick: bool) -> tuple[Any, str]:
    result = recorder.measure(1 if quick else 3)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        recorder.show(result)
    return result, f"```text\n{text.getvalue().rstrip()}\n```"


def start(quick: bool) -> tuple[Any, str]:
    result = startup.measure(2 if quick else 10)
    return result, startup.show(result)


def read_logs(quick: bool) -> tuple[Any, str]:
    from benchmarks import importing

    result = importing.measure(*(1, 100_000) if quick else (2,))
    return result, importing.show(result)


def compute_schedules(quick: bool) -> tuple[Any, str]:
    from benchmarks import schedules

    result = schedules.measure(2 if quick else 7)
    return result, schedules.show(result)


SECTIONS: dict[str, Callable[[bool], tuple[Any, str]]] = {
    "watch": watch,
    "recorder": record,
    "startup": start,
    "importing": read_logs,
    "schedules": compute_schedules,
}


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"Measured on {os.cpu_count()} CPU cores, which other programs may have shared; Python "
        f"{sys.version.split()[0]}, torch {version('torch')}, NumPy {version('numpy')}. CPU figures only."
    )


def write(texts: dict[str, str]) -> None:
    """Put sections into the page; those that were not measured now stay as they are."""
    old = PAGE.read_text() if PAGE.exists() else ""
    parts = [TITLE]
    for name, about in ABOUT.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if name in texts:
            parts.append(f"{begin}\n\n{about}\n{machine()}\n\n{texts[name]}\n\n{end}\n")
        elif begin in old:
            parts.append(begin + old.split(begin)[1].split(end)[0] + end + "\n")
    PAGE.write_text("\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a first impression; the page is not written")
    parser.add_argument("--only", choices=[*SECTIONS], help="one of the parts")
    parser.add_argument(
        "--json", action="store_true", help="print the figures as JSON; the page is not written"
    )
    given = parser.parse_args()
    texts, results = {}, {}
    for name in [given.only] if given.only else SECTIONS:
        results[name], texts[name] = SECTIONS[name](given.quick)
        if not given.json:
            print(f"{ABOUT[name]}\n{texts[name]}\n", flush=True)
    if given.json:
        print(json.dumps(results, indent=2))
    elif not given.quick:
        write(texts)


if __name__ == "__main__":
    main()
