"""Values from additive sums: what a reader computes once the sums of all ranks are added.

A rank that holds a part of a parameter can't say what the whole parameter's cosine is, but it can say its part of the
sums that the cosine is made of. A signal with a formula is stored as those sums, ``[n, k]`` float64.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Averages = tuple[float, float, float]
"""Weight, and the two sums, of averages that forget."""

MEMORY = 20
"""Values that a running ratio remembers: about so many."""


def _cosine(x: Array) -> Array:
    return np.asarray((x[..., 0] / np.sqrt(x[..., 1] * x[..., 2])).clip(-1.0, 1.0))


def _change(x: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(x[..., 1] - 2 * x[..., 0] + x[..., 2], 0.0) / x[..., 2]))


def _smallest_root_ratio(x: Array) -> Array:
    return np.asarray(np.sqrt(x[..., 0::2] / x[..., 1::2]).min(-1))


def _within(x: Array) -> Array:
    return np.where((x[..., 1] > 0) & (x[..., 1] < x[..., 2]), x[..., 0], np.nan)


def _running_ratio(x: Array) -> Array:
    return running_ratio(_within(x[..., [0, 2, 3]]), _within(x[..., [1, 2, 3]]), (0.0, 0.0, 0.0))[0]


FORMULAS: Mapping[str, Callable[[Array], Array]] = {
    "sum": lambda x: x[..., 0],
    "root": lambda x: np.sqrt(x[..., 0]),
    "inverse power": lambda x: x[..., 0] ** (-x[..., 1] / x[..., 2]),
    "above one": lambda x: (x[..., 0] > 1).astype(np.float64),
    "ratio": lambda x: x[..., 0] / x[..., 1],
    "root ratio": lambda x: np.sqrt(x[..., 0] / x[..., 1]),
    "smallest root ratio": _smallest_root_ratio,
    "cosine": _cosine,
    "change": _change,
    "within": _within,
    "running ratio": _running_ratio,
}
"""Name -> a value for each row of sums ``[..., k]``:

- sum, root: ``a`` and its root; above one: 1 where ``a > 1``, else 0; inverse power: ``a ** (-b / c)``;
- ratio, root ratio: ``a / b`` and its root; smallest root ratio: the smallest root of ``a / b``, ``c / d``, ...;
- cosine: ``a / sqrt(b c)``; change: ``sqrt((b - 2a + c) / c)``, of ``a = <x, y>``, ``b = <x, x>``, ``c = <y, y>``;
- within: ``a`` where ``0 < b < c``, else NaN;
- running ratio: average of ``a`` over average of ``b`` so far, over the rows with ``0 < c < d``.
"""


def evaluate(formula: str, sums: Array) -> Array:
    """The values of a formula: [...] from [..., k]; a division by zero gives infinity or NaN.

    Args:
        formula: one of `FORMULAS`.
        sums: [..., k] additive sums, in the order that the formula has them; a running ratio takes [steps, 4].
            Of a masked array, what is masked in any sum is masked.
    """
    plain = np.asarray(sums, np.float64)
    with np.errstate(all="ignore"):
        values = FORMULAS[formula](plain)
    if isinstance(sums, np.ma.MaskedArray):
        return np.ma.MaskedArray(values, np.ma.getmaskarray(sums).any(-1))
    return values


def running_ratio(above: Array, below: Array, averages: Averages) -> tuple[Array, Averages]:
    """Ratio of two averages that forget, at each step, and the averages at the end.

    Args:
        above, below: [steps]; a step where either is not finite changes nothing.
        averages: those before the first step; zeros where there are none.

    Returns:
        [steps] ratios: NaN before the first value, infinite where the average below is not positive.
    """
    weight, s, g = averages
    ratios = []
    for a, b in zip(above.tolist(), below.tolist(), strict=True):
        if np.isfinite(a) and np.isfinite(b):
            keep = 1 - 1 / MEMORY
            weight, s, g = keep * weight + 1, keep * s + a, keep * g + b
        ratios.append(s / g if g > 0 else float("inf") if weight else float("nan"))
    return np.array(ratios), (weight, s, g)
