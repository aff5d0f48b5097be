"""``python -m benchmarks.diagnosis``: make the runs, and score the diagnoses of them."""

import argparse
from pathlib import Path

from benchmarks.diagnosis import making


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnosis", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="train the runs")
    maker.add_argument("--part", choices=("dev", "test", "healthy"), default="dev")
    maker.add_argument("--out", type=Path, required=True, help="folder for the run files")
    maker.add_argument("--only", default="", help="runs whose name has this in it; several with commas")
    maker.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    making.make_all(making.jobs(given.part, given.only), given.out, given.workers)
    making.write_index(given.out)


if __name__ == "__main__":
    main()
