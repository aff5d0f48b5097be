"""A schedule made from the gradient norms of a previous run: small where they were large, and decaying to zero.

    w_t = G_t^-2   (SGD; of l2 norms),   w_t = 1 / G_t   (Adam; of l1 norms)
    s(t) proportional to  w_t sum_(p > t) w_p,  its largest value being the peak

with G the norms after a running median over a share of the run, which is cut off at the beginning and reflected at the
end. Defazio et al., "When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement" (2023), checked against
the authors' published code. There the last update has rate 0; here the sum goes one step further, with the last norm
again, so that every update does something: from constant norms comes the linear decay, exactly.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, as_array, one_of

CARD = Card(
    name="refined",
    kind="schedule",
    summary="Refined from the gradient norms of a previous run: with a warm-up and a decay of its own.",
    papers=(7,),
    formula="s(t) ~ w_t sum_(p > t) w_p;  w = G^-2 or 1 / G",
    symbols={"G": "gradient norms of the previous run, after a running median"},
    needs="gradient norms of a run with the same optimizer, best one under a linear decay",
    options={
        "weights": "'square' (default): G^-2 of l2 norms, for SGD; 'inverse': 1 / G of l1 norms, for Adam",
        "smoothing": "share of the run in the running median; 0.1, in the middle of what the paper tried",
        "total": "number of updates; as many as there are norms, and else the schedule is stretched",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Refined(Schedule):
    """The refined schedule of a run.

    Attributes:
        peak: the highest value.
        norms: of the previous run's gradients, evenly spaced over it, in order, all above 0.
        weights: "square" or "inverse".
        smoothing: width of the running median as a share of the run; 0 leaves the norms as they are.
        total: number of updates; by default as many as norms.

    Raises:
        UsageError: there is no norm, one is not a positive number, or an option can't be used.
    """

    peak: float
    norms: tuple[float, ...]
    weights: Literal["square", "inverse"] = "square"
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        norms = as_array("norms", self.norms)
        bad = np.flatnonzero(norms <= 0)
        if len(bad):
            raise UsageError(f"norms should be positive numbers, and number {bad[0]} is {norms[bad[0]]:g}")
        object.__setattr__(self, "norms", tuple(norms.tolist()))
        if self.total is None:
            object.__setattr__(self, "total", len(norms))
        super().__post_init__()
        one_of("weights", self.weights, ("square", "inverse"))
        if not 0 <= self.smoothing < 1:
            raise UsageError(f"smoothing={self.smoothing} should be a share of the run, from 0 to below 1")

    @cached_property
    def _table(self) -> tuple[Floats, Floats]:
        """Steps and values at them, [norms + 1] each."""
        count = len(self.norms)
        width = 2 * (int(self.smoothing * count) // 2) + 1
        smooth = np.array(list(_running_median(self.norms, width)))
        smooth /= smooth.min()  # its scale drops out, and no weight overflows
        weights = smooth ** (-2.0 if self.weights == "square" else -1.0)
        left = np.cumsum(np.append(weights, weights[-1])[::-1])[::-1][1:]
        rates = weights * left
        table: Floats = np.append(rates, 0.0) * (self.peak / rates.max())
        return np.linspace(0, self.length, count + 1), table

    def value(self, t: Floats) -> Floats:
        """In the table, between two of its values on a line."""
        return np.interp(t, *self._table)


def _running_median(values: tuple[float, ...], width: int) -> Iterator[float]:
    """The median of ``width`` values around each; the first repeated before them, the last ones reflected after."""
    half = width // 2
    padded = np.pad(values, (0, half), mode="reflect")
    padded = np.pad(padded, (half, 0), mode="edge").tolist()
    window = sorted(padded[:width])
    yield window[half]
    for old, new in zip(padded, padded[width:], strict=False):
        del window[bisect_left(window, old)]
        insort(window, new)
        yield window[half]
