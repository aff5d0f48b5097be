"""What can become of a cell, and the tolerance of the comparison."""

from dataclasses import dataclass, field

CORRECT, IN_PART, UNSUPPORTED, WRONG = "correct", "in part", "unsupported", "WRONG"
RELATIVE, ABSOLUTE = 2e-5, 1e-7
"""The record is float32 and sums squares in float32: about 1e-6 of each value; differences of sums lose a digit."""


@dataclass
class Verdict:
    """What became of one cell.

    Attributes:
        cell: its name.
        kind: correct; in part (what is recorded is correct, the rest refused in words); unsupported; WRONG.
        text: what is wrong, refused or unsupported.
        compared: how many recorded values were compared with those by hand.
        seconds: how long the cell took.
        backend: what compiled it, if anything.
    """

    cell: str
    kind: str
    text: str = ""
    compared: int = 0
    seconds: float = 0.0
    backend: str = ""
    refused: list[str] = field(default_factory=list)
