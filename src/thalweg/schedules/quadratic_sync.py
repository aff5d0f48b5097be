"""How many local updates between two synchronizations of the workers, from the present rate.

    H = max(least, floor((alpha / eta)^2)),   at most what is left of the run

Each round begins with the rate eta of its first update; during the warm-up H is ``least``. Gu et al., "A Quadratic
Synchronization Rule for Distributed Deep Learning" (2024), checked against the authors' published code.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Length, Schedule, steps_of

CARD = Card(
    name="qsr",
    kind="schedule",
    summary="Local updates between synchronizations, growing as the rate falls.",
    papers=(2,),
    formula="H = max(least, floor((alpha / eta)^2))",
    symbols={"H": "local updates of a round", "eta": "rate of its first update"},
    cost="one pass in Python over the rounds at the first call: 0.5 s for a million",
    options={
        "alpha": "to be tuned: at the rate alpha a round has one update, at alpha / 10 a hundred",
        "least": "smallest number of local updates; 4 in most of the paper's runs",
        "warmup": "steps, or share, with the least number; those of the rate's warm-up",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class QuadraticSync(Schedule):
    """The length of the round that an update is in; `ends` are the updates after which to average.

    Attributes:
        rate: the schedule of the rate, with an end.
        alpha: the larger, the longer the rounds.
        least: smallest number of local updates.
        warmup: steps, or share of the total, in which H is ``least``.

    Raises:
        UsageError: the rate has no end, or a value can't be used.
    """

    rate: Schedule
    alpha: float
    least: int = 4
    warmup: Length = 0
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "total", self.rate.length)
        if self.alpha <= 0 or self.least < 1:
            raise UsageError(f"alpha={self.alpha:g} should be above 0, and least={self.least} at least 1")
        steps_of(self.warmup, self.total, "warmup")

    @cached_property
    def _rounds(self) -> tuple[NDArray[np.intp], Floats]:
        """The step at which each round begins, and its length; [rounds] each."""
        with np.errstate(divide="ignore", over="ignore"):
            wanted = np.floor((self.alpha / self.rate.values()) ** 2)
        wanted[: steps_of(self.warmup, self.total, "warmup")] = self.least
        lengths = np.clip(wanted, self.least, self.length).astype(np.intp).tolist()
        starts, at = [], 0
        while at < self.length:
            starts.append(at)
            at += lengths[at]
        return np.array(starts), np.diff(starts, append=self.length).astype(np.float64)

    def ends(self) -> NDArray[np.intp]:
        """The updates (from 0) after which the workers are averaged, [rounds]; the last is the run's last."""
        return np.append(self._rounds[0][1:], self.length) - 1

    def value(self, t: Floats) -> Floats:
        """Updates in the round of each step."""
        starts, lengths = self._rounds
        return lengths[np.searchsorted(starts, t, side="right") - 1]
