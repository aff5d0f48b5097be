"""Half a cosine from the peak to its end, after an optional linear warm-up.

    s(t) = start + (peak - start) t / W                              t < W
         = final + (peak - final) (1 + cos(pi (t - W) / (T - W))) / 2   W <= t <= T

The cycle without restarts of Loshchilov and Hutter, "SGDR" (2017).
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import cooled, rising
from thalweg.schedules.shape import Floats, Length, Schedule, piecewise, steps_of

CARD = Card(
    name="cosine",
    kind="schedule",
    summary="Half a cosine from the peak to its end, after a linear warm-up.",
    papers=(184,),
    formula="s(t) = final + (peak - final) (1 + cos(pi (t - W) / (T - W))) / 2",
    symbols={"T": "total", "W": "steps of warm-up"},
    options={"warmup": "steps or share; 0", "final": "the value at T; 0"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Cosine(Schedule):
    """Half a cosine from ``peak`` to ``final``.

    Attributes:
        peak: the highest value.
        total: number of updates.
        warmup: of them the first, rising linearly from ``start``; steps, or a share below 1.
        start: the value of the first update where there is a warm-up.
        final: the value at ``total``.

    Raises:
        UsageError: a value can't be used, or the warm-up is the whole.
    """

    peak: float
    total: int
    warmup: Length = 0
    start: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if steps_of(self.warmup, self.total, "warmup") >= self.total:
            raise UsageError(f"warmup={self.warmup!r} leaves no step of {self.total} for the decay")

    def value(self, t: Floats) -> Floats:
        """Warm-up, then the cosine."""
        up = steps_of(self.warmup, self.total, "warmup")
        return piecewise(
            t,
            (0, up),
            (
                lambda t: rising(self.start, self.peak, up, t),
                lambda t: cooled("cosine", self.peak, self.final, (t - up) / (self.total - up)),
            ),
        )
