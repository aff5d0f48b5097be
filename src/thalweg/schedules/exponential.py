"""A constant factor a step.

    s(t) = peak decay^t

To reach a given value at T, decay = (final / peak)^(1 / T).
"""

import math
from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule

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
        super().__post_init__()
        if self.decay <= 0:
            raise UsageError(f"decay={self.decay!r} should be above 0")

    def value(self, t: Floats) -> Floats:
        """peak decay^t."""
        out: Floats = np.exp(math.log(self.decay) * t)
        out *= self.peak
        return out
