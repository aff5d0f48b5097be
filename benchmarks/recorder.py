"""What recording costs: points a second, bytes a point, latency, reading and listing; beside other recorders.

Every measurement runs in a fresh process, and the recorders take turns, round after round, so that a busy machine
meets all of them alike; the table shows medians over the rounds. A recorder that is not installed is listed
as absent.

    python benchmarks/recorder.py [--rounds 3] [--json]
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.record import Recorder, open_run, open_runs

Log = Callable[[dict[str, float], int], None]
SIGNALS, STEPS = 100, 1000
SIZES = ((1, 1000), (10, 100), (10, 1000), (100, 100), (100, 1000), (1000, 100))
NEEDS = {
    "thalweg": "thalweg",
    "trackio": "trackio",
    "wandb (offline)": "wandb",
    "tensorboard": "torch.utils.tensorboard",
    "mlflow (sqlite)": "mlflow",
}


# Each recorder: a context that gives a function to log with; leaving it closes the run.


@contextlib.contextmanager
def use_thalweg(folder: Path) -> Iterator[Log]:
    with Recorder(folder / "run.tw") as recorder:
        yield recorder.log


@contextlib.contextmanager
def use_trackio(folder: Path) -> Iterator[Log]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    with contextlib.redirect_stdout(sys.stderr):
        trackio.init(project="benchmark")
        yield lambda values, step: trackio.log(values, step=step)
        trackio.finish()


@contextlib.contextmanager
def use_wandb(folder: Path) -> Iterator[Log]:
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    run = wandb.init(mode="offline", dir=str(folder), project="benchmark")
    yield lambda values, step: run.log(values, step=step)
    run.finish()


@contextlib.contextmanager
def use_tensorboard(folder: Path) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    yield log
    writer.close()


@contextlib.contextmanager
def use_mlflow(folder: Path) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    with mlflow.start_run():
        yield lambda values, step: mlflow.log_metrics(values, step=step)


USES = {
    "thalweg": use_thalweg,
    "trackio": use_trackio,
    "wandb (offline)": use_wandb,
    "tensorboard": use_tensorboard,
    "mlflow (sqlite)": use_mlflow,
}


# What is measured, in a process of its own.


def rows(signals: int, steps: int) -> list[dict[str, float]]:
    names = [f"group/signal{i}" for i in range(signals)]
    table = np.random.default_rng(0).lognormal(size=(steps, signals)).tolist()
    return [dict(zip(names, row, strict=True)) for row in table]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(name: str, folder: Path) -> dict[str, float]:
    """100 scalars in each of 1,000 steps, as fast as the recorder takes them, until all of it is in its file."""
    data = rows(SIGNALS, STEPS)
    taken = np.empty(STEPS)
    began = time.perf_counter()
    with USES[name](folder) as log:
        log(data[0], 0)  # what is only set up once is not a part of the latency
        started = time.perf_counter()
        for step in range(1, STEPS):
            before = time.perf_counter()
            log(data[step], step)
            taken[step] = time.perf_counter() - before
        logged = time.perf_counter()
    closed = time.perf_counter()
    return {
        "points_a_second": (STEPS - 1) * SIGNALS / (closed - started),
        "bytes_a_point": size_of(folder) / (SIGNALS * STEPS),
        "p50_us": float(np.median(taken[1:])) * 1e6,
        "p99_us": float(np.percentile(taken[1:], 99)) * 1e6,
        "setup_s": started - began,
        "close_s": closed - logged,
    }


def sustained(folder: Path) -> dict[str, float]:
    """Millions of points, until they are in the file (and, apart from that, compacted)."""
    out = {}
    data = rows(SIGNALS, STEPS)
    single = [{"loss": row["group/signal0"]} for row in data]
    block = np.random.default_rng(0).random((1000, SIGNALS), dtype=np.float32)
    names = list(data[0])
    for key, points, feed in (
        (
            "log of 100 scalars",
            10_000_000,
            lambda r, n: [r.log(data[s % STEPS], s) for s in range(n // SIGNALS)],
        ),
        ("log of 1 scalar", 1_000_000, lambda r, n: [r.log(single[s % STEPS], s) for s in range(n)]),
        (
            "extend by 1,000 x 100",
            20_000_000,
            lambda r, n: [r.extend(names, np.arange(1000) + 1000 * k, block) for k in range(n // 100_000)],
        ),
    ):
        recorder = Recorder(folder / f"{len(out)}.tw")
        began = time.perf_counter()
        feed(recorder, points)
        recorder.flush(timeout=120)
        out[key] = (points - recorder.dropped) / (time.perf_counter() - began)
        began = time.perf_counter()
        recorder.close(timeout=120)
        out[f"{key}: close, s"] = time.perf_counter() - began
    return out


def sizes(folder: Path) -> dict[str, float]:
    """Bytes a point, open and closed, for steps of 1 ms and of 1 s, written as often as half a second asks for."""
    out = {}
    for signals, steps in SIZES:
        data = rows(signals, steps)
        for seconds in (0.001, 1.0):
            recorder = Recorder(folder / f"{signals}-{steps}-{seconds}.tw", flush_every=3600)
            jitter = np.random.default_rng(0).uniform(0.9, 1.2, steps)
            clock, flushed = 1.7e9, 0.0
            for step in range(steps):
                clock += seconds * jitter[step]
                recorder.log(data[step], step, time=clock)
                if clock - flushed > 0.5:
                    recorder.flush()
                    flushed = clock
            recorder.flush()
            key = f"{signals} x {steps}, steps of {'1 ms' if seconds < 1 else '1 s'}"
            out[f"{key}: open"] = recorder.path.stat().st_size / (signals * steps)
            recorder.close()
            out[f"{key}: closed"] = recorder.path.stat().st_size / (signals * steps)
    return out


def reading(folder: Path) -> dict[str, float]:
    """A million points of one signal, values and steps; a listing of 1,000 runs. Seconds, the best of five."""
    recorder = Recorder(folder / "long.tw", flush_every=3600)
    rng = np.random.default_rng(0)
    times = 1.7e9 + np.cumsum(rng.uniform(0.001, 0.002, 1_000_000))
    recorder.extend(
        ["loss"], np.arange(1_000_000), rng.lognormal(size=1_000_000).astype(np.float32), times=times
    )
    recorder.flush(60)
    out = {"a million points, open": best(lambda: open_run(recorder.path)["loss"])}
    recorder.close(timeout=60)
    out["a million points, closed"] = best(lambda: open_run(recorder.path)["loss"])
    out["their wall times besides"] = (
        best(lambda: open_run(recorder.path)["loss"].times) - out["a million points, closed"]
    )
    many = folder / "many"
    many.mkdir()
    model = Recorder(many / "0.tw", flush_every=3600)
    for step, row in enumerate(rows(20, 300)):
        model.log(row, step)
    model.flush()
    log = model.path.read_bytes()
    model.close()
    closed = model.path.read_bytes()
    for form, data in (("closed", closed), ("killed", log)):
        for index in range(1000):
            (many / f"{index}.tw").write_bytes(data)
        out[f"listing of 1,000 {form} runs"] = best(lambda: open_runs(many))
    return out


def best(action: Callable[[], Any]) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return min(taken)


# Rounds and tables.


def run_child(case: str) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="thalweg-benchmark-"))
    try:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", case, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600, check=False)
        if done.returncode:
            return {"failed": float(done.returncode), "why": done.stderr.strip().splitlines()[-1:]}  # type: ignore[dict-item]
        return json.loads(done.stdout.strip().splitlines()[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def child(case: str, folder: Path) -> None:
    alone = {"sustained": sustained, "sizes": sizes, "reading": reading}
    result = alone[case](folder) if case in alone else compare(case, folder)
    print(json.dumps(result))


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def medians(rounds: list[dict[str, float]]) -> dict[str, Any]:
    failed = next((r for r in rounds if "failed" in r), None)
    if failed:
        return {"failed": failed.get("why", "")}
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def measure(rounds: int) -> dict[str, Any]:
    there = [name for name, module in NEEDS.items() if is_there(module)]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in there}
    for _ in range(rounds):
        for name in there:
            taken[name].append(run_child(name))
    result: dict[str, Any] = {"recorders": {name: medians(taken[name]) for name in there}}
    result["absent"] = [name for name in NEEDS if name not in there]
    for case in ("sustained", "reading"):
        result[case] = medians([run_child(case) for _ in range(rounds)])
    result["sizes"] = run_child("sizes")
    return result


def show(result: dict[str, Any]) -> None:
    print(
        f"{SIGNALS} scalars in each of {STEPS:,} steps, by each recorder; closing is a part of the points a second"
    )
    head = ("recorder", "points/s", "bytes/point", "p50, us", "p99, us", "setup, s", "close, s")
    print(("{:<18}" + "{:>14}" * 6).format(*head))
    keys = ("points_a_second", "bytes_a_point", "p50_us", "p99_us", "setup_s", "close_s")
    for name, row in result["recorders"].items():
        cells = [f"{row[k]:,.0f}" if row[k] >= 1000 else f"{row[k]:.3g}" for k in keys if k in row]
        print(f"{name:<18}" + ("".join(f"{c:>14}" for c in cells) or f"  failed: {row.get('failed')}"))
    for name in result["absent"]:
        print(f"{name:<18}  absent")
    for title, case, unit in (
        ("Sustained by thalweg", "sustained", "points/s (closing: s)"),
        ("Reading by thalweg", "reading", "s"),
        ("Size of thalweg's file", "sizes", "bytes a point"),
    ):
        print(f"\n{title}, {unit}")
        for key, value in result[case].items():
            print(
                f"  {key:<48}{value:>14,.4g}"
                if isinstance(value, float) and value < 1000
                else f"  {key:<48}{value:>14,.0f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each recorder has its turn")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    result = measure(given.rounds)
    print(json.dumps(result, indent=2)) if given.json else show(result)


if __name__ == "__main__":
    main()
