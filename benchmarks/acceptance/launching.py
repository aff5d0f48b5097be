"""Starts the processes of the grid, collects their verdicts, and ends those that hang."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from acceptance.cells import Cell
from acceptance.verdicts import WRONG, Verdict

PATIENCE = 120.0
"""Seconds without a new verdict after which the processes are taken to hang."""

ROOT = Path(__file__).parents[2]


def judge(cells: Sequence[Cell], folder: Path, *, inductor: bool = False) -> list[Verdict]:
    """A verdict on each cell, in order; those of one process beside those of two."""
    worlds = sorted({c.world for c in cells})
    with ThreadPoolExecutor(len(worlds) or 1) as pool:
        futures = [
            pool.submit(_judge_world, world, [c.name for c in cells if c.world == world], folder, inductor)
            for world in worlds
        ]
        found = {v.cell: v for future in futures for v in future.result()}
    return [found[c.name] for c in cells]


def _judge_world(world: int, names: list[str], folder: Path, inductor: bool) -> list[Verdict]:
    """All cells of so many processes; after a hang or crash, the rest in new processes."""
    verdicts: list[Verdict] = []
    while len(verdicts) < len(names):
        place = folder / f"world{world}-{len(verdicts)}"
        place.mkdir(parents=True)
        found, trouble = _launch(world, names[len(verdicts) :], place, inductor)
        verdicts += found
        if trouble and len(verdicts) < len(names):
            verdicts.append(Verdict(names[len(verdicts)], WRONG, trouble))
    return verdicts


def _launch(world: int, names: list[str], place: Path, inductor: bool) -> tuple[list[Verdict], str]:
    (place / "cells.json").write_text(json.dumps(names))
    arguments = [sys.executable, "-m", "acceptance.worker", "--cells", str(place / "cells.json")]
    arguments += ["--folder", str(place), "--world", str(world), *(["--inductor"] if inductor else [])]
    paths = [str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
    }
    environment.pop("THALWEG", None)
    running = []
    for rank in range(world):
        with (place / f"rank{rank}.log").open("w") as log:
            running.append(
                subprocess.Popen([*arguments, "--rank", str(rank)], env=environment, stdout=log, stderr=log)
            )
    trouble = _wait(running, place / "verdicts.jsonl")
    lines = (place / "verdicts.jsonl").read_text().splitlines() if (place / "verdicts.jsonl").exists() else []
    if trouble:
        last = [(place / f"rank{r}.log").read_text().strip().splitlines()[-1:] for r in range(world)]
        trouble += "".join(f"; rank {r}: {text[0]}" for r, text in enumerate(last) if text)
    return [Verdict(**json.loads(line)) for line in lines], trouble


def _wait(running: Sequence[subprocess.Popen[bytes]], verdicts: Path) -> str:
    """Until all have ended; what went wrong, in words, else empty."""
    seen, since = -1, time.monotonic()
    while any(p.poll() is None for p in running):
        size = verdicts.stat().st_size if verdicts.exists() else 0
        if size != seen:
            seen, since = size, time.monotonic()
        crashed = [p.returncode for p in running if p.poll() not in (None, 0)]
        if crashed or time.monotonic() - since > PATIENCE:
            time.sleep(1.0)
            for process in running:
                process.kill()
            for process in running:
                process.wait()
            return (
                f"a process ended with {crashed[0]}" if crashed else f"no answer in {PATIENCE:.0f} s: a hang"
            )
        time.sleep(0.2)
    codes = [p.returncode for p in running if p.returncode]
    return f"a process ended with {codes[0]}" if codes else ""
