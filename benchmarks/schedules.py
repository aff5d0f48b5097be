"""How long a million values of each schedule take.

The schedules take turns, in an order that turns around at every round. Processor time. The first call is measured apart:
some schedules walk through the run then, once.

    python -m benchmarks.schedules [--rounds 7] [--json]
"""

import argparse
import json
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np

from benchmarks.tables import table
from thalweg import schedules as s

STEPS = 1_000_000
TARGET = 0.05  # seconds of processor time
EXAMPLES: dict[str, Callable[[int], s.Schedule]] = {
    "batch-ramp": lambda n: s.BatchRamp(first=32, last=1024, examples=100 * n, total=n),
    "constant": lambda n: s.Constant(peak=1e-3, total=n),
    "cosine": lambda n: s.Cosine(peak=1e-3, total=n, warmup=0.05),
    "cosine-restarts": lambda n: s.CosineRestarts(peak=1e-3, period=7, total=n),
    "cyclical": lambda n: s.Cyclical(low=1e-5, high=1e-3, half=9, mode="exp_range", total=n),
    "drift-aware": lambda n: s.DriftAware(
        total=n, dimension=20, noise=0.5, drift=s.from_table([0.0, 0.3], steps=[0, n / 2])
    ),
    "exponential": lambda n: s.Exponential(peak=1e-3, decay=0.9999, total=n),
    "infinite": lambda n: s.Infinite(
        peak=1e-3, constant=4e-4, total=n, warmup=0.05, cooldown=0.2, anneal=0.1
    ),
    "inverse-sqrt": lambda n: s.InverseSqrt(peak=1e-3, warmup=3, total=n),
    "linear": lambda n: s.Linear(start=1e-3, total=n),
    "one-cycle": lambda n: s.OneCycle(peak=1e-3, total=n),
    "polynomial": lambda n: s.Polynomial(peak=1e-3, total=n, power=1.5, warmup=0.1),
    "power": lambda n: s.Power(batch=64, length_of_sequence=512, total=n, warmup=0.05, decay=0.2),
    "qsr": lambda n: s.QuadraticSync(rate=s.Cosine(peak=1e-3, total=n), alpha=3e-3),
    "radam-warm-up": lambda n: s.RAdamWarmUp(peak=1e-3, total=n),
    "refined": lambda n: s.Refined(peak=1e-3, norms=tuple(2 + np.cos(np.arange(100) / 9)), total=n),
    "rewarm-redecay": lambda n: s.RewarmRedecay(
        peak=1e-3, stages=(n - n // 2, n // 2), warmup=0.05, again=5e-4
    ),
    "rex": lambda n: s.REX(peak=1e-3, total=n),
    "sampled": lambda n: s.Sampled(profile=s.REX(peak=1e-3, total=n), every=0.1),
    "sampling-temperature": lambda n: s.SamplingTemperature(total=n, shape="linear"),
    "slow-start-fast-decay": lambda n: s.SlowStartFastDecay(peak=1e-3, total=n),
    "steps": lambda n: s.Steps(peak=1e-3, every=8, factor=0.9999, total=n),
    "two-phase": lambda n: s.TwoPhase(peak=1e-3, total=n, switch=0.7, warmup=0.05),
    "warm-up": lambda n: s.WarmUp(peak=1e-3, total=n, shape="cosine"),
    "wsd": lambda n: s.WSD(peak=1e-3, total=n, warmup=0.05),
    "wsd-s": lambda n: s.WSDS(peak=1e-3, ends=(n // 3, n // 2, n), warmup=0.05),
}
"""Schedules by the names of their cards, each for a run of n updates; their tests use them too."""


def measure(rounds: int = 7) -> dict[str, Any]:
    steps = np.arange(STEPS, dtype=np.float64)
    made = {name: make(STEPS) for name, make in EXAMPLES.items()}
    firsts = {name: _seconds(schedule, steps) for name, schedule in made.items()}
    taken: dict[str, list[float]] = {name: [] for name in made}
    for number in range(rounds):
        for name in list(made)[:: -1 if number % 2 else 1]:
            taken[name].append(_seconds(made[name], steps))
    one = {name: min(_seconds(made[name], 777) for _ in range(20)) for name in made}
    return {
        name: {"first": firsts[name], "median": statistics.median(each), "most": max(each), "one": one[name]}
        for name, each in taken.items()
    }


def _seconds(schedule: s.Schedule, steps: Any) -> float:
    began = process_time()
    schedule(steps)
    return process_time() - began


def show(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    rows = [
        [name, *(f"{1000 * v:.3g}" for v in one.values()), f"{1000 * TARGET:.0f}"]
        for name, one in result.items()
    ]
    return table(["a million values, ms", "first call", "median", "most", "one value", "target"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each schedule has its turn")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    result = measure(given.rounds)
    print(json.dumps(result, indent=2) if given.json else show(result))


if __name__ == "__main__":
    main()
