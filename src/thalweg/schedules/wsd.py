"""Warm-up, stable, decay: a constant rate that is cooled down when the end is known.

    s(t) = start + (peak - start) t / W         0 <= t < W
         = peak                                 W <= t < T - D
         = peak f(z),  z = (t - (T - D)) / D    T - D <= t <= T

with r = final / peak and f(z) = 1 - (1 - r) z ("linear"), 1 - (1 - r) sqrt(z) ("sqrt"), r^z ("exponential"),
r + (1 - r) (1 + cos(pi z)) / 2 ("cosine").

The name and the exponential cooldown are of Hu et al., "MiniCPM" (2024); the linear one is what theory prefers (Schaipp
et al., 2025); 1 - sqrt was best in Hägele et al. (2024).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Length, Schedule, check_finite, check_total, steps_of

CARD = Card(
    name="wsd",
    kind="schedule",
    summary="Warm-up, a constant rate, and a cooldown that can be started when it is wanted.",
    papers=(11, 24),
    formula="s(t) = start + (peak - start) t / W;  peak;  peak f((t - (T - D)) / D)",
    symbols={"T": "total", "W": "steps of warm-up", "D": "steps of decay", "f": "from 1 to final / peak"},
    options={
        "decay": "steps or share of the cooldown; 0.2, past which a longer one gains little",
        "warmup": "steps or share; 0",
        "shape": "'linear' (default), 'sqrt', 'exponential', 'cosine'",
        "final": "the last value; 0, and 0.1 of the peak for 'exponential', which can't reach 0",
    },
)
Shape = Literal["linear", "sqrt", "exponential", "cosine"]
_SHAPES = ("linear", "sqrt", "exponential", "cosine")


@dataclass(frozen=True, kw_only=True, repr=False)
class WSD(Schedule):
    """Warm-up, stable, decay.

    Attributes:
        peak: the highest value.
        total: number of updates.
        warmup: of them the first, rising linearly; steps, or a share below 1.
        start: the value of the first update where there is a warm-up; 0, as in other libraries.
        decay: of them the last, falling; steps, or a share below 1.
        shape: of the fall.
        final: the value at ``total``; by default 0, and a tenth of the peak for "exponential".

    Raises:
        UsageError: warm-up and decay are longer than the total, or a value can't be used.
    """

    peak: float
    total: int
    warmup: Length = 0
    start: float = 0.0
    decay: Length = 0.2
    shape: Shape = "linear"
    final: float | None = None

    def __post_init__(self) -> None:
        check_total(self.total)
        check_finite(peak=self.peak, final=self.floor)
        if self.shape not in _SHAPES:
            raise UsageError(f"shape={self.shape!r}: it is one of {', '.join(_SHAPES)}")
        if self.shape == "exponential" and self.floor * self.peak <= 0:
            raise UsageError(f"an exponential decay from {self.peak:g} never reaches final={self.floor:g}: give one above 0")
        up, down = self.stages
        if up + down > self.total:
            raise UsageError(f"warmup ({up} steps) and decay ({down}) are longer than the total of {self.total}")

    @property
    def stages(self) -> tuple[int, int]:
        """Steps of warm-up and of decay."""
        return steps_of(self.warmup, self.total, "warmup"), steps_of(self.decay, self.total, "decay")

    @property
    def floor(self) -> float:
        """The value at the end."""
        return self.final if self.final is not None else 0.1 * self.peak if self.shape == "exponential" else 0.0

    def value(self, t: Floats) -> Floats:
        """Peak, times what is left of it."""
        up, down = self.stages
        out = np.full(t.shape, float(self.peak))
        if up:
            rising = t < up
            out[rising] = self.start + (self.peak - self.start) * t[rising] / up
        if down:
            falling = t >= self.total - down
            z = (t[falling] - (self.total - down)) / down
            out[falling] = self._falling(z)
        return out

    def _falling(self, z: Floats) -> Floats:
        top, low = float(self.peak), float(self.floor)
        if self.shape == "exponential":
            return top * (low / top) ** z
        left = {"linear": 1 - z, "sqrt": 1 - np.sqrt(z), "cosine": (1 + np.cos(np.pi * z)) / 2}[self.shape]
        return low + (top - low) * left
