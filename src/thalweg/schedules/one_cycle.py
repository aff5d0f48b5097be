"""One cycle: up to a large rate, down again, and far below the first; momentum the other way round.

    s(t) = peak / divide  ->  peak               0 <= t <= R
         = peak           ->  final              R <= t <= T - 1

along half a cosine or a line; with three phases back to peak / divide by 2 R - 1, then to final. R = rise T - 1, as in
torch. Smith and Topin, "Super-Convergence" (2019), and Smith, "A disciplined approach" (2018).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from numpy.typing import ArrayLike

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import Shape, cooled
from thalweg.schedules.shape import Floats, Schedule, one_of, piecewise

CARD = Card(
    name="one-cycle",
    kind="schedule",
    summary="Up to a large rate, down again, and far below; its momentum goes the other way.",
    papers=(6, 253),
    formula="peak / divide -> peak over R steps -> final;  momentum: high -> low -> high",
    symbols={"R": "rise T - 1", "T": "total"},
    options={
        "rise": "share of the steps going up; 0.3",
        "divide": "peak over first value; 25",
        "final_divide": "first over last value; 1e4",
        "shape": "'cosine' (default, as in torch) or 'linear' (as in the paper)",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class OneCycle(Schedule):
    """The rate of one cycle; `momentum` is what goes with it.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    total: int
    rise: float = 0.3
    divide: float = 25.0
    final_divide: float = 1e4
    shape: Literal["cosine", "linear"] = "cosine"
    three_phase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rise < (0.5 if self.three_phase else 1) or self.divide <= 0 or self.final_divide <= 0:
            raise UsageError(
                "rise is a share below 1 (below 0.5 with three phases); divide and final_divide are above 0"
            )
        if self.rise * self.total <= 1:
            raise UsageError(f"a rise of {self.rise:g} of {self.total} updates is less than two of them")
        one_of("shape", self.shape, ("cosine", "linear"))

    def momentum(self, high: float = 0.95, low: float = 0.85) -> Schedule:
        """From ``high`` to ``low`` while the rate rises, and back while it falls."""
        return _Momentum(of=self, high=high, low=low)

    def value(self, t: Floats) -> Floats:
        """Up, down, and far below."""
        first = self.peak / self.divide
        return self._between(t, first, self.peak, first / self.final_divide)

    def _between(self, t: Floats, first: float, top: float, last: float) -> Floats:
        """From ``first`` to ``top``, back with three phases, and to ``last``, which is held."""
        up = self.rise * self.total - 1
        steps, values = [0, up, self.total - 1], [first, top, last]
        if self.three_phase:
            steps, values = [0, up, 2 * up, self.total - 1], [first, top, first, last]
        shape: Shape = "cosine" if self.shape == "cosine" else "linear"
        parts: list[Callable[[Floats], ArrayLike]] = [
            partial(_stretch, shape, *ends)
            for ends in zip(steps, steps[1:], values, values[1:], strict=False)
        ]
        return piecewise(t, steps, [*parts, lambda t: last])


@dataclass(frozen=True, kw_only=True, repr=False)
class _Momentum(Schedule):
    """The momentum that goes with a cycle's rate."""

    of: OneCycle
    high: float
    low: float
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.of.total)
        super().__post_init__()

    def value(self, t: Floats) -> Floats:
        """Against the rate."""
        return self.of._between(t, self.high, self.low, self.high)

    def written(self, prefix: str = "") -> str:
        """``OneCycle(...).momentum(high=0.95, low=0.85)``."""
        return f"{self.of.written(prefix)}.momentum(high={self.high!r}, low={self.low!r})"


def _stretch(shape: Shape, begin: float, end: float, top: float, low: float, t: Floats) -> Floats:
    return cooled(shape, top, low, (t - begin) / (end - begin))
