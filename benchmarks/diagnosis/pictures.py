"""Pictures of each kind of trouble and of health, from runs of the benchmark: ``python -m benchmarks.diagnosis.pictures``.

For each kind one pathology with a development seed, and its twin without the mistake. What is drawn is what the rule's
own finding draws, thinned so that no spike is lost.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import thalweg as tw
from benchmarks.diagnosis.making import DEVELOPMENT_SEEDS, Job, make_all
from benchmarks.diagnosis.networks import MLP
from benchmarks.diagnosis.pathologies import RECIPES
from benchmarks.diagnosis.training import Training
from thalweg.diagnosis import Finding
from thalweg.diagnosis.findings import Plot

FOLDER = Path(tw.__file__).parent / "diagnosis" / "pictures"
POINTS = 150
SIGNALS = 3


def accumulating(t: Training) -> None:
    t.accumulate, t.batch = 4, 8


def logging_attention(t: Training) -> None:
    """The same signal as in the pathology, from attention as it should be."""
    rate, schedule = t.rate, t.schedule
    RECIPES["attention-unscaled"].spoil(t)
    t.rate, t.schedule = rate, schedule
    for block in t.model.blocks:  # type: ignore[union-attr]  # a ModuleList
        block.scale = 8**-0.5


def resuming(t: Training) -> None:
    t.resume_at = 280


def scaling(t: Training) -> None:
    import torch

    t.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=50)
    t.autocast = lambda: torch.autocast("cpu", dtype=torch.float16)


def deep(t: Training) -> None:
    import torch

    torch.manual_seed(t.seed)
    t.model = MLP(64, depth=8)


def timing(t: Training) -> None:
    t.steps = 160
    t.extra = lambda step: {"time/data": 5e-5}


def clipping(t: Training) -> None:
    t.clip = 2.0


HEALTHY: dict[str, Callable[[Training], None]] = {
    "accumulation-summed": accumulating,
    "attention-unscaled": logging_attention,
    "batch-of-four": accumulating,
    "batch-of-thousands": accumulating,
    "clipped-far-too-tight": clipping,
    "deep-sigmoid": deep,
    "slow-loader": timing,
    "loader-restarts": resuming,
    "scale-collapses": scaling,
    "states-lost": resuming,
}
"""What a twin needs beside the usual, so that it has the signals of the pathology."""


def recipes_of_kinds() -> dict[str, list[str]]:
    """Kind -> the recipes that are made for it; those that have no other kind first."""
    out: dict[str, list[str]] = {}
    for recipe in sorted(RECIPES.values(), key=lambda r: len(r.kinds)):
        for kind in recipe.kinds:
            out.setdefault(kind, []).append(recipe.name)
    return out


def picture(kind: str, sick: Path, healthy: Path) -> dict[str, Any] | None:
    """What `explain` shows of a kind; None where its rule finds nothing in the run."""
    found = [f for f in tw.diagnose(sick).flat() if f.kind == kind]
    if not found or found[0].evidence.plot is None:
        return None
    plot = found[0].evidence.plot
    ill, well = tw.open_run(sick), tw.open_run(healthy)
    return {
        "kind": kind,
        "sick": {"run": sick.stem, "signals": drawn(ill, plot), "marks": marks(found[0])},
        "healthy": {"run": healthy.stem, "signals": drawn(well, plot), "marks": {}},
    }


def marks(finding: Finding) -> dict[str, int]:
    """The steps that the finding's plot marks."""
    plot = finding.evidence.plot
    return dict(plot.marks) if plot else {}


def drawn(run: tw.Run, plot: Plot) -> dict[str, list[list[float | None]]]:
    """Name -> [steps, values] of the plot's first signals, as far as the run has them."""
    names = [name for name in plot.signals if name in run][:SIGNALS]
    return {name: thinned(run[name].steps, run[name].values.astype(float)) for name in names}


def thinned(steps: np.ndarray, values: np.ndarray) -> list[list[float | None]]:
    """At most `POINTS` of them, the least and the largest of each stretch; what is not finite is None, the first kept."""
    kept = np.arange(len(steps))
    if len(steps) > POINTS:
        bounds = np.linspace(0, len(steps), POINTS // 2 + 1).astype(int)
        filled = np.where(np.isfinite(values), values, np.inf)
        pairs = [(a + filled[a:b].argmin(), a + filled[a:b].argmax()) for a, b in itertools.pairwise(bounds)]
        kept = np.unique(np.array(pairs))
    rounded = [float(f"{v:.4g}") if np.isfinite(v) else None for v in values[kept].tolist()]
    return [steps[kept].tolist(), rounded]


def twin(recipe: str, variant: tuple[str, str], seed: int, folder: Path) -> Path:
    """The same training without the mistake."""
    training = Training(*variant, seed)
    HEALTHY.get(recipe, lambda t: None)(training)
    return training.run(folder / f"healthy-{variant[0]}-{variant[1]}-{seed}.tw")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnosis.pictures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("kinds", nargs="*", help="by default all that a pathology is made for")
    parser.add_argument(
        "--runs", type=Path, help="folder of development runs; trained anew where one is missing"
    )
    given = parser.parse_args()
    console = Console(stderr=True)
    seed = DEVELOPMENT_SEEDS[0]
    with tempfile.TemporaryDirectory(prefix="thalweg-pictures-") as place:
        for kind, recipes in recipes_of_kinds().items():
            if given.kinds and kind not in given.kinds:
                continue
            made = next(
                filter(None, (of_recipe(kind, r, seed, given.runs or Path(place)) for r in recipes)), None
            )
            console.print(f"{kind}: {'no finding' if made is None else made['sick']['run']}")
            if made is not None:
                (FOLDER / f"{kind}.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


def of_recipe(kind: str, recipe: str, seed: int, folder: Path) -> dict[str, Any] | None:
    """The picture of a kind from the first variant of a recipe in which its rule finds it."""
    for variant in RECIPES[recipe].variants:
        job = Job(recipe, variant, seed)
        sick = folder / f"{job.name}.tw"
        if not sick.exists():
            make_all([job], folder, 1)
        if any(f.kind == kind for f in tw.diagnose(sick).flat()):
            with tempfile.TemporaryDirectory(prefix="thalweg-twin-") as place:
                return picture(kind, sick, twin(recipe, variant, seed, Path(place)))
    return None


if __name__ == "__main__":
    main()
