"""Rewrite the index of methods from the cards in the source: ``python tools/build_index.py [--check]``."""

import argparse
from pathlib import Path

from thalweg.core import method_index
from thalweg.core.bibliography import paper

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "thalweg"
INDEX = PACKAGE / "core" / "index.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if the index is stale"
    )
    check = parser.parse_args().check
    rows = method_index.build(PACKAGE)
    for row in rows:
        for number in row.card.papers:
            paper(number)  # a KeyError names the id that the bibliography lacks
    fresh = method_index.dump(rows)
    if INDEX.exists() and INDEX.read_text(encoding="utf-8") == fresh:
        print(f"the index is fresh: {len(rows)} methods")
        return 0
    if check:
        print("the index is stale: run python tools/build_index.py")
        return 1
    INDEX.write_text(fresh, encoding="utf-8")
    print(f"wrote {INDEX.name}: {len(rows)} methods")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
