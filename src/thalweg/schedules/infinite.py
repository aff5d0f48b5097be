"""The infinite schedule: warm-up, cooldown to a constant rate that may be held forever, annealing when a model is wanted.

    s(t) = peak t / W                                                             t < W
         = constant + (peak - constant) (1 + cos(pi z)) / 2                       z = (t - W) / C,  cosine
         = peak + (constant - peak) g(z) / g(1),  g(z) = 1 / sqrt(1 + 10 z) - 1   or inverse square root
         = constant                                                               W + C <= t < T - A
         = constant (final / constant)^((t - (T - A)) / A)                        T - A <= t <= T

Ibrahim et al., "Simple and Scalable Strategies to Continually Pre-train Large Language Models" (2024), which proposes
it, and Singh et al., "Beyond Cosine Decay" (2025). The formulas are those of the code of both, with its time scale of 10.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import cooled, refuse_zero, rising
from thalweg.schedules.shape import Floats, Length, Schedule, one_of, piecewise, steps_of

CARD = Card(
    name="infinite",
    kind="schedule",
    summary="Warm-up, cooldown to a constant rate without an end, and annealing when a model is wanted.",
    papers=(5, 13),
    formula="peak t / W;  to constant over C;  constant;  constant (final / constant)^((t - (T - A)) / A)",
    symbols={"W": "steps of warm-up", "C": "steps of cooldown", "A": "steps of annealing", "T": "total"},
    options={
        "cooldown": "steps or share; with shape 'cosine' (default) or 'inverse_sqrt'",
        "anneal": "steps or share; 0, so that the constant phase goes on and no total is needed",
        "final": "the last value; a tenth of the constant",
    },
)
_TIMESCALE = 10.0


@dataclass(frozen=True, kw_only=True, repr=False)
class Infinite(Schedule):
    """Four phases, of which the third has no end unless there is a fourth.

    Attributes:
        peak: the highest value.
        constant: the value held.
        warmup: steps, or share of the total, from 0 to the peak.
        cooldown: steps, or share of the total, from the peak to the constant.
        anneal: steps, or share of the total, from the constant to ``final``.
        shape: of the cooldown.
        final: the value at ``total`` where there is an annealing; a tenth of the constant by default.

    Raises:
        UsageError: the phases are longer than the total, an annealing has no total, or a value can't be used.
    """

    peak: float
    constant: float
    warmup: Length = 0
    cooldown: Length = 0
    anneal: Length = 0
    shape: Literal["cosine", "inverse_sqrt"] = "cosine"
    final: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("shape", self.shape, ("cosine", "inverse_sqrt"))
        up, down, last = self.phases
        if last and self.total is None:
            raise UsageError("an annealing needs a total, at which it ends")
        if self.total is not None and up + down + last > self.total:
            raise UsageError(
                f"warmup ({up} steps), cooldown ({down}) and anneal ({last}) are longer than the total of {self.total}"
            )
        if last:
            refuse_zero(self.constant, self.floor)

    @property
    def phases(self) -> tuple[int, int, int]:
        """Steps of warm-up, cooldown and annealing."""
        return (
            steps_of(self.warmup, self.total, "warmup"),
            steps_of(self.cooldown, self.total, "cooldown"),
            steps_of(self.anneal, self.total, "anneal"),
        )

    @property
    def floor(self) -> float:
        """The value the annealing ends at."""
        return 0.1 * self.constant if self.final is None else self.final

    def value(self, t: Floats) -> Floats:
        """In its phase."""
        up, down, last = self.phases
        fall = self.length - last if last else np.inf
        return piecewise(
            t,
            (0, up, up + down, fall),
            (
                lambda t: rising(0.0, self.peak, up, t),
                lambda t: self._cooling((t - up) / down),
                lambda t: self.constant,
                lambda t: cooled("exponential", self.constant, self.floor, (t - fall) / last),
            ),
        )

    def _cooling(self, z: Floats) -> Floats:
        if self.shape == "cosine":
            return cooled("cosine", self.peak, self.constant, z)
        whole = 1 / math.sqrt(1 + _TIMESCALE) - 1
        done: Floats = (1 / np.sqrt(1 + _TIMESCALE * z) - 1) / whole
        return self.peak + (self.constant - self.peak) * done
