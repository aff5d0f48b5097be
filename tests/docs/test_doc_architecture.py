"""The page on architecture tells the truth: its names are in the code, and its instrument passes the common tests."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = [p.parent.name for p in (ROOT / "src" / "thalweg").glob("*/__init__.py")]


def resolve(dotted: str) -> object:
    """The object a name such as "watching.track.Track._end_step" stands for."""
    parts = ["thalweg", *dotted.split(".")]
    for n in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def test_the_names_on_the_page_are_in_the_code() -> None:
    names = set(re.findall(rf"`((?:{'|'.join(ROOMS)})\.[\w.]+)`", PAGE.read_text(encoding="utf-8")))
    assert len(names) > 20
    for name in names:
        resolve(name)


def test_the_instrument_of_the_page_gets_the_common_tests_for_one_file(tmp_path: Path) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "CARD = Card(" in block
    )
    copy = tmp_path / "src" / "thalweg"
    shutil.copytree(ROOT / "src" / "thalweg", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "watching", tmp_path / "tests" / "watching")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "build_index.py", tmp_path / "tools")

    # what the page says to do
    folder = copy / "watching" / "instruments"
    (folder / "gradient_weight_cosine.py").write_text(code, encoding="utf-8")
    listing = (folder / "__init__.py").read_text(encoding="utf-8")
    listing = listing.replace(
        "\nDEFAULT",
        "\nfrom thalweg.watching.instruments.gradient_weight_cosine import GradientWeightCosine\n\nDEFAULT",
        1,
    )
    head, tail = listing.split("DEFAULT", 1)
    listing = head + "DEFAULT" + tail.replace("= (", "= (\n    GradientWeightCosine,", 1)
    (folder / "__init__.py").write_text(listing, encoding="utf-8")

    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("tools/build_index.py")
    tests = "tests/watching/test_instruments.py"
    said = run("-m", "pytest", tests, "-q", "-p", "no:cacheprovider", "-k", "gradient-weight-cosine")
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None and int(passed[1]) >= 8, said
