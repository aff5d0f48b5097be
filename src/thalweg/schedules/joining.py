"""Schedules made of others: one after the other, scaled, clipped, read from a table, or any function of the step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule, check_finite, check_total


@dataclass(frozen=True, kw_only=True, repr=False)
class Then(Schedule):
    """Several schedules one after the other, each from its own step 0; all but the last need an end.

    Raises:
        UsageError: one before the last has no end.
    """

    parts: tuple[Schedule, ...]
    total: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
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
        out = np.empty(t.shape)
        starts = self.starts
        which = np.searchsorted(starts, t, side="right") - 1
        for place, (start, part) in enumerate(zip(starts, self.parts, strict=True)):
            mine = which == place
            if mine.any():
                out[mine] = part(t[mine] - start)
        return out

    def __repr__(self) -> str:
        return ".then(".join(map(repr, self.parts)) + ")" * (len(self.parts) - 1)


@dataclass(frozen=True, kw_only=True, repr=False)
class Scaled(Schedule):
    """Another schedule times a number."""

    inner: Schedule
    factor: float
    total: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_finite(factor=self.factor)

    def value(self, t: Floats) -> Floats:
        """factor s(t)."""
        return self.factor * np.asarray(self.inner(t))

    def __repr__(self) -> str:
        return f"{self.inner!r} * {self.factor!r}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Clipped(Schedule):
    """Another schedule kept between two values.

    Raises:
        UsageError: low is above high.
    """

    inner: Schedule
    low: float = -np.inf
    high: float = np.inf
    total: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise UsageError(f"low={self.low:g} should not be above high={self.high:g}")

    def value(self, t: Floats) -> Floats:
        """min(high, max(low, s(t)))."""
        return np.clip(np.asarray(self.inner(t)), self.low, self.high)

    def __repr__(self) -> str:
        ends = [f"{n}={v!r}" for n, v in (("low", self.low), ("high", self.high)) if np.isfinite(v)]
        return f"{self.inner!r}.clipped({', '.join(ends)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Table(Schedule):
    """Values at given steps: held until the next ("previous", as a log of rates means them), or joined by lines.

    Raises:
        UsageError: steps don't increase from 0 on, a value isn't finite, or there are none.
    """

    steps: tuple[float, ...]
    table: tuple[float, ...]
    between: str = "previous"
    _points: tuple[Floats, Floats] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        x, y = np.asarray(self.steps, np.float64), np.asarray(self.table, np.float64)
        if len(x) == 0 or x.shape != y.shape or x.ndim != 1:
            raise UsageError(f"a table needs as many values as steps, at least one; it got {x.shape} and {y.shape}")
        if x[0] < 0 or (np.diff(x) <= 0).any():
            raise UsageError("the steps of a table should increase, from 0 or later on")
        if not np.isfinite(y).all():
            raise UsageError(f"the value at step {x[np.flatnonzero(~np.isfinite(y))[0]]:g} is not finite")
        if self.between not in ("previous", "linear"):
            raise UsageError(f"between={self.between!r}: it is 'previous' or 'linear'")
        object.__setattr__(self, "total", int(x[-1]) + 1 if self.total is None else self.total)
        object.__setattr__(self, "_points", (x, y))
        check_total(self.total)

    def value(self, t: Floats) -> Floats:
        """The value at the last step of the table that is not later, or between two; the first before it."""
        x, y = self._points
        if self.between == "linear":
            return np.interp(t, x, y)
        return y[np.maximum(np.searchsorted(x, t, side="right") - 1, 0)]

    def __repr__(self) -> str:
        short = f"[{self.table[0]:.6g}, ..., {self.table[-1]:.6g}]" if len(self.table) > 8 else list(self.table)
        return f"from_table({short}, steps=...)" if len(self.table) > 8 else f"from_table({short}, steps={list(self.steps)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Function(Schedule):
    """Any function of the step, taken for whole arrays if it can, else step by step."""

    function: Callable[..., ArrayLike]

    def __post_init__(self) -> None:
        check_total(self.total)

    def value(self, t: Floats) -> Floats:
        """function(t)."""
        try:
            out = np.asarray(self.function(t), np.float64)
        except (TypeError, ValueError):
            out = np.empty(0)
        return out if out.shape == t.shape else np.array([float(np.asarray(self.function(x))) for x in t.tolist()])

    def __repr__(self) -> str:
        return f"from_callable({getattr(self.function, '__name__', 'function')}, total={self.total!r})"


def from_table(
    values: ArrayLike, steps: ArrayLike | None = None, *, total: int | None = None, between: str = "previous"
) -> Schedule:
    """A schedule of values [n], at steps 0, 1, ... or at those given [n].

    Raises:
        UsageError: see `Table`.
    """
    y = np.asarray(values, np.float64)
    x = np.arange(len(y)) if steps is None else np.asarray(steps, np.float64)
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
    return Then(parts=tuple(parts))
