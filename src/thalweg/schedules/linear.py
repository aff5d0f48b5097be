"""A straight line: by default the linear decay to zero.

    s(t) = start + (end - start) t / T

Linear decay is what the last-iterate bound prefers when gradient norms are constant, and the best of the simple schedules
in practice (Defazio et al., "When, Why and How Much?", 2023; Schaipp et al., 2025).
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.schedules.shape import Floats, Schedule

CARD = Card(
    name="linear",
    kind="schedule",
    summary="A straight line; by default from the peak to zero.",
    papers=(7, 24),
    formula="s(t) = start + (end - start) t / T",
    symbols={"T": "total"},
    options={"end": "the value at T; 0"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Linear(Schedule):
    """From ``start`` to ``end`` in ``total`` updates.

    Raises:
        UsageError: a value can't be used.
    """

    start: float
    total: int
    end: float = 0.0

    def value(self, t: Floats) -> Floats:
        """On the line."""
        return self.start + (self.end - self.start) * t / self.total
