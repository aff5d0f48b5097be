"""A schedule as a torch ``LRScheduler``, for what asks for one: the Hugging Face Trainer, Lightning, Accelerate.

In a loop of one's own, ``schedule.bind(optimizer)`` does the same with less, and for any key.
"""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thalweg.core.errors import UsageError
from thalweg.schedules import Schedule


class ScheduledRate(LRScheduler):
    """The rate of every parameter group from a schedule; see `as_lr_scheduler`."""

    def __init__(self, schedule: Schedule, optimizer: Optimizer, relative: bool = False) -> None:
        self.schedule = schedule
        self.relative = relative
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        if max(rates) != min(rates) and not relative:
            raise UsageError(
                f"the groups have different rates, {rates}: multiply each by the schedule with relative=True"
            )
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]  # torch allows tensors too
        """The rate of each group for the update to come."""
        value = float(self.schedule(self.last_epoch))
        return [float(base) * value if self.relative else value for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Where it is, in plain values: the schedule itself is code, and is given again."""
        return {key: value for key, value in super().state_dict().items() if key != "schedule"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state, and write its rates into the groups.

        Raises:
            UsageError: it was saved with another number of groups, or with another ``relative``.
        """
        groups = len(self.optimizer.param_groups)
        if len(state_dict["base_lrs"]) != groups:
            raise UsageError(
                f"the state is of {len(state_dict['base_lrs'])} groups, and the optimizer has {groups}"
            )
        if state_dict.get("relative", self.relative) != self.relative:
            raise UsageError(f"the state was saved with relative={not self.relative}")
        super().load_state_dict(dict(state_dict))
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if hasattr(group["lr"], "fill_"):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = [*self.get_lr()]


def as_lr_scheduler(schedule: Schedule, optimizer: Optimizer, *, relative: bool = False) -> ScheduledRate:
    """A torch scheduler of a schedule; its rate for the first update is written at once.

    It counts updates: call ``step()`` after each ``optimizer.step()``. For the Trainer, pass it in
    ``optimizers=(optimizer, scheduler)``; in Lightning, return it with ``"interval": "step"``.

    Args:
        schedule: the rates.
        optimizer: whose groups are written; a rate that is a tensor is filled in place.
        relative: multiply each group's own rate by the schedule, instead of replacing it.

    Raises:
        UsageError: groups have different rates and ``relative`` is False.
    """
    return ScheduledRate(schedule, optimizer, relative)
