"""Losses and rates by formula, and runs that were resumed, for tests of rules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from memory_runs import RunView
from numpy.typing import NDArray

from thalweg.record import Run
from thalweg.record.importing.assembling import assemble
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part

Floats = NDArray[np.float64]


def falling(
    steps: int, seed: int = 0, *, first: float = 2.3, last: float = 0.3, noise: float = 0.1
) -> Floats:
    """A healthy loss: a power of the step, with noise in proportion."""
    random = np.random.default_rng(seed)
    curve = last + (first - last) * (1 + np.arange(steps) / (0.02 * steps + 1)) ** -0.8
    return np.asarray(curve * (1 + noise * random.standard_normal(steps)))


def heavy_tailed(steps: int, seed: int = 0) -> Floats:
    """A memorized set: the loss falls to 1e-3, with single batches at up to 1."""
    random = np.random.default_rng(seed)
    level = 1e-3 + 2.3 * np.exp(-np.arange(steps) / (0.1 * steps))
    rare = np.where(random.random(steps) < 0.05, random.exponential(0.3, steps), 0.0)
    return np.asarray(level * random.lognormal(0, 0.7, steps) + rare)


def cosine(steps: int, peak: float = 1e-3, warmup: int = 0) -> Floats:
    """A rate: linear warm-up, then half a cosine to zero."""
    t = np.arange(steps)
    share = np.clip((t - warmup) / max(1, steps - warmup), 0, 1)
    return np.where(t < warmup, peak * (t + 1) / max(1, warmup), peak * 0.5 * (1 + np.cos(np.pi * share)))


def resumed(*parts: Mapping[str, tuple[Any, Any]]) -> RunView:
    """A run of several parts, each of which replaces what came before from its first step on: name -> steps, values."""
    made = [
        Part(
            columns=[
                Column(name=name, steps=np.asarray(steps, np.int64), values=np.asarray(values, np.float64))
                for name, (steps, values) in part.items()
            ]
        )
        for part in parts
    ]
    source = assemble(Imported(path=Path("memory"), name="memory", format="made", parts=made), NameMap())
    return RunView(Run(Path("memory"), lambda _: [source]))
