"""A constant factor a step.

    s(t) = peak decay^t;   with a total: peak (final / peak)^(t / T)
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, check_finite, check_total

CARD = Card(
    name="exponential",
    kind="schedule",
    summary="A constant factor a step.",
    formula="s(t) = peak decay^t",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Exponential(Schedule):
    """Exponential decay, by the factor of a step.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    decay: float

    def __post_init__(self) -> None:
        check_total(self.total)
        check_finite(peak=self.peak, decay=self.decay)
        if self.decay <= 0:
            raise UsageError(f"decay={self.decay!r} should be above 0")

    def value(self, t: Floats) -> Floats:
        """peak decay^t."""
        return float(self.peak) * float(self.decay) ** t
