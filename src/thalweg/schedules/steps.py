"""A factor at given steps: the staircase.

s(t) = peak factor^(number of milestones <= t)
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, all_checked

CARD = Card(
    name="steps",
    kind="schedule",
    summary="A factor at given steps: the staircase.",
    formula="s(t) = peak factor^(number of milestones <= t)",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Steps(Schedule):
    """A staircase.

    Attributes:
        peak: the first value.
        milestones: steps at which it is multiplied by ``factor``, increasing; or
        every: a step all so many steps.
        factor: 0.1.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    milestones: tuple[int, ...] = ()
    every: int | None = None
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "milestones", all_checked("Steps", "milestones", self.milestones, {int}))
        if bool(self.milestones) == (self.every is not None):
            raise UsageError("give milestones or every, one of them")
        if (np.diff((-1, *self.milestones)) <= 0).any() or (self.every is not None and self.every < 1):
            raise UsageError("milestones should increase from 0, and every be at least 1")

    def value(self, t: Floats) -> Floats:
        """peak factor^(stairs taken)."""
        if self.every:
            return self.peak * self.factor ** np.floor(t / self.every)
        heights = self.peak * self.factor ** np.arange(len(self.milestones) + 1, dtype=np.float64)
        return heights[np.searchsorted(self.milestones, t, side="right")]
