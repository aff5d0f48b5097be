"""What every step touches: the counts of one optimizer's loop, close together in memory.

Inside a training loop everything is cold: each object that is looked at costs a cache miss or several, a microsecond.
So what is read and written at every step stands in the slots of one object.
"""

from collections import deque
from typing import Any

from torch import Tensor


class StepCounts:
    """The counts, and the step that a log belongs to.

    Attributes:
        tries: steps of the optimizer so far.
        stamp: tries done at the last training forward; below 0 before the first.
        evaluation_stamp: tries done at the last other forward.
        micro_batches: training forwards since the last try.
        examples: examples in them.
        spent: seconds that the watch took since the last try.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_accelerated",
        "_accounts",
        "_closures",
        "_found_inf",
        "_last",
        "_plan",
        "_rest_until",
        "_resting",
        "_room",
        "_rows",
        "_special",
        "_training_mode",
        "evaluation_stamp",
        "examples",
        "micro_batches",
        "spent",
        "stamp",
        "tries",
    )

    def __init__(self, rows: deque[Any]) -> None:
        self.tries = self.evaluation_stamp = 0
        self.stamp = _NEVER
        self.micro_batches = self.examples = 0
        self.spent = 0.0
        self._accelerated = False  # whether there is a device that must not be waited for
        self._last = 0.0  # when the last step ended
        self._rows, self._room = rows, 0  # where a row of each step is left, and how many may wait there
        self._accounts: list[
            tuple[float, float, float]
        ] = []  # seconds: the step, the watch, all but instruments
        self._training_mode = False  # whether the model was ever in training mode
        self._special = True  # whether a forward is more than counted
        self._resting = False  # whether the hook before the step rests
        self._rest_until = 0.0
        self._closures = False
        self._found_inf: Tensor | None = None

    def start_at(self, tries: int) -> None:
        """Count from ``tries`` on."""
        self.tries = self.evaluation_stamp = tries
        self.stamp = tries if self.stamp >= 0 else _NEVER

    def mark(self) -> None:
        """What a training forward does to the step that logs belong to: for loops whose forwards are not seen."""
        self.stamp = self.tries

    def step_for(self, evaluation: bool) -> int:
        """The try that a log made now belongs to: the present one, or the one whose forward was the last."""
        stamp = self.stamp
        if stamp < self.tries - 1:  # no forward was seen in this try, nor in the one before
            return self.tries
        return max(stamp, self.evaluation_stamp) if evaluation else stamp


_NEVER = -2
