"""Healthy runs: settings that somebody would choose who has trained such networks before, drawn at random.

They were drawn before any rule had looked at them, and every one is kept.
"""

import random
from collections.abc import Callable
from typing import Any

from benchmarks.diagnosis.training import BATCHES, EVERY_TENTH, Training

DEVELOPMENT = 40
TEST = 200
NETWORKS = ("mlp", "mlpwide", "cnn", "cnnplain", "gpt")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("constant, then down", "cosine", "linear", "wsd", "one-cycle")
SIZES = {"mlp": (8, 16, 32, 64, 128, 256, 512), "cnn": (8, 16, 32, 64, 128), "gpt": (4, 8, 16, 32)}
EXAMPLES_SEEN = {"mlp": (4000, 40_000), "cnn": (4000, 16_000), "gpt": (2000, 5000)}
"""Least and most, within 100 to 2,000 steps: so many that a network learns, so few that it takes some seconds."""


def make(number: int) -> Training:
    """A healthy training; the number decides everything, test runs are numbered from 1,000."""
    draw = random.Random(number)
    network, optimizer = draw.choice(NETWORKS), draw.choice(OPTIMIZERS)
    kind = network[:3]
    batch = draw.choice(SIZES[kind])
    fewest, most = (min(2000, n // batch) for n in EXAMPLES_SEEN[kind])
    shortest, longest = max(100, fewest), max(150, most)
    steps = round(shortest * (longest / shortest) ** draw.random())
    t = Training(network, optimizer, number, steps=steps, batch=batch, warmup=max(5, steps // 20))
    t.rate *= draw.uniform(0.5, 1.5) * min(3.0, (batch / BATCHES[kind]) ** 0.5)
    t.schedule = share(draw.choice(SCHEDULES), t)
    t.options = decay(optimizer, draw)
    t.clip = 1.0 if draw.random() < (0.5 if network == "gpt" else 0.15) else None
    t.evaluate_every = max(5, steps // draw.choice((8, 16, 32)))
    t.watching = draw.choice((EVERY_TENTH, {}))
    return t


def decay(optimizer: str, draw: random.Random) -> dict[str, Any]:
    """Usual weight decay: a little or none, coupled for SGD and Adam; a tenth or a hundredth for AdamW."""
    return {"weight_decay": draw.choice((0.01, 0.1) if optimizer == "adamw" else (0.0, 1e-4))}


def share(name: str, t: Training) -> Callable[[int], float]:
    """A schedule after warm-up: step -> share of the peak rate, near zero at the end."""
    first, last = t.warmup, t.steps

    def left(step: int, begin: float) -> float:
        """One until the share ``begin`` of the run, then linearly to zero."""
        start = first + begin * (last - first)
        return 1.0 if step < start else max(0.0, (last - step) / (last - start))

    if name == "cosine":
        return t.cosine
    if name == "linear":
        return lambda step: left(step, 0.0)
    if name == "wsd":
        return lambda step: left(step, 0.8)
    if name == "constant, then down":
        return lambda step: 1.0 if step < first + 0.6 * (last - first) else 0.1 if step < 0.9 * last else 0.01
    t.warmup = last // 4
    return lambda step: t.cosine(step, 0.001)
