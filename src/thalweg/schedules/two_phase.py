"""Two phases with a switch of the data: a slow decay on broad data, then a short rise and a fast decay on good data.

    s(t) = middle + (peak - middle) (1 + cos(pi t / S)) / 2      t < S, after an optional warm-up
         = middle + (again - middle) (t - S) / R                 S <= t < S + R
         = again (final / again)^((t - S - R) / (T - S - R))     S + R <= t <= T

The recipe of Glorioso et al., "Zamba: A Compact 7B SSM Hybrid Model" (2024): web data first, then annealing on instruct
and synthetic data with a rapid decay. The abstract says so much; shapes and shares here are ours.
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import cooled, refuse_zero, rising
from thalweg.schedules.joining import from_table
from thalweg.schedules.shape import Floats, Length, Schedule, piecewise, steps_of

CARD = Card(
    name="two-phase",
    kind="schedule",
    summary="A slow decay on broad data, then a short rise and a fast decay on good data.",
    papers=(1,),
    formula="cosine from peak to middle over S;  to again over R;  again (final / again)^z",
    symbols={
        "S": "step of the switch",
        "R": "steps of the rise",
        "z": "share of the second decay that is done",
    },
    options={
        "switch": "step or share at which the data change; 0.9",
        "middle": "where the first phase ends; a tenth of the peak",
        "again": "where the second phase begins to decay; half the peak",
        "rewarm": "steps, or share of the total, of the rise; 0.01",
        "final": "the last value; a hundredth of the peak",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class TwoPhase(Schedule):
    """Cosine, a rise, and an exponential decay; `data` is the schedule of the mixture that goes with it.

    Raises:
        UsageError: a phase has no step left, or ``final`` can't be reached by a constant factor.
    """

    peak: float
    total: int
    switch: Length = 0.9
    warmup: Length = 0
    middle: float | None = None
    again: float | None = None
    rewarm: Length = 0.01
    final: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        up, change, rise = self.phases
        if up >= change or change + rise >= self.total:
            raise UsageError(
                f"a warm-up of {up} steps, a switch at {change} and a rise of {rise} leave no step of {self.total} "
                "for one of the decays"
            )
        refuse_zero(*self.levels[1:])

    @property
    def phases(self) -> tuple[int, int, int]:
        """Steps of the warm-up, step of the switch, steps of the rise after it."""
        return (
            steps_of(self.warmup, self.total, "warmup"),
            steps_of(self.switch, self.total, "switch"),
            steps_of(self.rewarm, self.total, "rewarm"),
        )

    @property
    def levels(self) -> tuple[float, float, float]:
        """Where the first phase ends, and where the second begins to decay and ends."""
        given = ((self.middle, 0.1), (self.again, 0.5), (self.final, 0.01))
        middle, again, final = (part * self.peak if value is None else value for value, part in given)
        return middle, again, final

    def value(self, t: Floats) -> Floats:
        """In its phase."""
        up, change, rise = self.phases
        middle, again, final = self.levels
        down = change + rise
        return piecewise(
            t,
            (0, up, change, down),
            (
                lambda t: rising(0.0, self.peak, up, t),
                lambda t: cooled("cosine", self.peak, middle, (t - up) / (change - up)),
                lambda t: rising(middle, again, rise, t - change),
                lambda t: cooled("exponential", again, final, (t - down) / (self.total - down)),
            ),
        )

    def data(self) -> Schedule:
        """The share of the second phase's data: 0 before the switch, 1 from it on."""
        return from_table([0.0, 1.0], steps=[0, self.phases[1]], total=self.total)
