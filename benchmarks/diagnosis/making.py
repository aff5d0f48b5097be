"""Runs are made in processes of their own, several at once, with progress; a list of them lies beside them."""

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.diagnosis import healthy
from benchmarks.diagnosis.pathologies import RECIPES, make
from benchmarks.diagnosis.training import Training

DEVELOPMENT_SEEDS = (0, 1)
TEST_SEEDS = (100, 101, 102, 103, 104)
TEST_HEALTHY = 2000  # those from 1000 on were looked at once: see the page
TRUTH = "truth.json"


@dataclass(frozen=True)
class Job:
    """One run to make: a recipe with its variant and seed, or a healthy run with its number."""

    recipe: str
    variant: tuple[str, str]
    seed: int

    @property
    def name(self) -> str:
        """Name of the run file, without its suffix."""
        return (
            "-".join([self.recipe, *self.variant, str(self.seed)])
            if self.recipe
            else f"healthy-{self.seed:04}"
        )


def jobs(part: str, only: str = "") -> list[Job]:
    """The runs of a part: "dev" (pathologies and 40 healthy runs), "test" (pathologies), "healthy" (200).

    In development every variant is made with every seed; in the test the variants take turns over the seeds.
    """
    if part == "healthy":
        out = [Job("", ("", ""), TEST_HEALTHY + n) for n in range(healthy.TEST)]
    elif part == "test":
        out = [
            Job(r.name, r.variants[n % len(r.variants)], seed)
            for r in RECIPES.values()
            for n, seed in enumerate(TEST_SEEDS)
        ]
    else:
        out = [Job(r.name, v, s) for r in RECIPES.values() for v in r.variants for s in DEVELOPMENT_SEEDS]
        out += [Job("", ("", ""), n) for n in range(healthy.DEVELOPMENT)]
    return [job for job in out if any(word in job.name for word in only.split(","))]


def training_of(job: Job) -> tuple[Training, str]:
    """Its training, and the layers that are right for its finding."""
    return make(job.recipe, job.variant, job.seed) if job.recipe else (healthy.make(job.seed), "")


def make_run(job: Job, folder: str) -> dict[str, Any]:
    """Train one run and write its file, in place of an older one of its name; what is right to say of it."""
    import torch

    torch.set_num_threads(1)
    out = Path(folder) / f"{job.name}.tw"
    for old in out.parent.glob(f"{job.name}[.~]*tw"):
        old.unlink()
    training, layers = training_of(job)
    training.run(out)
    return truth_of(job, training, layers)


def truth_of(job: Job, training: Training, layers: str) -> dict[str, Any]:
    """What is right to say of a run, and what it is."""
    recipe, t = RECIPES.get(job.recipe), training
    return {
        "name": job.name,
        "recipe": job.recipe,
        "network": t.network,
        "optimizer": t.optimizer,
        "seed": job.seed,
        "kinds": list(recipe.kinds) if recipe else [],
        "layers": layers.split(),
        "seen": recipe.seen if recipe else f"batch {t.batch}, {t.steps} steps, rate {t.rate:.2g}",
        "updates_an_epoch": len(t.examples) / (t.batch * t.accumulate),
    }


def make_all(todo: Sequence[Job], folder: Path, workers: int = 2, console: Console | None = None) -> None:
    """Make runs in fresh processes, so that memory and random numbers of one never meet another's."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "thalweg.watching", "benchmarks.diagnosis.pathologies"])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        task = progress.add_task("training", total=len(todo))
        for done in as_completed([pool.submit(make_run, job, str(folder)) for job in todo]):
            enter(folder, done.result())
            progress.advance(task)


def enter(folder: Path, truth: dict[str, Any]) -> None:
    """Keep what is right for a run: in truth.json for programs, in INDEX.md for people."""
    known = {**truths(folder), truth["name"]: truth}
    (folder / TRUTH).write_text(json.dumps(dict(sorted(known.items())), indent=1))
    lines = ["| run | right kinds | right layers | what a person sees |", "| --- | --- | --- | --- |"]
    for name, one in sorted(known.items()):
        right = ", ".join(one["kinds"]) or "none above note"
        lines.append(f"| {name} | {right} | {', '.join(one['layers'])} | {one['seen']} |")
    (folder / "INDEX.md").write_text("\n".join(lines) + "\n")


def truths(folder: Path) -> dict[str, dict[str, Any]]:
    """What is right for each run in a folder, by its name."""
    path = folder / TRUTH
    return json.loads(path.read_text()) if path.exists() else {}
