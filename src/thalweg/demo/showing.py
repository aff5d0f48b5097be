"""What the demonstration shows while it runs: progress, loss, rate, speed, time left, and the cost of the watch."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from thalweg.demo.training import LESSONS, Lesson
from thalweg.record.naming import default_path
from thalweg.watching import Watch


def run_demo(folder: Path, *, shorten: int = 1, console: Console | None = None) -> list[Path]:
    """Train and watch two networks, and one of them again with two mistakes; about a minute on two cores.

    Args:
        folder: where the run files go.
        shorten: divide the steps by this, to try it out quickly.
        console: where to show progress; by default the terminal.

    Returns:
        The run files; the last is that of the training that goes wrong.
    """
    console = console or Console()
    made = []
    for lesson in LESSONS:
        short = Lesson(
            lesson.name, lesson.title, max(20, lesson.steps // shorten), lesson.batch, lesson.train
        )
        out = default_path(folder)
        out = out.with_name(f"{lesson.name}-{out.name}")
        made.append(_show(short, out, console))
    return made


def _show(lesson: Lesson, out: Path, console: Console) -> Path:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed}/{task.total} {task.fields[now]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(lesson.title, total=lesson.steps, now="")
        began = time.perf_counter()

        def tell(watch: Watch, step: int, loss: float, rate: float) -> None:
            if step % 5 == 0 or step == lesson.steps:
                speed = step * lesson.batch / (time.perf_counter() - began)
                cost = watch.cost.get("share")
                words = f"loss {loss:.3f} rate {rate:.0e} {speed:,.0f} ex/s"
                words += f" watch {cost:.1%}" if cost is not None else ""
                progress.update(task, completed=step, now=words)

        return lesson.train(lesson, out, tell)
