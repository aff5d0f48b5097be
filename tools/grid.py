"""The acceptance grid: judge its cells, print the table, and write it into the documentation.

python tools/grid.py                    all 180 cells; writes docs/grid.md
python tools/grid.py --cover            a subset with every pair of levels; writes nothing
python tools/grid.py --only eager fp16  the cells that have all of these levels; writes nothing
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Judge and print; 1 if any cell is wrong."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from acceptance.cells import all_cells, covering, matching
    from acceptance.launching import judge
    from acceptance.table import page, summary

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cover", action="store_true", help="only a subset with every pair of levels")
    parser.add_argument("--only", nargs="+", default=[], metavar="LEVEL", help="only cells with these levels")
    parser.add_argument("--json", type=Path, help="write the verdicts here as well")
    parser.add_argument("--keep", type=Path, help="keep the run files and logs in this new folder")
    given = parser.parse_args()
    cells = matching(covering() if given.cover else all_cells(), given.only)
    whole = not given.cover and not given.only
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        verdicts = judge(cells, given.keep or Path(temporary), inductor=whole)
    text = page(verdicts)
    if given.json:
        given.json.write_text(json.dumps([asdict(v) for v in verdicts], indent=1))
    if whole:
        (ROOT / "docs" / "grid.md").write_text(text)
    print(text if whole else summary(verdicts))
    print(f"{time.monotonic() - began:.0f} s")
    return int(any(v.kind == "WRONG" for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
