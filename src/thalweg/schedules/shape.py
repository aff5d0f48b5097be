"""What a schedule is: a frozen, pure function of the step, of a known length, that can be joined with others.

``s(t)`` for t = 0, 1, ..., total - 1 is the value that update t is made with: ``s(0)`` is used by the first update.
Beyond its end a schedule keeps the value of its formula at ``total``, where a decay has reached its floor. Values are
computed in float64 for whole arrays at once.

A length may be given as a number of steps (an int) or as a share of the total (a float below 1).
"""

import dataclasses
import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError

Floats = NDArray[np.float64]
Length = int | float
WarmUpShape = Literal["linear", "cosine", "exponential", "radam"]

_SHOWN = 2_000  # characters of a repr; beyond, its middle is left out (`Schedule.code` is always whole)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The base of all schedules. A new one is a frozen dataclass with a ``CARD`` beside it and one method, `value`.

    Fields that are declared as numbers are checked here: each must be a finite number, a whole one if it is an int.

    Attributes:
        total: number of updates; None where there is no end (a constant, an inverse square root).

    Raises:
        UsageError: a number is missing, not finite or not whole, or the total is below 1.
    """

    total: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kinds = set(get_args(field.type) or (field.type,))
            if field.init and kinds <= {int, float, NoneType}:
                value = checked(type(self).__name__, field.name, getattr(self, field.name), kinds)
                object.__setattr__(self, field.name, value)
            if field.type is Schedule and not isinstance(getattr(self, field.name), Schedule):
                raise UsageError(f"{field.name}={getattr(self, field.name)!r} should be a schedule")
        if self.total is not None and self.total < 1:
            raise UsageError(f"total={self.total}: a schedule has at least one update")

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
            UsageError: a step is negative or no finite number.
        """
        try:
            t = np.asarray(step, np.float64)
        except (TypeError, ValueError):
            raise UsageError(f"steps are numbers, not {step!r}") from None
        flat = t.reshape(-1)
        if flat.size and not (flat.min() >= 0 and flat.max() < np.inf):
            wrong = flat[~((flat >= 0) & (flat < np.inf))][0]
            raise UsageError(f"the steps of a schedule count from 0; it was asked for {wrong:g}")
        if self.total is not None:
            flat = np.minimum(flat, float(self.total))
        out = np.asarray(self.value(flat), np.float64).reshape(t.shape)
        return out if t.ndim else float(out)

    def values(self) -> Floats:
        """All values, [total].

        Raises:
            UsageError: it has no end.
        """
        return self(np.arange(self.length, dtype=np.float64))

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
    def card(self) -> Card | None:
        """The card of its method; None for one that is made of others, or that has none beside it."""
        return getattr(sys.modules[type(self).__module__], "CARD", None)

    @property
    def code(self) -> str:
        """The line of Python that makes it, after ``import thalweg as tw``."""
        return self.written("tw.schedules.")

    def written(self, prefix: str = "") -> str:
        """Its expression, without what is at its default, names preceded by ``prefix``."""
        fields = {f.name: f for f in dataclasses.fields(self)}
        in_order = [fields[name] for name in dict.fromkeys([*type(self).__annotations__, *fields])]
        shown = [
            f"{f.name}={_written(getattr(self, f.name), prefix)}"
            for f in in_order
            if f.repr and not _is_default(f, getattr(self, f.name))
        ]
        return f"{prefix}{type(self).__name__}({', '.join(shown)})"

    def __repr__(self) -> str:
        text = self.written()
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"

    # Together with others.

    def then(self, other: "Schedule") -> "Schedule":
        """This one, and when it has ended the other one, from its own step 0 on."""
        from thalweg.schedules.joining import Then

        return Then(parts=(self, other))

    def warmed(self, steps: int, *, first: float = 0.0, shape: WarmUpShape = "linear") -> "Schedule":
        """A warm-up from ``first`` to this one's first value, put before it; see `WarmUp` and `RAdamWarmUp`.

        Raises:
            UsageError: the warm-up can't be made so.
        """
        from thalweg.schedules.joining import Then
        from thalweg.schedules.radam_warm_up import RAdamWarmUp
        from thalweg.schedules.warm_up import WarmUp

        if shape == "radam":
            return Then(parts=(RAdamWarmUp(peak=self(0), total=steps), self))
        return Then(parts=(WarmUp(peak=self(0), total=steps, start=first, shape=shape), self))

    def clipped(self, low: float = -np.inf, high: float = np.inf) -> "Schedule":
        """Never below ``low`` nor above ``high``."""
        from thalweg.schedules.joining import Clipped

        return Clipped(inner=self, low=low, high=high)

    def __mul__(self, factor: "float | Schedule") -> "Schedule":
        """Every value times a number, or times another schedule's value at the same step."""
        from thalweg.schedules.joining import Product, Scaled

        if isinstance(factor, Schedule):
            return Product(parts=(self, factor))
        return Scaled(inner=self, factor=factor)

    __rmul__ = __mul__

    def bind(
        self, optimizer: Any, key: str = "lr", *, group: int | None = None, relative: bool = False
    ) -> Any:
        """Write its values into an optimizer's parameter groups; see `thalweg.schedules.binding.Bound`."""
        from thalweg.schedules.binding import Bound

        return Bound(self, optimizer, key, group=group, relative=relative)


def piecewise(t: Floats, starts: Sequence[float], parts: Sequence[Callable[[Floats], ArrayLike]]) -> Floats:
    """Values of a function that is put together: ``parts[i]`` from ``starts[i]`` on, up to the next start.

    Each part is computed on its own steps only.

    Args:
        t: steps [n], in any order, none before the first start.
        starts: ascending; of parts that begin at one step only the last is used.
        parts: functions of steps [m] that return [m] values, or one for all.
    """
    if (t[1:] < t[:-1]).any():
        order = np.argsort(t, kind="stable")
        out = np.empty(t.shape)
        out[order] = piecewise(t[order], starts, parts)
        return out
    out = np.empty(t.shape)
    ends = [*np.searchsorted(t, starts[1:]).tolist(), len(t)]
    begin = 0
    for part, end in zip(parts, ends, strict=True):
        if end > begin:
            out[begin:end] = part(t[begin:end])
            begin = end
    return out


def steps_of(length: Length, total: int | None, name: str) -> int:
    """A length in steps: an int as it is, a float below 1 as a share of the total, rounded.

    Raises:
        UsageError: it is negative, longer than the total, or a share of no total.
    """
    if not float(length).is_integer():
        if not 0 <= length < 1:
            raise UsageError(f"{name}={length}: a share lies between 0 and 1, a number of steps is whole")
        if total is None:
            raise UsageError(f"{name}={length} is a share, and there is no total")
        return round(length * total)
    steps = int(length)
    if steps < 0 or (total is not None and steps > total):
        raise UsageError(f"{name}={length} does not lie between 0 and the total of {total} steps")
    return steps


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a word that is not among the known ones.

    Raises:
        UsageError: it isn't; the message lists them.
    """
    if value not in known:
        raise UsageError(f"{name}={value!r}: it is one of {', '.join(known)}")


def checked(owner: str, name: str, value: Any, kinds: set[type]) -> Any:
    """A number as declared: an int where a whole one is meant, else a float (either where both are).

    Raises:
        UsageError: it is missing, no finite number, or not whole; the message names it and its owner.
    """
    if value is None and NoneType in kinds:
        return None
    if value is None:
        raise UsageError(f"{owner} needs {name}=, a number")
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{name}={value!r} should be a number")
    if not math.isfinite(value):
        raise UsageError(f"{name}={value!r} should be a finite number")
    if isinstance(value, int | np.integer):
        return int(value) if int in kinds else float(value)
    if float in kinds:
        return float(value)
    if not float(value).is_integer():
        raise UsageError(f"{name}={value!r} should be a whole number")
    return int(value)


def all_checked(owner: str, name: str, values: Any, kinds: set[type]) -> tuple[Any, ...]:
    """Several numbers, each as `checked` has it.

    Raises:
        UsageError: it is no list, or one is no such number.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name}={values!r} should be a list of numbers")
    return tuple(checked(owner, name, value, kinds) for value in values)


def as_array(name: str, values: ArrayLike) -> Floats:
    """Numbers [n] as an array.

    Raises:
        UsageError: there is none, one is not finite, or they are no numbers in a row.
    """
    try:
        out = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{name} should be a list of numbers") from None
    if out.ndim != 1 or len(out) == 0:
        raise UsageError(f"{name} should be a list of numbers, at least one; it has the shape {out.shape}")
    bad = np.flatnonzero(~np.isfinite(out))
    if len(bad):
        raise UsageError(f"{name} should be finite numbers, and number {bad[0]} is {out[bad[0]]:g}")
    return out


def _written(value: Any, prefix: str) -> str:
    if isinstance(value, Schedule):
        return value.written(prefix)
    if isinstance(value, tuple):
        inside = ", ".join(_written(item, prefix) for item in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return repr(value)


def _is_default(field: "dataclasses.Field[Any]", value: Any) -> bool:
    return bool(value == field.default)
