"""An eye on spikes: what counts as one, and the memory of the steps before it."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from thalweg.watching.contracts import Array, Steps

STORE_EVERY = 10
"""Per-layer values of the flight recorder are stored at every tenth step, and in full around a spike."""

RING = 100
"""Steps that the flight recorder remembers before a spike."""

SPIKE = 4.0
"""A value this many times the median of the last `SPIKE_WINDOW` is a trigger; no verdict, a reason to look closely."""

SCATTERS = 12.0
"""... and this many median absolute deviations above it: a loss near zero scatters by multiples of itself."""

SPIKE_WINDOW = 64
QUIET = 200
AFTER_SPIKE = 50
"""Steps after a trigger that are stored in full."""


class FlightRing:
    """The last per-layer norms, also those that were not stored."""

    def __init__(self) -> None:
        self._rows: deque[tuple[tuple[str, ...], int, float, Array]] = deque(maxlen=RING)

    def add(self, steps: Steps, times: Array, layers: Sequence[str], values: Array) -> None:
        """Remember rows."""
        for step, when, row in zip(steps[-RING:], times[-RING:], values[-RING:], strict=True):
            self._rows.append((tuple(layers), int(step), float(when), row))

    def take(self) -> list[tuple[tuple[str, ...], Steps, Array, Array]]:
        """Blocks of (layers, steps, times, values) that were not stored; forgets them."""
        blocks: dict[tuple[str, ...], list[tuple[int, float, Array]]] = {}
        for layers, step, when, row in self._rows:
            if step % STORE_EVERY:
                blocks.setdefault(layers, []).append((step, when, row))
        self._rows.clear()
        return [
            (
                layers,
                np.array([r[0] for r in rows], np.int64),
                np.array([r[1] for r in rows]),
                np.stack([r[2] for r in rows]),
            )
            for layers, rows in blocks.items()
        ]


class Sentinel:
    """Says at which step a signal first leaps above its recent median, or stops being finite."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._quiet_until = -1

    def look(self, steps: Steps, values: Array) -> int | None:
        """The first step of a trigger in these values, or None; then quiet for `QUIET` steps."""
        found: int | None = None
        for at in range(0, len(values), SPIKE_WINDOW // 4):  # what is usual is asked once for a stretch
            part = values[at : at + SPIKE_WINDOW // 4]
            with np.errstate(invalid="ignore"):
                leaps = ~np.isfinite(part) | (part > self._threshold())
            for step in steps[at : at + len(part)][leaps].tolist():
                if step > self._quiet_until:
                    self._quiet_until = step + QUIET
                    found = step if found is None else found
            self._recent.extend(part[np.isfinite(part)].tolist())
        return found

    def _threshold(self) -> float:
        """Both a multiple of the usual value and far outside its usual scatter; infinite while little is known."""
        if len(self._recent) < SPIKE_WINDOW // 4:
            return float("inf")
        recent = np.array(self._recent)
        usual = float(np.median(recent))
        scatter = float(np.median(np.abs(recent - usual)))
        return max(SPIKE * usual, usual + SCATTERS * scatter)
