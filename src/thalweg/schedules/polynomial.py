"""A power of what is left, after an optional linear warm-up; power 1 is the linear decay.

s(t) = final + (peak - final) (1 - (t - W) / (T - W))^p
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import rising
from thalweg.schedules.shape import Floats, Length, Schedule, piecewise, steps_of

CARD = Card(
    name="polynomial",
    kind="schedule",
    summary="A power of what is left of the run, after a linear warm-up.",
    formula="s(t) = final + (peak - final) (1 - (t - W) / (T - W))^p",
    symbols={"T": "total", "W": "steps of warm-up", "p": "power"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Polynomial(Schedule):
    """Polynomial decay.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    total: int
    power: float = 1.0
    final: float = 0.0
    warmup: Length = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.power <= 0 or steps_of(self.warmup, self.total, "warmup") >= self.total:
            raise UsageError(
                f"power={self.power!r} should be above 0, and the warm-up shorter than the total"
            )

    def value(self, t: Floats) -> Floats:
        """Warm-up, then the power."""
        up = steps_of(self.warmup, self.total, "warmup")
        return piecewise(
            t,
            (0, up),
            (
                lambda t: rising(0.0, self.peak, up, t),
                lambda t: (
                    self.final + (self.peak - self.final) * (1 - (t - up) / (self.total - up)) ** self.power
                ),
            ),
        )
