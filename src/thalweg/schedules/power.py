"""A rate that falls as a power of the tokens seen, and depends on neither the total nor, for a given token, the batch.

    eta(n) = min(peak, batch a n^b),   n = t batch length, the tokens seen
    s(t) = (t / W) eta(n_W)                              t < W
         = eta(n)                                        W <= t < T - D
         = from eta(n_(T - D)) to final                  T - D <= t <= T

Shen et al., "Power Scheduler: A Batch Size and Token Number Agnostic Learning Rate Scheduler" (2024), equations 7 and 8,
with a = 4, b = -0.51 and a peak of 0.02, found with muP on small models with sequences of 4,096 tokens. The paper cools
down exponentially "to 0", which an exponential never reaches; here the cooldown is linear unless told otherwise.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import Shape, cooled, floor_of, rising
from thalweg.schedules.shape import Floats, Length, Schedule, piecewise, steps_of

CARD = Card(
    name="power",
    kind="schedule",
    summary="Falls as a power of the tokens seen, whatever the total; for models with muP.",
    papers=(1013,),
    formula="eta(n) = min(peak, batch a n^b)",
    symbols={
        "n": "tokens seen, t batch length",
        "batch": "sequences in an update",
        "length": "tokens in a sequence",
    },
    options={
        "a": "4, the paper's",
        "b": "-0.51, the paper's",
        "peak": "0.02, the paper's; a bound that matters only at the beginning",
        "decay": "steps or share of a cooldown; 0, so that no total is needed",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Power(Schedule):
    """A power of the tokens seen, with a warm-up and a cooldown.

    Attributes:
        batch: sequences in an update.
        length_of_sequence: tokens in each.
        peak: never above.
        a: amplitude.
        b: exponent, below 0.
        warmup: steps, or share of the total.
        decay: steps, or share of the total.
        shape: of the cooldown.
        final: where it ends; by default 0, and a tenth of where it begins for "exponential" and "inverse".

    Raises:
        UsageError: a cooldown has no total, warm-up and cooldown are longer than it, or a value can't be used.
    """

    batch: float
    length_of_sequence: float
    peak: float = 0.02
    a: float = 4.0
    b: float = -0.51
    warmup: Length = 0
    decay: Length = 0
    shape: Shape = "linear"
    final: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.batch, self.length_of_sequence, self.a, self.peak) <= 0 or self.b >= 0:
            raise UsageError("batch, length_of_sequence, a and peak should be above 0, and b below")
        up, down = self.stages
        if down and self.total is None:
            raise UsageError("a cooldown needs a total, at which it ends")
        if self.total is not None and up + down > self.total:
            raise UsageError(
                f"warmup ({up} steps) and decay ({down}) are longer than the total of {self.total}"
            )
        floor_of(self.shape, self.peak, self.final)

    @property
    def stages(self) -> tuple[int, int]:
        """Steps of warm-up and of cooldown."""
        return steps_of(self.warmup, self.total, "warmup"), steps_of(self.decay, self.total, "decay")

    def value(self, t: Floats) -> Floats:
        """Up, the power, down."""
        up, down = self.stages
        fall = self.length - down if down else np.inf
        return piecewise(
            t,
            (0, up, fall),
            (
                lambda t: rising(0.0, self._at(up), up, t),
                self._power,
                lambda t: self._cooling((t - fall) / down),
            ),
        )

    def _power(self, t: Floats) -> Floats:
        tokens = np.maximum(t, 1e-9) * (self.batch * self.length_of_sequence)
        return np.minimum(self.peak, self.batch * self.a * np.exp(self.b * np.log(tokens)))

    def _at(self, step: int) -> float:
        return float(self._power(np.array([step], np.float64))[0])

    def _cooling(self, z: Floats) -> Floats:
        top = self._at(self.length - self.stages[1])
        return cooled(self.shape, top, floor_of(self.shape, top, self.final), z)
