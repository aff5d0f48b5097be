"""How long it takes until something happens: importing, and listing a folder of a thousand runs.

Each measurement is a fresh process, and the cases take turns. The bare interpreter and NumPy stand beside them, since
they are in every figure; PyTorch, since none of the listed cases may import it.

    python -m benchmarks.startup [--rounds 10] [--json]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.tables import table
from thalweg.record import Recorder

RUNS, STEPS, SIGNALS = 1000, 300, 20
INSIDE = (
    "import sys, time; wall, processor = time.perf_counter(), time.process_time(); import {0}; "
    "print(time.perf_counter() - wall, time.process_time() - processor, 'torch' in sys.modules)"
)
IMPORTS = ("thalweg", "numpy", "torch")
TARGETS = {
    "import thalweg": "0.15",
    "thalweg ls, 1,000 closed runs, whole process": "1",
    "thalweg ls, 1,000 killed runs, whole process": "1",
}


def make_runs(folder: Path) -> dict[str, Path]:
    """Two folders of a thousand runs each: closed ones, and ones whose process was killed."""
    names = [f"group/signal{i}" for i in range(SIGNALS)]
    values = np.random.default_rng(0).lognormal(size=(STEPS, SIGNALS))
    forms = {form: folder / form for form in ("closed", "killed")}
    for path in forms.values():
        path.mkdir()
    for index in range(RUNS):
        recorder = Recorder(forms["closed"] / f"{index:04}.tw", flush_every=3600)
        recorder.extend(names, np.arange(STEPS), values)
        recorder.flush()
        (forms["killed"] / recorder.path.name).write_bytes(recorder.path.read_bytes())
        recorder.close()
    return forms


def run(command: list[str], folder: Path) -> tuple[tuple[float, float], str]:
    """((wall, processor time) of a whole process, what it printed); compiled modules are kept, as in an installation."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True, env=environment)
    wall = perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), done.stdout


def importing(module: str, folder: Path) -> tuple[float, float]:
    """(wall, processor time) of an import, without the interpreter's own start."""
    wall, processor, torch_there = run([sys.executable, "-c", INSIDE.format(module)], folder)[1].split()
    if module == "thalweg" and torch_there == "True":
        raise RuntimeError("import thalweg has imported torch")
    return float(wall), float(processor)


def listing(runs: Path, folder: Path) -> tuple[float, float]:
    """(wall, processor time) of a whole ``thalweg ls``."""
    took, printed = run([sys.executable, "-m", "thalweg", "ls", str(runs), "--json"], folder)
    if len(json.loads(printed)) != RUNS:
        raise RuntimeError(f"thalweg ls listed {len(json.loads(printed))} of {RUNS} runs")
    return took


def measure(rounds: int = 10) -> dict[str, Any]:
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="thalweg-benchmark-") as place:
        folder = Path(place)
        runs = make_runs(folder)
        for round_number in range(rounds + 1):
            cases = {"bare interpreter, whole process": run([sys.executable, "-c", "pass"], folder)[0]}
            cases |= {f"import {module}": importing(module, folder) for module in IMPORTS}
            for form, path in runs.items():
                cases[f"thalweg ls, 1,000 {form} runs, whole process"] = listing(path, folder)
            for name, took in cases.items() if round_number > 0 else ():  # the first compiles the modules
                taken.setdefault(name, []).append(took)
    out = {}
    for name, each in taken.items():
        wall, processor = ([t[i] for t in each] for i in (0, 1))
        out[name] = {
            "least": min(wall),
            "median": statistics.median(wall),
            "most": max(wall),
            "processor": statistics.median(processor),
        }
    return out


def show(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    rows = [
        [name, *(f"{v:.3f}" for v in one.values()), TARGETS.get(name, "")] for name, one in result.items()
    ]
    return table(["seconds, fresh processes", "least", "median", "most", "processor time", "target"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often each case has its turn")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    result = measure(given.rounds)
    print(json.dumps(result, indent=2) if given.json else show(result))


if __name__ == "__main__":
    main()
