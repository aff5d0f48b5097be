"""Runs for the tests of diagnosis: signals given as arrays, through the public `Recorder`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.record import Recorder, Run, open_run


def make_run(
    path: Path,
    signals: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Run:
    """A run whose signals are given as values at steps 1, 2, ... or as (steps, values)."""
    recorder = Recorder(path, config=config or {}, name=name)
    for signal, given in signals.items():
        steps, values = given if isinstance(given, tuple) else (np.arange(1, len(given) + 1), given)
        recorder.extend([signal], np.asarray(steps), np.asarray(values, np.float64)[:, None])
    recorder.close()
    return open_run(recorder.path)


def falling(steps: int = 1000, *, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """A healthy loss: falls from 2.4 to 0.4, with noise."""
    random = np.random.default_rng(seed)
    return 0.4 + 2 * np.exp(-np.arange(1, steps + 1) / (steps / 5)) + noise * random.standard_normal(steps)
