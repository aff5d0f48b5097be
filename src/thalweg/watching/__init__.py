"""Watching a training run: `watch`, the step's view, the governor, the default instruments."""

from thalweg.watching.contracts import Emits, HeldBatch, Instrument, Measured, Needs, Quantity, StepView, When
from thalweg.watching.session import Watch
from thalweg.watching.starting import watch

__all__ = [
    "Emits",
    "HeldBatch",
    "Instrument",
    "Measured",
    "Needs",
    "Quantity",
    "StepView",
    "Watch",
    "When",
    "watch",
]
