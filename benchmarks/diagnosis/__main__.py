"""``python -m benchmarks.diagnosis``: train the runs, diagnose them, and compare with what is right."""

import argparse
import json
from pathlib import Path

from rich.console import Console


def make(given: argparse.Namespace) -> None:
    from benchmarks.diagnosis import making

    console = Console(stderr=True)
    making.make_all(making.jobs(given.part, given.only), given.out, given.workers, console)


def score(given: argparse.Namespace) -> None:
    from benchmarks.diagnosis import exports, page, scoring

    forms = exports.FORMS if given.exported else ()
    scores = scoring.score_all(given.runs, forms, given.workers, given.only, Console(stderr=True))
    if given.write:
        page.PAGE.write_text(page.text_of(scores))
    if given.json:
        print(json.dumps([s.record() for s in scores], indent=2))
    else:
        print(page.text_of(scores))
        print(page.run_by_run([s for s in scores if not s.form]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnosis", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="train runs")
    maker.add_argument("--part", choices=("dev", "test", "healthy"), default="dev")
    maker.add_argument("--out", type=Path, required=True, help="folder for the run files")
    maker.set_defaults(act=make)
    scorer = commands.add_parser("score", help="diagnose runs")
    scorer.add_argument("runs", type=Path, nargs="+", help="folders that make has written")
    scorer.add_argument(
        "--exported", action="store_true", help="also as TensorBoard, CSV, trainer_state.json"
    )
    scorer.add_argument("--write", action="store_true", help="write docs/diagnosis-bench.md")
    scorer.add_argument("--json", action="store_true", help="print the scores as JSON")
    scorer.set_defaults(act=score)
    for command in (maker, scorer):
        command.add_argument("--only", default="", help="runs whose name has this in it; several with commas")
        command.add_argument("--workers", type=int, default=2, help="processes at once")
    given = parser.parse_args()
    given.act(given)


if __name__ == "__main__":
    main()
