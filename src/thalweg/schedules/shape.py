"""What a schedule is: a frozen, pure function of the step, of a known length, that can be joined with others.

``s(t)`` for t = 0, 1, ..., total - 1 is the value that update t is made with: ``s(0)`` is used by the first update.
Beyond its end a schedule keeps the value of its formula at ``total``, where a decay has reached its floor. Values are
computed in float64 for whole arrays at once.

A length may be given as a number of steps (an int) or as a share of the total (a float below 1).
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.errors import UsageError

Floats = NDArray[np.float64]
Length = int | float


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The base of all schedules. A new one is a frozen dataclass with a ``CARD`` beside it and one method, `value`.

    Attributes:
        total: number of updates; None where there is no end (a constant, an inverse square root).
    """

    total: int | None = None
    _alone: ClassVar[bool] = False  # whether its own formula holds beyond its end (cycles that go on)

    @abstractmethod
    def value(self, t: Floats) -> Floats:
        """The value at steps t [n] float64, all within 0 and total."""

    @overload
    def __call__(self, step: int | float) -> float: ...

    @overload
    def __call__(self, step: ArrayLike) -> Floats: ...

    def __call__(self, step: ArrayLike) -> Floats | float:
        """The value at a step, or at an array of steps of any shape.

        Raises:
            UsageError: a step is negative or no number.
        """
        t = np.asarray(step, np.float64)
        if not (t >= 0).all():
            raise UsageError(f"a schedule begins at step 0; it was asked for {np.nanmin(t) if t.size else step}")
        top = np.inf if self.total is None or self._alone else float(self.total)
        out = np.asarray(self.value(np.minimum(t, top).ravel()), np.float64).reshape(t.shape)
        return out if t.ndim else float(out)

    def values(self) -> Floats:
        """All values, [total].

        Raises:
            UsageError: it has no end.
        """
        return self(np.arange(self.length))

    @property
    def length(self) -> int:
        """The total, where there is one.

        Raises:
            UsageError: it has no end.
        """
        if self.total is None:
            raise UsageError(f"{type(self).__name__} has no end here: give it a total")
        return self.total

    @property
    def code(self) -> str:
        """The line of Python that makes it."""
        return f"tw.schedules.{self!r}"

    def __repr__(self) -> str:
        """As it would be written, without what is at its default."""
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)
            if f.repr and not _is_default(f, getattr(self, f.name))
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    # Together with others.

    def then(self, other: "Schedule") -> "Schedule":
        """This one, and when it has ended the other one, from its own step 0 on."""
        from thalweg.schedules.joining import Then

        return Then(parts=(self, other))

    def warmed(self, steps: int, *, first: float = 0.0) -> "Schedule":
        """A linear warm-up from ``first`` to this one's first value, put before it."""
        from thalweg.schedules.joining import Then
        from thalweg.schedules.linear import Linear

        return Then(parts=(Linear(start=first, end=self(0), total=steps), self))

    def clipped(self, low: float = -np.inf, high: float = np.inf) -> "Schedule":
        """Never below ``low`` nor above ``high``."""
        from thalweg.schedules.joining import Clipped

        return Clipped(inner=self, low=low, high=high, total=self.total)

    def __mul__(self, factor: float) -> "Schedule":
        """Every value times a number."""
        from thalweg.schedules.joining import Scaled

        return Scaled(inner=self, factor=float(factor), total=self.total)

    __rmul__ = __mul__

    def bind(
        self, optimizer: Any, key: str = "lr", *, group: int | None = None, relative: bool = False
    ) -> Any:
        """Write its values into an optimizer's parameter groups; see `thalweg.schedules.binding.Bound`."""
        from thalweg.schedules.binding import Bound

        return Bound(self, optimizer, key, group=group, relative=relative)


def steps_of(length: Length, total: int | None, name: str) -> int:
    """A length in steps: an int as it is, a float below 1 as a share of the total, rounded.

    Raises:
        UsageError: it is negative, longer than the total, or a share of no total.
    """
    if isinstance(length, bool) or not isinstance(length, int | float | np.integer | np.floating):
        raise UsageError(f"{name} is a number of steps or a share of them, not {length!r}")
    if isinstance(length, float | np.floating) and not float(length).is_integer():
        if not 0 <= length < 1:
            raise UsageError(f"{name}={length}: a share lies between 0 and 1, a number of steps is whole")
        if total is None:
            raise UsageError(f"{name}={length} is a share, and there is no total")
        return round(length * total)
    steps = int(length)
    if steps < 0 or (total is not None and steps > total):
        raise UsageError(f"{name}={length} does not lie between 0 and the total of {total} steps")
    return steps


def check_total(total: int | None) -> None:
    """Refuse a total that is no positive whole number.

    Raises:
        UsageError: it isn't.
    """
    if total is not None and (isinstance(total, bool) or int(total) != total or total < 1):
        raise UsageError(f"total={total!r}: a number of updates is whole and at least 1")


def check_finite(**values: float) -> None:
    """Refuse values that are no finite numbers.

    Raises:
        UsageError: one isn't; the message names it.
    """
    for name, value in values.items():
        if not np.isfinite(value):
            raise UsageError(f"{name}={value!r} should be a finite number")


def share(t: Floats, total: int | None) -> Floats:
    """How much of the way is done, t / total, from 0 to 1."""
    return t / float(total or 1)


def _is_default(field: "dataclasses.Field[Any]", value: Any) -> bool:
    default: Any = field.default
    if default is dataclasses.MISSING:
        make: Callable[[], Any] | Any = field.default_factory
        return make is not dataclasses.MISSING and value == make()
    return bool(value is default or value == default)
