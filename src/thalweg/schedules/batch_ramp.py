"""A batch that grows by equal additions, each level for the same number of examples.

    batch = first + step floor(consumed / (examples / n)),   n = (last - first) / step,   until it is ``last``

with ``consumed`` the examples seen before the update. The ramp of Megatron-LM (its ``--rampup-batch-size``), with which
GPT-3 was trained. The value is a number of examples; consecutive levels are consecutive values of `levels`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule

CARD = Card(
    name="batch-ramp",
    kind="schedule",
    summary="A batch that grows by equal additions over the first examples.",
    formula="batch = first + step floor(consumed / (examples / n)),  n = (last - first) / step",
    symbols={"consumed": "examples seen before the update", "n": "number of additions"},
    options={"step": "by how much it grows; as much as the first batch"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class BatchRamp(Schedule):
    """From ``first`` to ``last`` while ``examples`` examples are seen.

    Attributes:
        first: batch of the first update.
        last: batch at the end of the ramp, and from then on.
        examples: length of the ramp in examples.
        step: what is added at each level; ``first`` by default.

    Raises:
        UsageError: the batches are not positive, or ``last`` is not reached in whole additions.
    """

    first: int
    last: int
    examples: int
    step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.first, self.examples, self.addition) < 1 or self.last < self.first:
            raise UsageError("first, step and examples should be at least 1, and last at least first")
        if (self.last - self.first) % self.addition:
            raise UsageError(
                f"from {self.first} to {self.last} is no whole number of additions of {self.addition}"
            )

    @property
    def addition(self) -> int:
        """By how much it grows."""
        return self.first if self.step is None else self.step

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """(first step, batch) of each level."""
        count = (self.last - self.first) // self.addition
        begin, consumed, out = 0, 0, []
        for number in range(count):
            batch = self.first + number * self.addition
            # the smallest number of updates after which consumed / (examples / count) reaches the next whole number
            updates = max(0, -(-((number + 1) * self.examples - consumed * count) // (batch * count)))
            if updates:
                out.append((begin, batch))
            begin, consumed = begin + updates, consumed + updates * batch
        return [*out, (begin, self.last)]

    def value(self, t: Floats) -> Floats:
        """The batch of the level."""
        starts, batches = zip(*self.levels, strict=True)
        return np.array(batches, np.float64)[np.searchsorted(starts, t, side="right") - 1]
