"""The temperature of sampling from data sets of unequal sizes, hot at first and cold later.

    p_d proportional to |D_d|^(1 / tau(t)),   tau = hot before the switch, cold from it on

At tau = 1 each example is as likely as any other; as tau grows, each data set is. Li et al., "Upsample or Upweight?
Balanced Training on Heavily Imbalanced Datasets" (2024), lower it during training ("Cooldown") to learn fast from
small data sets and not overfit to them; 5 is the temperature multilingual models are commonly sampled with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Length, Schedule, one_of, piecewise, steps_of

CARD = Card(
    name="sampling-temperature",
    kind="schedule",
    summary="A temperature for sampling from data sets of unequal sizes that falls during the run.",
    papers=(280,),
    formula="p_d ~ |D_d|^(1 / tau);  tau = hot, then cold",
    symbols={"|D_d|": "size of data set d", "tau": "the temperature"},
    options={
        "hot": "5",
        "cold": "1: every example is as likely",
        "switch": "step or share; 0.5. How early small data sets are overfitted decides, so tune it",
        "shape": "'step' (default, as in the paper) or 'linear', which reaches cold at the switch",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class SamplingTemperature(Schedule):
    """The temperature; `shares` is what to sample with.

    Raises:
        UsageError: a temperature is not above 0, or a value can't be used.
    """

    total: int
    hot: float = 5.0
    cold: float = 1.0
    switch: Length = 0.5
    shape: Literal["step", "linear"] = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hot, self.cold) <= 0:
            raise UsageError(f"temperatures should be above 0, not hot={self.hot:g} and cold={self.cold:g}")
        one_of("shape", self.shape, ("step", "linear"))
        steps_of(self.switch, self.total, "switch")

    def value(self, t: Floats) -> Floats:
        """Hot, then cold."""
        change = steps_of(self.switch, self.total, "switch")
        slope = (self.cold - self.hot) / max(1, change) if self.shape == "linear" else 0.0
        return piecewise(t, (0, change), (lambda t: self.hot + slope * t, lambda t: self.cold))

    def shares(self, sizes: Sequence[float], step: int) -> Floats:
        """The probability of each data set [n] at a step, from their sizes [n].

        Raises:
            UsageError: a size is not above 0.
        """
        logs = np.asarray(sizes, np.float64)
        if not (logs > 0).all() or not np.isfinite(logs).all():
            raise UsageError("sizes should be numbers above 0")
        logs = np.log(logs) / self(step)
        weights: Floats = np.exp(logs - logs.max())
        weights /= weights.sum()
        return weights
