"""Warm-up, stable, decay: a constant rate that is cooled down when the end is known.

    s(t) = start + (peak - start) t / W         0 <= t < W
         = peak                                 W <= t < T - D
         = f(z),  z = (t - (T - D)) / D         T - D <= t <= T

with f from ``peak`` to ``final`` in one of the shapes of `thalweg.schedules.cooling`.

The name and the exponential cooldown are of Hu et al., "MiniCPM" (2024); the linear one is what theory prefers (Schaipp
et al., 2025); 1 - sqrt was best in Hägele et al. (2024).
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import Shape, cooled, floor_of, rising
from thalweg.schedules.shape import Floats, Length, Schedule, piecewise, steps_of

CARD = Card(
    name="wsd",
    kind="schedule",
    summary="Warm-up, a constant rate, and a cooldown that can be started when it is wanted.",
    papers=(11, 24, 1011),
    formula="s(t) = start + (peak - start) t / W;  peak;  f((t - (T - D)) / D)",
    symbols={"T": "total", "W": "steps of warm-up", "D": "steps of decay", "f": "from peak to final"},
    options={
        "decay": "steps or share of the cooldown; 0.2, past which a longer one gains little",
        "warmup": "steps or share; 0",
        "shape": "'linear' (default), 'sqrt', 'exponential', 'cosine', 'inverse'",
        "final": "the last value; 0, and 0.1 of the peak for 'exponential' and 'inverse', which can't reach 0",
    },
)


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
        final: the value at ``total``; by default 0, and a tenth of the peak for "exponential" and "inverse".

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
        super().__post_init__()
        floor_of(self.shape, self.peak, self.final)
        up, down = self.stages
        if up + down > self.total:
            raise UsageError(
                f"warmup ({up} steps) and decay ({down}) are longer than the total of {self.total}"
            )

    @property
    def stages(self) -> tuple[int, int]:
        """Steps of warm-up and of decay."""
        return steps_of(self.warmup, self.total, "warmup"), steps_of(self.decay, self.total, "decay")

    def value(self, t: Floats) -> Floats:
        """Up, level, down."""
        up, down = self.stages
        fall = self.total - down
        low = floor_of(self.shape, self.peak, self.final)
        return piecewise(
            t,
            (0, up, fall if down else self.total + 1),
            (
                lambda t: rising(self.start, self.peak, up, t),
                lambda t: self.peak,
                lambda t: cooled(self.shape, self.peak, low, (t - fall) / down),
            ),
        )
