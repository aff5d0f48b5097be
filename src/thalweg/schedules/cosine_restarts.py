"""Cosine decays with warm restarts, each ``growth`` times as long as the one before.

    s(t) = final + (peak - final) (1 + cos(pi u / T_i)) / 2,     T_0 = period, T_(i+1) = growth T_i

with u the steps since the last restart. Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
(2017); the model at the end of a cycle, just before a restart, is the one to take.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule

CARD = Card(
    name="cosine-restarts",
    kind="schedule",
    summary="Cosine decays with warm restarts and a growing period (SGDR).",
    papers=(184,),
    formula="s(t) = final + (peak - final) (1 + cos(pi u / T_i)) / 2;  T_(i+1) = growth T_i",
    symbols={"u": "steps since the last restart", "T_i": "length of cycle i, in steps"},
    options={"growth": "a whole number, as in the paper; 2"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class CosineRestarts(Schedule):
    """Cosine with restarts after ``period``, ``period * growth``, ... steps.

    Attributes:
        peak: the value at each restart.
        period: length of the first cycle, in steps.
        growth: how many times as long each next cycle is.
        final: the value each cycle ends at.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    period: int
    growth: int = 2
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period < 1 or self.growth < 1:
            raise UsageError(f"period={self.period} and growth={self.growth} are whole numbers of at least 1")

    def cycle(self, t: Floats) -> tuple[Floats, Floats]:
        """Steps since the last restart, and the length of the cycle, at each step."""
        if self.growth == 1:
            return t % self.period, np.full(t.shape, float(self.period))
        ends = [0]
        while ends[-1] <= t.max(initial=0):
            ends.append(ends[-1] + self.period * self.growth ** (len(ends) - 1))
        at = np.searchsorted(ends, t, side="right") - 1
        starts = np.array(ends, np.float64)
        return t - starts[at], np.diff(starts)[at]

    def value(self, t: Floats) -> Floats:
        """Within its cycle."""
        since, length = self.cycle(t)
        return self.final + (self.peak - self.final) * (1 + np.cos(np.pi * since / length)) / 2
