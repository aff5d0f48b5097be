"""What a listing says of a run without reading its values: kept while writing, stored in summary frames and at close."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from thalweg.record.signals import SignalSpec


@dataclass
class Overview:
    """Counts and last values of what one process wrote.

    Attributes:
        steps: highest step of each clock.
        last_loss: the last value of the train loss (the shortest name with that role); NaN where there is none.
        last_time: wall time of the last row, Unix seconds; 0 where there is none.
        signals: how many signals were declared.
        points: numbers recorded.
        dropped: numbers thinned away or lost to a disk that refused them.
    """

    steps: dict[str, int] = field(default_factory=dict)
    last_loss: float = math.nan
    last_time: float = 0.0
    signals: int = 0
    points: int = 0
    dropped: int = 0

    @property
    def main_step(self) -> int:
        """The highest step of the clock "updates", or of any clock where there is no such; 0 for an empty run."""
        return self.steps.get("updates", max(self.steps.values(), default=0))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Overview":
        """From JSON of any origin: what is not of the right type keeps its default."""
        out = Overview()
        for item in fields(Overview):
            value, default = data.get(item.name), getattr(out, item.name)
            if isinstance(default, float) and isinstance(value, int | float):
                setattr(out, item.name, float(value))
            elif isinstance(default, int) and type(value) is int:
                setattr(out, item.name, value)
            elif isinstance(default, dict) and isinstance(value, dict):
                out.steps = {str(k): v for k, v in value.items() if type(v) is int}
        return out


def loss_name(specs: Mapping[str, SignalSpec]) -> str | None:
    """The signal a listing shows as "loss": the shortest scalar name with the role "train loss"."""
    names = [s.name for s in specs.values() if s.role == "train loss" and not s.shape]
    return min(names, key=lambda n: (len(n), n), default=None)
