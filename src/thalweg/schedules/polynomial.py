"""A power of what is left, after an optional linear warm-up; power 1 is the linear decay.

    s(t) = final + (peak - final) (1 - (t - W) / (T - W))^p
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Length, Schedule, check_finite, check_total, steps_of

CARD = Card(
    name="polynomial",
    kind="schedule",
    summary="A power of what is left of the run, after a linear warm-up.",
    formula="s(t) = final + (peak - final) (1 - (t - W) / (T - W))^p",
    symbols={"T": "total", "W": "steps of warm-up", "p": "power"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Polynomial(Schedule):
    """Polynomial decay.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    total: int
    power: float = 1.0
    final: float = 0.0
    warmup: Length = 0

    def __post_init__(self) -> None:
        check_total(self.total)
        check_finite(peak=self.peak, power=self.power, final=self.final)
        if self.power <= 0 or steps_of(self.warmup, self.total, "warmup") >= self.total:
            raise UsageError(f"power={self.power!r} should be above 0, and the warm-up shorter than the total")

    def value(self, t: Floats) -> Floats:
        """Warm-up, then the power."""
        up = steps_of(self.warmup, self.total, "warmup")
        left = 1 - np.maximum(t - up, 0) / (self.total - up)
        out = self.final + (self.peak - self.final) * left**self.power
        return np.where(t < up, self.peak * t / max(1, up), out)
