"""A profile and a sampling rate: another schedule, read only every so many steps, or at given milestones.

    s(t) = p(k floor(t / k)),   or p(the last milestone that is not later than t)

Chen et al., "REX: Revisiting Budgeted Training with an Improved Schedule" (2022), describe every schedule as a profile p,
a function of the share of the run, with a sampling rate. The usual staircase is a profile sampled at few milestones.
"""

from dataclasses import dataclass, field

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Length, Schedule, all_checked, steps_of

CARD = Card(
    name="sampled",
    kind="schedule",
    summary="Another schedule, read only every so many steps or at milestones.",
    papers=(15,),
    formula="s(t) = p(k floor(t / k))",
    symbols={"p": "the profile: any schedule", "k": "steps from one sample to the next"},
    options={
        "every": "steps or share between samples",
        "at": "steps or shares at which it is sampled, from 0 on",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Sampled(Schedule):
    """A schedule that changes only where it is sampled; before the first milestone it has its first value.

    Attributes:
        profile: any schedule.
        every: steps from one sample to the next, or a share of the total; or
        at: the milestones, steps or shares, ascending.

    Raises:
        UsageError: neither or both are given, or the milestones don't ascend.
    """

    profile: Schedule
    every: Length | None = None
    at: tuple[Length, ...] = ()
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "total", self.profile.total)
        object.__setattr__(self, "at", all_checked("Sampled", "at", self.at, {int, float}))
        if bool(self.at) == (self.every is not None):
            raise UsageError("give every or at, one of them")
        if self.every is not None and steps_of(self.every, self.total, "every") < 1:
            raise UsageError(f"every={self.every!r} is less than a step")
        if (np.diff([0, *self.milestones]) < 0).any():
            raise UsageError(f"at={self.at!r} should ascend")

    @property
    def milestones(self) -> list[int]:
        """The steps of ``at``."""
        return [steps_of(at, self.total, "at") for at in self.at]

    def value(self, t: Floats) -> Floats:
        """The profile where it was last sampled."""
        if self.every is not None:
            step = steps_of(self.every, self.total, "every")
            return self.profile(step * np.floor(t / step))
        stairs = np.array([0, *self.milestones], np.float64)
        return self.profile(stairs)[np.searchsorted(stairs, t, side="right") - 1]
