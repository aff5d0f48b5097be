"""Intervals of a share that was counted."""

from math import comb, sqrt

Z = 1.959964


def wilson(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    share, spread = count / of, Z * Z / of
    middle = (share + spread / 2) / (1 + spread)
    half = Z * sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def clopper_pearson(count: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a share: for counts near none."""

    def at_most(share: float, most: int) -> float:
        return sum(comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(most + 1))

    def solve(most: int, chance: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(middle, most) > chance else (low, middle)
        return low

    lower = 0.0 if count == 0 else solve(count - 1, 0.975)
    upper = 1.0 if count == of else solve(count, 0.025)
    return lower, upper
