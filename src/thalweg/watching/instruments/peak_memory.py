r"""Peak memory: of the process, and of the accelerator's allocator.

Both are high-water marks since the start of the process; neither reading waits for the device.
"""

import resource
import sys
from collections.abc import Mapping, Sequence

import torch

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, StepView, When

CARD = Card(
    name="peak-memory",
    kind="instrument",
    summary="Peak resident memory of the process and peak allocation on the accelerator.",
    cost="one system call",
    signals=("memory/peak", "memory/device_peak"),
)


class PeakMemory:
    """High-water marks of memory, in bytes."""

    card = CARD
    needs = Needs(shortest=50)
    when = When.UPDATE
    emits = (
        Emits(name="memory/peak", role="memory", unit="bytes", reduce="max"),
        Emits(name="memory/device_peak", unit="bytes", reduce="max"),
    )

    def measure(self, view: StepView) -> Measured | None:
        """The two marks."""
        unit = 1 if sys.platform == "darwin" else 1024
        facts = {"memory/peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
            facts["memory/device_peak"] = float(torch.cuda.max_memory_allocated())
        return Measured({}, (), facts)

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """As they are."""
        return facts
