"""The same value at every step."""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.schedules.shape import Floats, Schedule

CARD = Card(
    name="constant",
    kind="schedule",
    summary="The same value at every step; the control, and the trunk from which cooldowns are branched.",
    formula="s(t) = peak",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Constant(Schedule):
    """The value ``peak``, with or without an end.

    Raises:
        UsageError: it isn't finite, or the total is no positive whole number.
    """

    peak: float

    def value(self, t: Floats) -> Floats:
        """The peak."""
        return np.full(t.shape, self.peak)
