"""Re-warming and re-decaying: for each new data set the rate rises again, and falls as on the first.

On stage i, with u steps since its beginning, of N_i in all:

    s = from + (again - from) u / W_i                                       u < W_i
      = final + (again - final) (1 + cos(pi (u - W_i) / (N_i - W_i))) / 2   else

where ``from`` is 0 for the first stage and ``final`` for the others, and ``again`` is ``peak`` for the first. Gupta et
al., "Continual Pre-Training of Large Language Models: How to (re)warm your model?" (2023) and Ibrahim et al., "Simple
and Scalable Strategies to Continually Pre-train Large Language Models" (2024).
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import cooled, rising
from thalweg.schedules.shape import Floats, Length, Schedule, all_checked, piecewise, steps_of

CARD = Card(
    name="rewarm-redecay",
    kind="schedule",
    summary="A warm-up and a cosine decay for each data set in turn.",
    papers=(13, 30),
    formula="s = from + (again - from) u / W;  final + (again - final) (1 + cos(pi (u - W) / (N - W))) / 2",
    symbols={"u": "steps since the data set began", "N": "steps on it", "W": "of them the warm-up"},
    options={
        "warmup": "steps, or share of each stage; 0.01: its length made no difference in the papers",
        "again": "the peak after the first stage; the same by default",
        "final": "where each stage ends; a tenth of the peak, as in the papers",
        "first": "the first value: that of the checkpoint's end when its own stage is not in this schedule; 0",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class RewarmRedecay(Schedule):
    """One cosine cycle with a warm-up for each data set.

    Attributes:
        peak: the highest value of the first stage.
        stages: number of updates on each data set, in order; their sum is the total.
        warmup: steps, or share of each stage.
        again: the highest value of the later stages; ``peak`` by default.
        final: the value at the end of each stage; a tenth of the peak by default.
        first: the value of the first update.

    Raises:
        UsageError: there is no stage, or one has no step left after its warm-up.
    """

    peak: float
    stages: tuple[int, ...]
    warmup: Length = 0.01
    again: float | None = None
    final: float | None = None
    first: float = 0.0
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stages = all_checked("RewarmRedecay", "stages", self.stages, {int})
        if not stages or min(stages) < 1:
            raise UsageError(f"stages={stages!r} should be numbers of updates, each at least 1")
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "total", sum(stages))
        super().__post_init__()
        for n in self.stages:
            if steps_of(self.warmup, n, "warmup") >= n:
                raise UsageError(f"warmup={self.warmup!r} leaves no step of a stage of {n} for the decay")

    def value(self, t: Floats) -> Floats:
        """Within its stage."""
        low = 0.1 * self.peak if self.final is None else self.final
        starts, parts, begin = [], [], 0
        for place, n in enumerate(self.stages):
            up = steps_of(self.warmup, n, "warmup")
            top = self.peak if place == 0 or self.again is None else self.again
            starts += [begin, begin + up]
            parts += [
                partial(_rise, begin, low if place else self.first, top, up),
                partial(_fall, begin + up, top, low, n - up),
            ]
            begin += n
        return piecewise(t, starts, parts)

    @property
    def switches(self) -> list[int]:
        """The steps at which the data change."""
        return list(accumulate(self.stages[:-1]))


def _rise(begin: int, low: float, top: float, up: int, t: Floats) -> Floats:
    return rising(low, top, up, t - begin)


def _fall(begin: int, top: float, low: float, down: int, t: Floats) -> Floats:
    return cooled("cosine", top, low, (t - begin) / down)
