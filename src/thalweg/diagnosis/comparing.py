"""Two runs that should be the same and are not: the first signal and step at which they part, with the layer."""

from thalweg.diagnosis.findings import Finding
from thalweg.record import Run


def part_ways(run: Run, other: Run) -> list[Finding]:
    """The finding "runs-differ", at the first step at which the two runs part; [] where all that both have is equal."""
    raise NotImplementedError
