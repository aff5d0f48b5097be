"""WSD-S: one run with several cooldowns, each of which ends in a usable model and is not thrown away.

    stage i holds the peak, falls over its last D_i steps, and the next stage goes on from there at the peak at once:
    s(t) = peak                                          up to e_i - D_i
         = 1 / (1 / peak + (1 / final - 1 / peak) z)     z = (t - (e_i - D_i)) / D_i,  up to the end e_i

Wen et al., "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective" (2024); the
inverse shape of the fall, a tenth of each stage and the tenth of the peak as in the authors' Levanter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from numpy.typing import ArrayLike

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import Shape, cooled, floor_of, rising
from thalweg.schedules.shape import Floats, Length, Schedule, all_checked, piecewise, steps_of

CARD = Card(
    name="wsd-s",
    kind="schedule",
    summary="Several cooldowns in one run, going on at the peak after each.",
    papers=(1012,),
    formula="s(t) = peak;  1 / (1 / peak + (1 / final - 1 / peak) z) over the last D steps of each stage",
    symbols={"z": "share of the cooldown that is done", "D": "steps of a stage's cooldown"},
    options={
        "ends": "steps at which a model is wanted; the last is the total",
        "decay": "steps, or share of each stage; 0.1",
        "shape": "'inverse' (default, the paper's), 'linear', 'sqrt', 'exponential', 'cosine'",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class WSDS(Schedule):
    """Warm-up, and stages that each end in a cooldown.

    Attributes:
        peak: the highest value.
        ends: steps at which the stages end, ascending; the last is the total.
        warmup: steps, or share of the first stage, rising linearly from 0.
        decay: steps, or share of each stage.
        shape: of the fall.
        final: the value at each end; by default 0, and a tenth of the peak for "exponential" and "inverse".

    Raises:
        UsageError: the ends don't ascend, or a stage is shorter than its warm-up and decay.
    """

    peak: float
    ends: tuple[int, ...]
    warmup: Length = 0
    decay: Length = 0.1
    shape: Shape = "inverse"
    final: float | None = None
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ends = all_checked("WSDS", "ends", self.ends, {int})
        if not ends or any(b <= a for a, b in zip((0, *ends), ends, strict=False)):
            raise UsageError(
                f"ends={ends!r} should be whole numbers of steps above 0, each above the one before"
            )
        object.__setattr__(self, "ends", ends)
        object.__setattr__(self, "total", ends[-1])
        super().__post_init__()
        floor_of(self.shape, self.peak, self.final)
        if self.up + self.falls[0][1] > ends[0]:
            raise UsageError(
                f"the first stage, of {ends[0]} steps, is shorter than its warm-up and its decay"
            )

    @property
    def up(self) -> int:
        """Steps of warm-up."""
        return steps_of(self.warmup, self.ends[0], "warmup")

    @property
    def falls(self) -> list[tuple[int, int]]:
        """(first step, steps) of each cooldown."""
        downs = [
            steps_of(self.decay, b - a, "decay") for a, b in zip((0, *self.ends), self.ends, strict=False)
        ]
        return [(end - down, down) for end, down in zip(self.ends, downs, strict=True)]

    def value(self, t: Floats) -> Floats:
        """Up, then level and down in turns."""
        low = floor_of(self.shape, self.peak, self.final)
        starts: list[float] = [0, self.up]
        parts: list[Callable[[Floats], ArrayLike]] = [partial(rising, 0.0, self.peak, self.up), self._level]
        for (first, down), end in zip(self.falls, self.ends, strict=True):
            starts += [first, end]
            parts += [partial(self._fall, low, first, down), self._level]
        if self.falls[-1][1]:  # the end itself belongs to the last cooldown
            starts, parts = starts[:-1], parts[:-1]
        return piecewise(t, starts, parts)

    def _level(self, t: Floats) -> float:
        return self.peak

    def _fall(self, low: float, first: int, down: int, t: Floats) -> Floats:
        return cooled(self.shape, self.peak, low, (t - first) / down)
