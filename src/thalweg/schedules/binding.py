"""A schedule bound to an optimizer: it only fills numbers into parameter groups, and knows where it is.

Works with any object that has ``param_groups``, a list of dictionaries, so that nothing here imports torch. A value
that is a tensor is filled in place: a compiled optimizer takes rates as tensors and doesn't recompile, while one
whose rate is a float is compiled anew at every change of it.
"""

from collections.abc import Mapping
from typing import Any

from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Schedule

_EQUAL = 1e-12


class Bound:
    """Writes a schedule's values into parameter groups; made by `Schedule.bind`, which writes s(0) at once.

    Args:
        schedule: what to write.
        optimizer: anything with ``param_groups``.
        key: which entry of a group: "lr", "weight_decay", "momentum"; "betas.0" for the first of a tuple.
        group: the number of the only group to write; by default all there are now.
        relative: multiply each group's own value by the schedule, instead of replacing it.

    Raises:
        UsageError: no such group or key, its value is no number, or groups have different values and neither ``group`` nor ``relative`` says
            what is meant.
    """

    def __init__(
        self,
        schedule: Schedule,
        optimizer: Any,
        key: str,
        *,
        group: int | None = None,
        relative: bool = False,
    ) -> None:
        self.schedule = schedule
        self.key = key
        self.relative = relative
        self.at = 0
        groups = list(optimizer.param_groups)
        if not groups:
            raise UsageError("the optimizer has no parameter groups")
        if group is not None and not -len(groups) <= group < len(groups):
            raise UsageError(f"group={group}: the optimizer has {len(groups)} groups, counted from 0")
        self._optimizer = optimizer
        self._places = list(range(len(groups))) if group is None else [group]
        self._base = [_get(groups[place], key) for place in self._places]
        differ = max(self._base) - min(self._base) > _EQUAL * max(map(abs, self._base))
        if differ and not relative:
            raise UsageError(
                f"the groups have different values of {key}: {self._base}. Say which with group=, or multiply each by the "
                "schedule with relative=True"
            )
        self._write()

    @property
    def value(self) -> float:
        """The schedule's value for the update to come."""
        return float(self.schedule(self.at))

    def step(self) -> None:
        """An update was made: write the value of the next. Call it after ``optimizer.step()``."""
        self.at += 1
        self._write()

    def goto(self, at: int) -> None:
        """Write the value of update ``at``, for a run resumed there.

        Raises:
            UsageError: it is negative.
        """
        if at < 0:
            raise UsageError(f"updates count from 0, not {at}")
        self.at = int(at)
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Where it is, and the groups' own values."""
        return {"at": self.at, "base": list(self._base)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, and write its value.

        Raises:
            UsageError: it was saved with another number of groups.
        """
        base = [float(value) for value in state["base"]]
        if len(base) != len(self._base):
            raise UsageError(f"the state is of {len(base)} groups, and {len(self._base)} are bound")
        self._base = base
        self.goto(int(state["at"]))

    def _write(self) -> None:
        value = self.value
        groups = (
            self._optimizer.param_groups
        )  # looked up each time: loading an optimizer's state replaces them
        for place, base in zip(self._places, self._base, strict=True):
            _set(groups[place], self.key, base * value if self.relative else value)


def _get(group: Mapping[str, Any], key: str) -> float:
    name, _, place = key.partition(".")
    if name not in group:
        known = ", ".join(k for k in group if k != "params")
        raise UsageError(f"the optimizer's groups have no {name!r}; they have {known}")
    try:
        return float(group[name][int(place)] if place else group[name])
    except (TypeError, ValueError, IndexError):
        raise UsageError(
            f"{key!r} is no number in the optimizer's groups: {name} is {group[name]!r}"
        ) from None


def _set(group: dict[str, Any], key: str, value: float) -> None:
    name, _, place = key.partition(".")
    held = group[name]
    inner = held[int(place)] if place else held
    if hasattr(inner, "fill_"):
        inner.fill_(value)
    elif place:
        items = list(held)
        items[int(place)] = value
        group[name] = type(held)(items)
    else:
        group[name] = value
