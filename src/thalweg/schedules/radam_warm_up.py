"""RAdam's rule as a warm-up: the rate grows as the variance of Adam's step sinks.

    rho(n) = rho_inf - 2 n beta2^n / (1 - beta2^n),   rho_inf = 2 / (1 - beta2) - 1,   n = t + 1
    s(t) = peak sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))      where rho > 5, else 0

Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2020). The paper's condition is rho > 4; its code
and torch's RAdam take 5, as here. Where it fails RAdam makes a step without Adam's denominator; as a schedule for Adam
the rate is 0 there: the first 5 updates with beta2 = 0.999. ``RAdamWarmUp(peak=1.0) * schedule`` has the rule throughout.
"""

from dataclasses import dataclass

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import UsageError
from thalweg.schedules.shape import Floats, Schedule

CARD = Card(
    name="radam-warm-up",
    kind="schedule",
    summary="RAdam's rectification as a warm-up for Adam.",
    papers=(125,),
    formula="s(t) = peak sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))",
    symbols={"rho": "degrees of freedom of Adam's second moment after t + 1 updates", "rho_inf": "its limit"},
    options={
        "beta2": "of the Adam it is for; 0.999",
        "total": "where the next schedule begins; without an end by default, 98 % of the peak after 5 / (1 - beta2)",
    },
)


@dataclass(frozen=True, kw_only=True, repr=False)
class RAdamWarmUp(Schedule):
    """The peak times RAdam's factor.

    Raises:
        UsageError: beta2 does not lie between 2/3, below which the rule never begins, and 1.
    """

    peak: float
    beta2: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 / 3 < self.beta2 < 1:
            raise UsageError(
                f"beta2={self.beta2} should lie between 2/3, below which the rule never begins, and 1"
            )

    def value(self, t: Floats) -> Floats:
        """peak r(t + 1)."""
        limit = 2 / (1 - self.beta2) - 1
        n = t + 1
        log_power = np.log(self.beta2) * n
        rho = limit + 2 * n * np.exp(log_power) / np.expm1(log_power)
        # a difference of two numbers of the size of the limit: below 5 by no less than its rounding error
        rho = np.maximum(rho, 4.0)
        factor: Floats = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
        factor[rho <= 5] = 0.0
        factor *= self.peak
        return factor
