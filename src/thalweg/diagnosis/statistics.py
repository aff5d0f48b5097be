"""What rules measure with: robust, vectorised, and honest about short or noisy curves. NumPy only."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MAD = 1.4826  # median absolute deviation to the standard deviation of a normal distribution


def trailing_median(values: ArrayLike, width: int) -> Floats:
    """[n] median of the ``width`` values before each one (itself left out); of fewer at the start; NaN at the first."""
    x = np.asarray(values, np.float64)
    padded = np.concatenate([np.full(width, np.nan), x])
    windows = sliding_window_view(padded, width)[: len(x)]
    return _nanmedian(windows)


def centered_median(values: ArrayLike, width: int) -> Floats:
    """[n] median of the ``width`` values around each one; of those there are at the ends."""
    x = np.asarray(values, np.float64)
    half = width // 2
    padded = np.concatenate([np.full(half, np.nan), x, np.full(half, np.nan)])
    return _nanmedian(sliding_window_view(padded, 2 * half + 1))


def trailing_scale(values: ArrayLike, width: int) -> Floats:
    """[n] robust standard deviation of the ``width`` values before each one, about their own median."""
    x = np.asarray(values, np.float64)
    padded = np.concatenate([np.full(width, np.nan), x])
    windows = sliding_window_view(padded, width)[: len(x)]
    middle = _nanmedian(windows)
    return MAD * _nanmedian(np.abs(windows - middle[:, None]))


def noise(values: ArrayLike) -> float:
    """Robust standard deviation of what changes from one value to the next: the noise, with trends left out."""
    x = np.asarray(values, np.float64)
    if len(x) < 3:
        return 0.0
    return float(MAD * np.median(np.abs(np.diff(x))) / np.sqrt(2))


def slope(steps: ArrayLike, values: ArrayLike) -> tuple[float, float]:
    """Slope of a straight line over steps, and its standard error by the noise of neighbors; zeros below 3 values.

    The error takes neighbors as independent; smooth before, or trust it less, where they aren't.
    """
    t, x = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(x) < 3 or np.ptp(t) == 0:
        return 0.0, 0.0
    centered = t - t.mean()
    spread = float((centered**2).sum())
    line = float((centered * (x - x.mean())).sum() / spread)
    residual = x - x.mean() - line * centered
    return line, float(np.sqrt((residual**2).sum() / max(1, len(x) - 2) / spread))


def stretches(steps: ArrayLike, values: ArrayLike, count: int) -> tuple[Floats, Floats, Floats]:
    """Means over at most ``count`` stretches of equally many values: middle steps, means and standard errors [k]."""
    t, x = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    edges = np.linspace(0, len(x), min(count, len(x)) + 1).astype(int)
    pieces = [slice(a, b) for a, b in itertools.pairwise(edges)]
    means = np.array([x[p].mean() for p in pieces])
    errors = np.array(
        [x[p].std(ddof=1) / np.sqrt(p.stop - p.start) if p.stop - p.start > 1 else 0.0 for p in pieces]
    )
    return np.array([t[p].mean() for p in pieces]), means, errors


def column_medians(matrix: ArrayLike) -> Floats:
    """[k] median of each column of [n, k], NaN and infinities left out; NaN for a column without finite values."""
    x = np.asarray(matrix, np.float64).T
    return _nanmedian(np.where(np.isfinite(x), x, np.nan))


def median_of_five(values: ArrayLike) -> Floats:
    """[n] median of each value, the two before and the two after it; of those there are at the ends."""
    x = np.asarray(values, np.float64)
    if len(x) < 5:
        return centered_median(x, 5)
    out = np.empty(len(x))
    out[2:-2] = np.sort(sliding_window_view(x, 5), axis=1)[:, 2]
    for place in (0, 1, len(x) - 2, len(x) - 1):
        out[place] = np.median(x[max(0, place - 2) : place + 3])
    return out


def levels(steps: ArrayLike, values: ArrayLike, count: int) -> tuple[Floats, Floats]:
    """Medians over at most ``count`` stretches of equally many values: middle steps and medians [k]."""
    t, x = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    edges = np.linspace(0, len(x), min(count, len(x)) + 1).astype(int)
    pieces = [slice(a, b) for a, b in itertools.pairwise(edges)]
    return np.array([t[p].mean() for p in pieces]), np.array([np.median(x[p]) for p in pieces])


def first_rise(
    steps: ArrayLike, values: ArrayLike, start: float, stop: float, reach: float, factor: float = 2.0
) -> tuple[int, float] | None:
    """When a positive signal rose between ``start - reach`` and ``stop``, against its level in the calm before.

    The calm is the stretch five times as long before that; a rise is ``factor`` times its median and well above its
    90th percentile.

    Returns:
        The first such step and the largest factor; None if there was none, or fewer than 5 calm values.
    """
    t, x = np.asarray(steps), np.asarray(values, np.float64)
    low, middle = np.searchsorted(t, [start - 6 * reach, start - reach])
    high = int(np.searchsorted(t, stop, side="right"))
    calm, near = x[low:middle], x[middle:high]
    if len(calm) < 5 or not len(near) or not (level := float(np.median(calm))) > 0:
        return None
    over = np.flatnonzero(near >= max(factor * level, level + 3 * float(np.percentile(calm, 90) - level)))
    return (int(t[middle + over[0]]), float(near.max() / level)) if len(over) else None


@dataclass(frozen=True)
class RateCourse:
    """The course of a rate over a run.

    Attributes:
        steps: [n] steps.
        shares: [n] the rate as a share of its peak.
        peak: the highest rate.
        warmed: place at which it first is at 0.995 of its peak.
        leaves: place after which it is never again at 0.995 of its peak.
        low: place from which it stays at 0.05 of its peak or below; n if it doesn't end there.
    """

    steps: NDArray[np.int64]
    shares: Floats
    peak: float
    warmed: int
    leaves: int
    low: int

    @property
    def constant(self) -> bool:
        """Whether it stays at its peak once it is there."""
        return bool((self.shares[self.warmed :] >= 0.995).all())

    def part(self, place: int) -> float:
        """How much of the run is over at a place, from 0 to 1."""
        span = float(self.steps[-1] - self.steps[0])
        return float(self.steps[min(place, len(self.steps) - 1)] - self.steps[0]) / span if span else 0.0


def rate_course(steps: ArrayLike, rates: ArrayLike) -> RateCourse | None:
    """The course of a rate; None for fewer than 10 values or one that is never positive."""
    t, x = np.asarray(steps, np.int64), np.asarray(rates, np.float64)
    peak = float(x.max()) if len(x) else 0.0
    if len(x) < 10 or not peak > 0:
        return None
    shares = x / peak
    top = np.flatnonzero(shares >= 0.995)
    above = np.flatnonzero(shares > 0.05)
    return RateCourse(t, shares, peak, int(top[0]), int(top[-1]), int(above[-1]) + 1)


def runs_of(mask: ArrayLike) -> list[tuple[int, int]]:
    """Where a mask is true: first and last index of every stretch."""
    flags = np.asarray(mask, bool)
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True)
    )


def _nanmedian(windows: Floats) -> Floats:
    """Median over the last axis, NaN left out, in pieces that keep memory small."""
    out = np.full(windows.shape[0], np.nan)
    rows = max(1, (1 << 22) // max(1, windows.shape[1]))
    for start in range(0, len(out), rows):
        piece = windows[start : start + rows]
        some = ~np.isnan(piece).all(axis=1)
        if some.any():
            out[start : start + rows][some] = np.nanmedian(piece[some], axis=1)
    return out
