"""The papers that methods come from, with the identifiers that were checked.

Ids 1 to 359 are the papers whose methods the library sets out to offer; other papers that a card or a term cites
have ids from 1001 on. Only the title is always there: a year, arXiv id or DOI is entered once it has been checked
against a public listing, and is absent before.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Paper:
    """One paper.

    Attributes:
        id: its number here, as used in `Card.papers`.
        title: as published.
        year: of its first public version (arXiv's where there is one); None where not checked.
        arxiv: arXiv id without version ("1812.06162"); empty where not checked or absent.
        doi: DOI without resolver; empty where not checked or absent.
    """

    id: int
    title: str
    year: int | None = None
    arxiv: str = ""
    doi: str = ""

    @property
    def url(self) -> str:
        """Where it can be read: arXiv, else the DOI's resolver; empty where neither is known."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else ""


def papers() -> list[Paper]:
    """Return every paper of the bibliography, by id."""
    return list(_by_id().values())


def paper(id: int) -> Paper:
    """Return the paper with this id.

    Raises:
        KeyError: no paper has it.
    """
    try:
        return _by_id()[id]
    except KeyError:
        raise KeyError(f"no paper has the id {id!r}: `thalweg papers` lists them") from None


@cache
def _by_id() -> dict[int, Paper]:
    text = files("thalweg.core").joinpath("bibliography.json").read_text(encoding="utf-8")
    return {row["id"]: Paper(**row) for row in json.loads(text)}
