"""What the watch itself costs: its share of the time of the steps, with an interval."""

import math
from collections import deque
from typing import Any

BLOCK = 50
"""Steps summed into one observation: a block holds cheap and expensive steps alike."""

_T = 2.0
"""Half-width in standard errors: about 95 % for more than a dozen blocks."""


class CostMeter:
    """Time in the loop's own thread that the watch's hooks took, in blocks of steps.

    What its background thread takes of the interpreter is not in it; the benchmarks measure both.
    """

    def __init__(self) -> None:
        self._blocks: deque[tuple[float, float]] = deque(maxlen=4096)
        self._elapsed = self._spent = 0.0
        self._steps = self._total = 0

    def add(self, elapsed: float, spent: float, steps: int) -> None:
        """So many steps took ``elapsed`` seconds in all, ``spent`` of them in the watch."""
        self._elapsed += elapsed
        self._spent += spent
        self._steps += steps
        if self._steps >= BLOCK:
            self._total += self._steps
            self._steps = 0
            self._blocks.append((self._elapsed, self._spent))
            self._elapsed = self._spent = 0.0

    def summary(self) -> dict[str, Any]:
        """Share of the time without the watch, its 95 % interval over blocks, microseconds a step; {} if too short."""
        blocks = list(self._blocks)
        if not blocks:
            return {}
        elapsed, spent = sum(b[0] for b in blocks), sum(b[1] for b in blocks)
        share = spent / max(elapsed - spent, 1e-12)
        out: dict[str, Any] = {
            "share": share,
            "microseconds_per_step": 1e6 * spent / self._total,
            "steps": self._total,
        }
        if len(blocks) > 2:
            shares = [s / max(e - s, 1e-12) for e, s in blocks]
            mean = sum(shares) / len(shares)
            variance = sum((s - mean) ** 2 for s in shares) / (len(shares) - 1)
            half = _T * math.sqrt(variance / len(shares))
            out |= {"low": max(share - half, 0.0), "high": share + half}
        return out
