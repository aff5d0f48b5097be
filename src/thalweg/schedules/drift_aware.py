"""The best rate for data that change: larger where they drift, as one over the step where they don't.

For online least squares with inputs N(0, I_d), noise of variance s^2, batches of B, and a target that moves by gamma_t,
a random step of squared length gamma_t^2, the expected squared distance v to the target obeys

    v(t+1) = v (1 - 2 eta + eta^2 (1 + (d + 1) / B)) + eta^2 d s^2 / B + gamma_t^2

and the rate that makes the next one smallest, and with it all later ones, is

    eta(t) = v / ((1 + (d + 1) / B) v + d s^2 / B)

Fahrbach et al., "Learning Rate Schedules in the Presence of Distribution Shift" (2023), solve the problem in continuous
time; this is the discrete form, derived here. v(t+1) at the best rate grows with v, so that choosing each step's best is
best for the sum. For other losses it is a guide: d, s and gamma become effective ones.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, checked

CARD = Card(
    name="drift-aware",
    kind="schedule",
    summary="The best rate of online least squares whose target drifts.",
    papers=(58,),
    formula="eta(t) = v / (k v + d s^2 / B);  v(t+1) = v (1 - eta) + gamma_t^2;  k = 1 + (d + 1) / B",
    symbols={
        "v": "expected squared distance to the target",
        "d": "dimension",
        "s": "standard deviation of the noise",
        "B": "batch",
        "gamma_t": "how far the target moves at step t",
    },
    cost="one pass in Python over all steps at the first call: 0.2 s for a million",
    options={"drift": "a number, or a schedule of it: 0 before a change and more after, say"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class DriftAware(Schedule):
    """The rate that keeps the expected distance to a drifting target smallest.

    Attributes:
        total: number of updates.
        dimension: of the inputs.
        noise: standard deviation of the noise of the targets, above 0.
        distance: squared distance to the target before the first update.
        drift: how far the target moves in a step (root mean square): a number, or a schedule.
        batch: examples in an update.

    Raises:
        UsageError: a value can't be used.
    """

    total: int
    dimension: int
    noise: float
    distance: float = 1.0
    drift: float | Schedule = 0.0
    batch: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.dimension, self.batch) < 1 or min(self.noise, self.distance) <= 0:
            raise UsageError("dimension and batch should be at least 1, noise and distance above 0")
        if not isinstance(self.drift, Schedule):
            object.__setattr__(self, "drift", checked("DriftAware", "drift", self.drift, {float}))

    @cached_property
    def _table(self) -> tuple[Floats, Floats]:
        steps = np.arange(self.total + 1, dtype=np.float64)
        drift = self.drift(steps) if isinstance(self.drift, Schedule) else np.full(len(steps), self.drift)
        factor, noise = 1 + (self.dimension + 1) / self.batch, self.dimension * self.noise**2 / self.batch
        v, distances = self.distance, []
        for moved in (drift**2).tolist():
            distances.append(v)
            v += moved - v * v / (factor * v + noise)
        table = np.array(distances)
        return table / (factor * table + noise), table

    def value(self, t: Floats) -> Floats:
        """The best rate at each step (of two steps for one between them: the earlier one's)."""
        return self._table[0][t.astype(np.intp)]

    def distances(self) -> Floats:
        """The expected squared distance to the target before each update, [total]."""
        return self._table[1][:-1].copy()
