"""A rate that goes up and down between two bounds.

    c = floor(1 + t / (2 h)),   x = |t / h - 2 c + 1|,   s(t) = low + (high - low) max(0, 1 - x) k

with k = 1 ("triangular"), 2^-(c - 1) ("triangular2"), gamma^t ("exp_range"), and h the steps of half a cycle. Smith,
"Cyclical Learning Rates for Training Neural Networks" (2017).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, one_of

CARD = Card(
    name="cyclical",
    kind="schedule",
    summary="Up and down between two bounds: triangular, triangular2, exp_range.",
    papers=(27,),
    formula="s(t) = low + (high - low) max(0, 1 - |t / h - 2 c + 1|) k;  c = floor(1 + t / (2 h))",
    symbols={"h": "steps of half a cycle", "k": "1, 2^-(c-1) or gamma^t"},
    options={"gamma": "of exp_range, per step; 0.99994, the paper's"},
)
Mode = Literal["triangular", "triangular2", "exp_range"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Cyclical(Schedule):
    """Triangles between ``low`` and ``high``.

    Attributes:
        low: the lower bound, where it begins.
        high: the upper bound.
        half: steps from one to the other; the paper advises 2 to 10 epochs.
        mode: "triangular", "triangular2" (each cycle half as high) or "exp_range".
        gamma: of "exp_range".

    Raises:
        UsageError: a value can't be used.
    """

    low: float
    high: float
    half: int
    mode: Mode = "triangular"
    gamma: float = 0.99994

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.half < 1:
            raise UsageError(f"half={self.half!r}: half a cycle takes at least one step")
        if self.gamma <= 0:
            raise UsageError(f"gamma={self.gamma} should be above 0")
        one_of("mode", self.mode, ("triangular", "triangular2", "exp_range"))

    def value(self, t: Floats) -> Floats:
        """On its triangle."""
        cycle = np.floor(1 + t / (2 * self.half))
        x = np.abs(t / self.half - 2 * cycle + 1)
        up: Floats = (self.high - self.low) * np.maximum(0.0, 1 - x)
        if self.mode == "triangular2":
            up *= np.exp2(1 - cycle)
        elif self.mode == "exp_range":
            up *= np.exp(np.log(self.gamma) * t)
        return self.low + up
