"""Runs are made in processes of their own, several at once, with progress; a list of them lies beside them."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.diagnosis import healthy
from benchmarks.diagnosis.pathologies import RECIPES, Recipe, make

DEVELOPMENT_SEEDS = (0, 1)
TEST_SEEDS = (100, 101, 102, 103, 104)
TEST_HEALTHY = 1000


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


def job_of(name: str) -> Job:
    """The job that a run file's name tells."""
    if name.startswith("healthy-"):
        return Job("", ("", ""), int(name.removeprefix("healthy-")))
    recipe, network, optimizer, seed = name.rsplit("-", 3)
    return Job(recipe, (network, optimizer), int(seed))


def recipe_of(job: Job) -> Recipe | None:
    """Its recipe; None for a healthy run."""
    return RECIPES[job.recipe] if job.recipe else None


def layers_of(job: Job) -> tuple[str, ...]:
    """The layers that are right for its finding; () where the trouble is in none."""
    return tuple(make(job.recipe, job.variant, job.seed)[1].split()) if job.recipe else ()


def make_run(job: Job, folder: str) -> Path:
    """Train one run and write its file; what was there under its name is replaced."""
    import torch

    torch.set_num_threads(1)
    out = Path(folder) / f"{job.name}.tw"
    for old in out.parent.glob(f"{job.name}[.~]*tw"):
        old.unlink()
    training = make(job.recipe, job.variant, job.seed)[0] if job.recipe else healthy.make(job.seed)
    return training.run(out)


def make_all(todo: Sequence[Job], folder: Path, workers: int = 2, console: Console | None = None) -> None:
    """Make runs in fresh processes, so that memory and random numbers of one never meet another."""
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
            done.result()
            progress.advance(task)


def write_index(folder: Path) -> Path:
    """INDEX.md: a line for each run in the folder with what is right for it, and what a person sees."""
    lines = ["| run | right kinds | right layers | what a person sees |", "| --- | --- | --- | --- |"]
    for path in sorted(folder.glob("*.tw")):
        if "~" not in path.name:
            job = job_of(path.stem)
            recipe = recipe_of(job)
            right = ", ".join(recipe.kinds) if recipe else "none above note"
            seen = recipe.seen if recipe else described(job)
            lines.append(f"| {path.stem} | {right} | {', '.join(layers_of(job))} | {seen} |")
    out = folder / "INDEX.md"
    out.write_text("\n".join(lines) + "\n")
    return out


def described(job: Job) -> str:
    """A healthy run's settings."""
    t = healthy.make(job.seed)
    return f"{t.network}, {t.optimizer}, batch {t.batch}, {t.steps} steps, rate {t.rate:.2g}"
