"""The shapes of a cooldown, from a top value to a low one while z goes from 0 to 1.

linear       top + (low - top) z
sqrt         top + (low - top) sqrt(z)                ("1 - sqrt", best in Hägele et al., arXiv 2405.18392)
cosine       low + (top - low) (1 + cos(pi z)) / 2
exponential  top (low / top)^z                        (MiniCPM, arXiv 2404.06395)
inverse      1 / (1 / top + (1 / low - 1 / top) z)    (WSD-S, arXiv 2410.05192, as in its authors' Levanter)
"""

import math
from typing import Literal

import numpy as np

from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, one_of

Shape = Literal["linear", "sqrt", "exponential", "cosine", "inverse"]

_SHAPES = ("linear", "sqrt", "exponential", "cosine", "inverse")
_NEVER_ZERO = ("exponential", "inverse")


def floor_of(shape: Shape, top: float, final: float | None) -> float:
    """Where a cooldown ends: ``final``, by default 0, or a tenth of the top for the shapes that can't reach 0.

    Raises:
        UsageError: the shape is unknown, or never reaches ``final``.
    """
    one_of("shape", shape, _SHAPES)
    if shape not in _NEVER_ZERO:
        return 0.0 if final is None else final
    low = 0.1 * top if final is None else final
    refuse_zero(top, low)
    return low


def refuse_zero(top: float, low: float) -> None:
    """Refuse a decay by a constant factor that can't be.

    Raises:
        UsageError: one of its ends is 0, or they have different signs.
    """
    if not (top and low / top > 0):
        raise UsageError(
            f"a decay by a constant factor from {top:g} never reaches {low:g}: both should be above 0"
        )


def cooled(shape: Shape, top: float, low: float, z: Floats) -> Floats:
    """The value at shares z [n] of the way down."""
    if shape == "exponential":
        out: Floats = np.exp(math.log(low / top) * z)
        out *= top
        return out
    if shape == "inverse":
        return 1 / (1 / top + (1 / low - 1 / top) * z)
    if shape == "cosine":
        out = np.cos(np.pi * z)
        out += 1
        out *= (top - low) / 2
        out += low
        return out
    return top + (low - top) * (z if shape == "linear" else np.sqrt(z))


def rising(start: float, peak: float, steps: int, t: Floats) -> Floats:
    """The linear warm-up: from ``start`` at step 0 to ``peak`` after ``steps``."""
    return start + (peak - start) * t / steps
