"""Schedules made of others: one after the other, multiplied, clipped, read from a table, or any function of the step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, as_array, one_of, piecewise

Between = Literal["previous", "linear"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Then(Schedule):
    """Several schedules one after the other, each from its own step 0; all but the last need an end.

    Raises:
        UsageError: one before the last has no end.
    """

    parts: tuple[Schedule, ...]
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for part in self.parts:
            if not isinstance(part, Schedule):
                raise UsageError(f"only schedules follow each other, not {part!r}")
        flat = tuple(p for part in self.parts for p in (part.parts if isinstance(part, Then) else (part,)))
        object.__setattr__(self, "parts", flat)
        lengths = [part.length for part in flat[:-1]]
        last = flat[-1].total
        object.__setattr__(self, "total", None if last is None else sum(lengths) + last)

    @property
    def starts(self) -> list[int]:
        """The step at which each part begins."""
        return [0, *np.cumsum([part.length for part in self.parts[:-1]]).tolist()]

    def value(self, t: Floats) -> Floats:
        """Each part's own value, counted from its beginning."""
        starts = self.starts
        own = [partial(_from, part, start) for part, start in zip(self.parts, starts, strict=True)]
        return piecewise(t, starts, own)

    def written(self, prefix: str = "") -> str:
        """``A(...).then(B(...))``."""
        parts = [part.written(prefix) for part in self.parts]
        return parts[0] + "".join(f".then({part})" for part in parts[1:])


@dataclass(frozen=True, kw_only=True, repr=False)
class Scaled(Schedule):
    """Another schedule times a number."""

    inner: Schedule
    factor: float
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "total", self.inner.total)

    def value(self, t: Floats) -> Floats:
        """factor s(t)."""
        return self.factor * self.inner(t)

    def written(self, prefix: str = "") -> str:
        """``(A(...) * 0.5)``."""
        return f"({self.inner.written(prefix)} * {self.factor!r})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Product(Schedule):
    """Two schedules multiplied, step by step, as long as the longer one; where one has no end, as the other."""

    parts: tuple[Schedule, Schedule]
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        totals = [part.total for part in self.parts if part.total is not None]
        object.__setattr__(self, "total", max(totals, default=None))

    def value(self, t: Floats) -> Floats:
        """a(t) b(t)."""
        return self.parts[0](t) * self.parts[1](t)

    def written(self, prefix: str = "") -> str:
        """``(A(...) * B(...))``."""
        return f"({' * '.join(part.written(prefix) for part in self.parts)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Clipped(Schedule):
    """Another schedule kept between two values.

    Raises:
        UsageError: low is above high, or one is no number.
    """

    inner: Schedule
    low: float = -np.inf
    high: float = np.inf
    total: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.inner.total)
        if not self.low <= self.high:
            raise UsageError(f"low={self.low:g} should not be above high={self.high:g}")

    def value(self, t: Floats) -> Floats:
        """min(high, max(low, s(t)))."""
        return np.clip(self.inner(t), self.low, self.high)

    def written(self, prefix: str = "") -> str:
        """``A(...).clipped(low=1e-05)``."""
        ends = [f"{n}={float(v)!r}" for n, v in (("low", self.low), ("high", self.high)) if np.isfinite(v)]
        return f"{self.inner.written(prefix)}.clipped({', '.join(ends)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Table(Schedule):
    """Values at given steps: held until the next ("previous", as a log of rates means them), or joined by lines.

    Raises:
        UsageError: steps don't increase from 0 on, a value isn't finite, or there are none.
    """

    steps: tuple[float, ...]
    table: tuple[float, ...]
    between: Between = "previous"
    _points: tuple[Floats, Floats] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        x, y = as_array("steps", self.steps), as_array("values", self.table)
        if len(x) != len(y):
            raise UsageError(f"a table needs as many values as steps; it got {len(y)} and {len(x)}")
        if x[0] < 0 or (np.diff(x) <= 0).any():
            raise UsageError("the steps of a table should increase, from 0 or later on")
        one_of("between", self.between, ("previous", "linear"))
        if self.total is None:
            object.__setattr__(self, "total", int(x[-1]) + 1)
        object.__setattr__(self, "_points", (x, y))
        super().__post_init__()

    def value(self, t: Floats) -> Floats:
        """The value at the last step of the table that is not later, or between two; the first before it."""
        x, y = self._points
        if self.between == "linear":
            return np.interp(t, x, y)
        return y[np.maximum(np.searchsorted(x, t, side="right") - 1, 0)]

    def written(self, prefix: str = "") -> str:
        """``from_table([...], steps=[...])``."""
        rest = "" if self.steps == tuple(range(len(self.steps))) else f", steps={list(self.steps)}"
        rest += "" if self.total == int(self.steps[-1]) + 1 else f", total={self.total}"
        rest += "" if self.between == "previous" else f", between={self.between!r}"
        return f"{prefix}from_table({list(self.table)}{rest})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Function(Schedule):
    """Any function of the step, taken for whole arrays if it can, else step by step."""

    function: Callable[..., ArrayLike]

    def value(self, t: Floats) -> Floats:
        """function(t)."""
        try:
            out = np.asarray(self.function(t), np.float64)
        except (TypeError, ValueError):
            out = np.empty(0)
        if out.shape != t.shape:
            return np.array([float(np.asarray(self.function(x))) for x in t.tolist()])
        return out

    def written(self, prefix: str = "") -> str:
        """``from_callable(name, total=...)``, by the function's name, which must be known where this is used."""
        name = getattr(self.function, "__name__", "function")
        return f"{prefix}from_callable({name}, total={self.total!r})"


def from_table(
    values: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    total: int | None = None,
    between: Between = "previous",
) -> Schedule:
    """A schedule of values [n], at steps 0, 1, ... or at those given [n].

    Args:
        values: at the steps.
        steps: increasing from 0 or later on.
        total: number of updates; one more than the last step by default.
        between: "previous" holds a value until the next one, as a log of rates means it; "linear" joins them.

    Raises:
        UsageError: see `Table`.
    """
    y = as_array("values", values)
    x = np.arange(len(y)) if steps is None else as_array("steps", steps)
    return Table(steps=tuple(x.tolist()), table=tuple(y.tolist()), total=total, between=between)


def from_callable(function: Callable[..., ArrayLike], total: int | None = None) -> Schedule:
    """A schedule of any function of the step: ``from_callable(lambda t: 1e-3 * 0.5 ** (t // 1000), total=5000)``."""
    return Function(function=function, total=total)


def chain(parts: Sequence[Schedule]) -> Schedule:
    """Several one after the other.

    Raises:
        UsageError: there is none, or one before the last has no end.
    """
    if not parts:
        raise UsageError("a chain needs at least one schedule")
    return Then(parts=tuple(parts)) if len(parts) > 1 else parts[0]


def _from(part: Schedule, start: float, t: Floats) -> Floats:
    return part(t - start)
