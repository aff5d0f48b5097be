"""The source code of the running Python's own standard library."""

import sysconfig
from pathlib import Path

from thalweg.core.errors import DataError
from thalweg.data.containers import Text
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="python_source",
    title="Source code of Python's standard library",
    origin="python",
    package="",
    version="",
    licence="PSF-2.0",
    shape="about 12 million characters; differs between Python versions",
    size=12_600_000,
    sha256="",
)
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests"}


def python_source() -> Text:
    """Load the standard library's modules as one text, by path, tests left out.

    It differs between Python versions: numbers made with it compare within one version only.

    Raises:
        DataError: this Python has no source files.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path.relative_to(root) for path in root.rglob("*.py")]
    paths = sorted(path for path in paths if not _LEFT_OUT & set(path.parts))
    if not paths:
        raise DataError(f"this Python has no source files in {root}")
    return Text.of("".join((root / path).read_text("utf-8", "replace") for path in paths))
