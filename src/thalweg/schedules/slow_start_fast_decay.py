"""Slow start, fast decay: for fine-tuning a trained network on a harder task.

    s(t) = start + (peak - start) (t / R)^2             t < R
         = peak (final / peak)^((t - R) / (T - R))      R <= t <= T

Jeddi et al., "A Simple Fine-tuning Is All You Need: Towards Robust Deep Learning Via Adversarial Fine-tuning" (2020),
name the strategy and its two halves. The formula is ours: a rise that is flat where it begins, so that the trained
features aren't lost at once, and a constant factor a step afterwards.
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import cooled, refuse_zero
from thalweg.schedules.shape import Floats, Length, Schedule, piecewise, steps_of

CARD = Card(
    name="slow-start-fast-decay",
    kind="schedule",
    summary="A slow rise and a fast exponential fall, for fine-tuning.",
    papers=(9,),
    formula="s(t) = start + (peak - start) (t / R)^2;  peak (final / peak)^((t - R) / (T - R))",
    symbols={"R": "steps of the rise", "T": "total"},
    options={
        "rise": "steps or share of the rise; 0.3",
        "start": "the first value; a tenth of the peak",
        "final": "the last value; a hundredth of the peak",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class SlowStartFastDecay(Schedule):
    """A square rise and an exponential fall.

    Raises:
        UsageError: the rise is the whole, or ``final`` can't be reached by a constant factor.
    """

    peak: float
    total: int
    rise: Length = 0.3
    start: float | None = None
    final: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if steps_of(self.rise, self.total, "rise") >= self.total:
            raise UsageError(f"rise={self.rise!r} leaves no step of {self.total} for the decay")
        refuse_zero(self.peak, self.floor)

    @property
    def floor(self) -> float:
        """The last value."""
        return 0.01 * self.peak if self.final is None else self.final

    def value(self, t: Floats) -> Floats:
        """Up slowly, down fast."""
        up = steps_of(self.rise, self.total, "rise")
        first = 0.1 * self.peak if self.start is None else self.start
        return piecewise(
            t,
            (0, up),
            (
                lambda t: first + (self.peak - first) * (t / up) ** 2,
                lambda t: cooled("exponential", self.peak, self.floor, (t - up) / (self.total - up)),
            ),
        )
