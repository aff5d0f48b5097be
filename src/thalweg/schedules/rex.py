"""REX, the reflected exponential: above the linear decay for most of the run, and faster at its end.

    s(t) = peak (1 - z) / (1 / 2 + (1 - z) / 2),   z = t / T

Chen et al., "REX: Revisiting Budgeted Training with an Improved Schedule" (2022), sampled at every step; `Sampled` gives
any profile another sampling rate.
"""

from dataclasses import dataclass

from thalweg.core.cards import Card
from thalweg.schedules.shape import Floats, Schedule

CARD = Card(
    name="rex",
    kind="schedule",
    summary="The reflected exponential: stays higher than linear, and falls faster at the end.",
    papers=(15,),
    formula="s(t) = peak (1 - z) / (1 / 2 + (1 - z) / 2),  z = t / T",
    symbols={"T": "total"},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class REX(Schedule):
    """From ``peak`` to zero in ``total`` updates.

    Raises:
        UsageError: a value can't be used.
    """

    peak: float
    total: int

    def value(self, t: Floats) -> Floats:
        """On the profile."""
        left = 1 - t / self.total
        return self.peak * left / (0.5 + 0.5 * left)
