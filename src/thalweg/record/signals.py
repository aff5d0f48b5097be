"""What a signal is: its name, role, clock, unit, shape, and how repeats and ranks are joined.

A name is ``[key:]group/quantity[/layer]``. The role says what the signal means whatever it is called, so that
rules and laws ask for "train loss" and never for a name.
"""

from dataclasses import dataclass, replace
from typing import Literal

Role = Literal[
    "",
    "train loss",
    "evaluation loss",
    "train metric",
    "evaluation metric",
    "rate",
    "weight decay",
    "momentum",
    "batch size",
    "gradient norm",
    "update norm",
    "update ratio",
    "weight norm",
    "activation",
    "noise scale",
    "loss scale",
    "skipped updates",
    "tokens",
    "samples",
    "epoch",
    "wall time",
    "step time",
    "memory",
    "cost",
]

Stage = Literal["", "raw", "applied"]
Reduce = Literal["none", "sum", "mean", "max", "norm", "count"]


@dataclass(frozen=True, kw_only=True)
class SignalSpec:
    """The declaration of one signal.

    Attributes:
        name: ``[key:]group/quantity[/layer]``, for instance ``grad/norm/blocks.0.mlp.weight``.
        role: what it means, whatever its name; empty where no rule asks for it.
        clock: which counter its steps are of: "updates" (applied updates), "tries", or a key's own clock.
        layer: the canonical name of the layer or parameter it belongs to; empty for the whole model.
        unit: unit of the values ("nats", "s", "bytes"); empty for pure numbers.
        dtype: NumPy name of the stored type; float32 unless more is needed.
        shape: shape of one value; () for a scalar.
        stage: for gradients: "raw" before clipping, "applied" as the optimizer uses it.
        reduce: how the values that several ranks wrote at one step are joined; "norm" is the root of the sum
            of squares, "count" a sum in which a rank that wrote nothing at a step counts as zero, "none" keeps the
            lowest rank's.
        formula: what a reader computes of the joined values, one of `thalweg.record.formulas.FORMULAS`: a signal
            with a formula is stored as the sums that it is made of, shape (k,), and read as a scalar. Empty where
            the values are the signal's own.
        window: how many steps one value stands for (an imported mean of 50 steps has 50).
        estimator: how it was estimated where that is a choice ("sample of 65536 coordinates").
        version: of its definition: raised when the formula changes.
    """

    name: str
    role: Role = ""
    clock: str = "updates"
    layer: str = ""
    unit: str = ""
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    stage: Stage = ""
    reduce: Reduce = "none"
    formula: str = ""
    window: int = 1
    estimator: str = ""
    version: int = 1

    def finished(self) -> "SignalSpec":
        """The declaration of what a reader gives: for a signal with a formula a scalar, and not its sums."""
        return replace(self, shape=(), dtype="float32") if self.formula else self
