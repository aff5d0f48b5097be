"""One cycle: up to a large rate, down again, and far below the first; momentum the other way round.

    s(t) = peak / divide  ->  peak               0 <= t <= R
         = peak           ->  final              R <= t <= T - 1

along half a cosine or a line; with three phases back to peak / divide by 2 R - 1, then to final. R = rise T - 1, as in
torch. Smith and Topin, "Super-Convergence" (2019), and Smith, "A disciplined approach" (2018).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, check_finite, check_total

CARD = Card(
    name="one-cycle",
    kind="schedule",
    summary="Up to a large rate, down again, and far below; its momentum goes the other way.",
    papers=(6, 253),
    formula="peak / divide -> peak over R steps -> final;  momentum: high -> low -> high",
    symbols={"R": "rise T - 1", "T": "total"},
    options={
        "rise": "share of the steps going up; 0.3",
        "divide": "peak over first value; 25",
        "final_divide": "first over last value; 1e4",
        "shape": "'cosine' (default, as in torch) or 'linear' (as in the paper)",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class OneCycle(Schedule):
    """The rate of one cycle; `momentum` is what goes with it.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    total: int
    rise: float = 0.3
    divide: float = 25.0
    final_divide: float = 1e4
    shape: Literal["cosine", "linear"] = "cosine"
    three_phase: bool = False

    def __post_init__(self) -> None:
        check_total(self.total)
        check_finite(peak=self.peak, divide=self.divide, final_divide=self.final_divide)
        if not 0 < self.rise < (0.5 if self.three_phase else 1) or self.divide <= 0 or self.final_divide <= 0:
            raise UsageError("rise is a share below 1 (below 0.5 with three phases); divide and final_divide are above 0")
        if self.shape not in ("cosine", "linear"):
            raise UsageError(f"shape={self.shape!r}: it is 'cosine' or 'linear'")

    def momentum(self, high: float = 0.95, low: float = 0.85) -> Schedule:
        """From ``high`` to ``low`` while the rate rises, and back while it falls."""
        return _Inverse(of=self, high=high, low=low, total=self.total)

    def corners(self, first: float, top: float, last: float) -> tuple[list[float], list[float]]:
        """Steps and values between which it moves."""
        up = self.rise * self.total - 1
        if self.three_phase:
            return [0, up, 2 * up, self.total - 1], [first, top, first, last]
        return [0, up, self.total - 1], [first, top, last]

    def along(self, t: Floats, steps: list[float], values: list[float]) -> Floats:
        """Between corners, on half cosines or lines."""
        if self.shape == "linear":
            return np.interp(t, steps, values)
        x, y = np.asarray(steps), np.asarray(values)
        at = np.clip(np.searchsorted(x, t, side="right") - 1, 0, len(x) - 2)
        z = np.clip((t - x[at]) / np.maximum(x[at + 1] - x[at], 1e-300), 0, 1)
        return y[at + 1] + (y[at] - y[at + 1]) * (1 + np.cos(np.pi * z)) / 2

    def value(self, t: Floats) -> Floats:
        """Up, down, and far below."""
        first = self.peak / self.divide
        return self.along(t, *self.corners(first, self.peak, first / self.final_divide))


@dataclass(frozen=True, kw_only=True, repr=False)
class _Inverse(Schedule):
    of: OneCycle
    high: float
    low: float

    def value(self, t: Floats) -> Floats:
        return self.of.along(t, *self.of.corners(self.high, self.low, self.high))
