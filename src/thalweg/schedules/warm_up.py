"""A rise from a small value to the peak, to be put before another schedule.

    linear        s(t) = start + (peak - start) t / W
    cosine        s(t) = start + (peak - start) (1 - cos(pi t / W)) / 2
    exponential   s(t) = start (peak / start)^(t / W)

``schedule.warmed(steps, shape=...)`` puts one before any schedule.
"""

from dataclasses import dataclass
from typing import Literal

from thalweg.core.cards import Card
from thalweg.schedules.cooling import cooled, refuse_zero
from thalweg.schedules.shape import Floats, Schedule, one_of

CARD = Card(
    name="warm-up",
    kind="schedule",
    summary="A rise to the peak that is put before another schedule: linear, cosine or exponential.",
    formula="s(t) = start + (peak - start) t / W",
    symbols={"W": "total, the steps of the warm-up"},
    options={
        "shape": "'linear' (default), 'cosine', or 'exponential', which needs a start other than 0",
        "start": "the value of the first update; 0, as in other libraries",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class WarmUp(Schedule):
    """From ``start`` to ``peak`` in ``total`` updates.

    Raises:
        UsageError: the shape is unknown, or an exponential one should begin at 0 or change sign.
    """

    peak: float
    total: int
    start: float = 0.0
    shape: Literal["linear", "cosine", "exponential"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("shape", self.shape, ("linear", "cosine", "exponential"))
        if self.shape == "exponential":
            refuse_zero(self.peak, self.start)

    def value(self, t: Floats) -> Floats:
        """On the way up."""
        return cooled(self.shape, self.start, self.peak, t / self.total)
