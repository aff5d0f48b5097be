"""Falling like one over the root of the step, after a linear warm-up; without an end.

    s(t) = peak t / W                                t < W
         = peak sqrt(tau / (t + tau - W))            t >= W,     tau = W unless given

The decay of Vaswani et al., "Attention Is All You Need" (2017), as Transformers has it.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import rising
from thalweg.schedules.shape import Floats, Schedule, piecewise

CARD = Card(
    name="inverse-sqrt",
    kind="schedule",
    summary="Falls like one over the root of the step, after a linear warm-up; it has no end.",
    papers=(1014,),
    formula="s(t) = peak sqrt(tau / (t + tau - W))",
    symbols={"W": "steps of warm-up", "tau": "time scale in steps; W, or 10,000 without a warm-up"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class InverseSqrt(Schedule):
    """Inverse square root decay.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    warmup: int = 0
    timescale: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < 0 or (self.timescale is not None and self.timescale < 1):
            raise UsageError("warmup is at least 0 and timescale at least 1 step")

    def value(self, t: Floats) -> Floats:
        """Warm-up, then the decay."""
        tau = self.timescale or self.warmup or 10_000
        return piecewise(
            t,
            (0, self.warmup),
            (
                lambda t: rising(0.0, self.peak, self.warmup, t),
                lambda t: self.peak / np.sqrt((t + (tau - self.warmup)) / tau),
            ),
        )
