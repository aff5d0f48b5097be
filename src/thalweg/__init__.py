"""Thalweg: watch, diagnose, forecast and steer the training of neural networks.

``import thalweg as tw`` loads nothing but this file: each name below is imported when it is first used. Names
that need PyTorch raise `MissingTorch` where it is not installed, and are left out of ``__all__`` there, so that
``hasattr``, ``help`` and ``from thalweg import *`` work with and without it.
"""

from typing import TYPE_CHECKING

from thalweg.core.lazy import attach

if TYPE_CHECKING:
    from thalweg import data as data
    from thalweg import optim as optim
    from thalweg import schedules as schedules
    from thalweg.core import Card as Card
    from thalweg.core import methods as methods
    from thalweg.core import papers as papers
    from thalweg.diagnosis import diagnose as diagnose
    from thalweg.diagnosis import explain as explain
    from thalweg.record import Recorder as Recorder
    from thalweg.record import Run as Run
    from thalweg.record import open_run as open_run
    from thalweg.record import open_runs as open_runs
    from thalweg.reports import report as report
    from thalweg.watching import HeldBatch as HeldBatch
    from thalweg.watching import watch as watch
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "Card": "thalweg.core",
            "Recorder": "thalweg.record",
            "Run": "thalweg.record",
            "data": "",
            "diagnose": "thalweg.diagnosis",
            "explain": "thalweg.diagnosis",
            "methods": "thalweg.core",
            "open_run": "thalweg.record",
            "open_runs": "thalweg.record",
            "papers": "thalweg.core",
            "report": "thalweg.reports",
            "schedules": "",
        },
        with_torch={
            "HeldBatch": "thalweg.watching",
            "optim": "",
            "watch": "thalweg.watching",
        },
        also=("__version__",),
    )

__version__ = "0.1.0"
