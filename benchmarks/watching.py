"""What `tw.watch` costs a training loop, in time and in memory, beside other monitors.

The arms train copies of one model in the same process and take turns, in an order that turns around at every
round, so that a busy machine meets all of them alike. What counts is the ratio of total times: a median would hide
an instrument that is expensive and rare. It is given twice: of the time on the wall, and of the processor's time,
which other programs disturb less. Both hold what the watch does in its background threads: the processor's time
all of it, the wall's what was done while another arm had its turn, as if the loop had waited for it. Those threads
are woken after as much time of their own loop as in a run that is alone. Importing, building, a warm-up in which the
governor calibrates, and closing are not counted; closing is shown.

    python -m benchmarks.watching [mlp cnn gpt] [--quick] [--no-peers] [--profile] [--json]
"""

import argparse
import contextlib
import gc
import json
import random
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import thalweg as tw
from benchmarks.peers import PEERS, Arm, Job, Plain, PlainAgain, cross_entropy
from benchmarks.tables import number, table
from thalweg.demo.networks import DigitNet, SmallGPT
from thalweg.watching import journal
from thalweg.watching.instruments import DEFAULT
from thalweg.watching.session import Watch
from thalweg.watching.track import Track

CYCLE = 200
WARM_UP = 250
"""Steps before counting: the governor's first three reviews come after 25, 75 and 200."""

SHARE, FLOOR = 0.03, 60e-6
"""The target: 3 % of the plain step, or 60 microseconds where that is more."""

DRAIN_EVERY = journal.EVERY
"""Seconds of its loop after which the watch's thread takes what has been left for it."""

MEMORY = 64 << 20
"""Default of ``memory=`` for models of this size."""

PEER_WARM_UP = 10
PEERS_EVERY = 5
"""Peers take part in every fifth round only: their ratios are large and need less precision."""

SLOW = 4
"""A peer slower than this many plain steps makes fewer steps at its turn, so that a turn is not much longer."""


# What is trained.


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def digits(batch: int) -> list[tuple[Tensor, Tensor]]:
    data = tw.data.mnist_5k()
    x = torch.from_numpy(data.x_train).float().div(255).reshape(-1, 1, 28, 28)
    y = torch.from_numpy(data.y_train)
    return [(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x) - batch + 1, batch)]


def plays(length: int, count: int) -> tuple[list[tuple[Tensor, Tensor]], int]:
    text = tw.data.shakespeare()
    codes = torch.from_numpy(text.tokens()[: count * length + 1].astype(np.int64))
    pairs = [
        (codes[i : i + length][None], codes[i + 1 : i + length + 1][None])
        for i in range(0, count * length, length)
    ]
    return pairs, len(text.symbols)


def job_mlp() -> Job:
    title = "MLP 784-256-256-10 (269 k parameters), MNIST digits, batch 128"
    return Job("mlp", title, mlp, digits(128), block=CYCLE // 5, rounds=200, every=10)


def job_cnn() -> Job:
    title = "CNN with batch normalization (106 k parameters), MNIST digits, batch 64"
    return Job("cnn", title, DigitNet, digits(64), block=CYCLE // 10, rounds=80, every=1)


def job_gpt() -> Job:
    batches, symbols = plays(256, 200)
    title = "GPT, 6 layers of width 384 (10.8 M parameters), Shakespeare, sequence 256, batch 1"
    return Job(
        "gpt",
        title,
        lambda: SmallGPT(symbols, width=384, layers=6, heads=6, length=256),
        batches,
        block=CYCLE // 50,
        rounds=250,
        every=1,
    )


JOBS = {"mlp": job_mlp, "cnn": job_cnn, "gpt": job_gpt}


# The watched arms.


class Watched(Arm):
    """The loop with the two lines."""

    probes = "cheap"

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job, folder)
        self.most = 0
        self.looking = self.probes != "none"
        self.optimizer.register_step_post_hook(self._weigh)  # called before the watch lets go of its copies
        self.watch = tw.watch(
            self.model, self.optimizer, out=folder / f"{self.probes}.tw", probes=self.probes
        )
        self.track = self.watch._tracks[0]
        self.watch.recorder._flush_every = 3600.0  # this one's thread sleeps too, until it is asked to write
        self.due, self.over = threading.Event(), False
        self.since_drained = 0.0
        self.thread = threading.Thread(target=self._drain_when_due, daemon=True)
        self.thread.start()

    def step(self, x: Tensor, y: Tensor) -> None:
        loss = cross_entropy(self.model(x), y)
        loss.backward()
        self.watch.log(loss=loss)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def resume(self) -> None:
        self.track._last = 0.0  # the other arms' turns are no part of its next step

    def worked(self, seconds: float) -> None:
        self.since_drained += seconds
        if self.since_drained > DRAIN_EVERY:
            self.since_drained = 0.0
            self.due.set()

    def threads(self) -> list[int]:
        workers = (self.thread, self.watch.recorder._thread)
        return [t.native_id for t in workers if t.native_id is not None and t.is_alive()]

    def close(self) -> None:
        self.over = True
        self.due.set()
        self.thread.join()
        self.watch.close()

    def _drain_when_due(self) -> None:
        """What the sleeping threads would do by now, had the loop been alone: finish, and write."""
        while not self.over:
            self.due.wait()
            self.due.clear()
            self.watch._journal.flush()

    def _weigh(self, *_: Any) -> None:
        if self.looking:
            self.most = max(self.most, kept_bytes(self.track, self.model, self.optimizer))


class HooksOnly(Watched):
    name = "thalweg, hooks and log only"
    covers = 'loss, rate, step time, examples a second at every step; tw.watch(..., probes="none")'
    probes = "none"


class Full(Watched):
    name = "thalweg, all defaults"
    covers = (
        "the same, and all default instruments, each as often as the budget of 3 % allows (table below); written to "
        "a run file that survives a kill"
    )


def kept_bytes(track: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors that the watch holds at this moment and that are not the run's own."""
    own = [t for p in model.parameters() for t in (p, p.grad, *optimizer.state.get(p, {}).values())]
    own += model.buffers()
    theirs = {t.untyped_storage().data_ptr() for t in own if isinstance(t, Tensor)}
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting: list[Any] = [track.view, *(p.instrument for p in track.governor.planned), track.journal._outbox]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            storage = thing.untyped_storage()
            if storage.data_ptr() not in theirs:
                storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, (list, tuple, set, deque)):
            waiting.extend(thing)
        elif type(thing).__module__.startswith("thalweg") and not isinstance(thing, type):
            slots = (getattr(thing, s, None) for s in getattr(type(thing), "__slots__", ()))
            waiting.extend([*getattr(thing, "__dict__", {}).values(), *slots])
    return sum(storages.values())


# Taking turns.


@dataclass
class Taken:
    """What one arm took in its turns.

    Attributes:
        arm: who.
        block: steps a turn.
        rounds: the rounds it took part in.
        wall: seconds of each turn.
        processor: the loop's own processor seconds of each turn.
        steps: seconds of each step.
        during: processor seconds of its background threads during its turns.
        background: processor seconds of its background threads, all of them.
    """

    arm: Arm
    block: int
    rounds: list[int] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    during: float = 0.0
    background: float = 0.0

    def add_background(self, seconds: float) -> None:
        """Its threads worked so long in all: a share of it belongs to each turn."""
        self.background = seconds
        self.processor = [p + seconds / len(self.processor) for p in self.processor]
        self.wall = [w + (seconds - self.during) / len(self.wall) for w in self.wall]

    @property
    def mean(self) -> float:
        """Processor seconds a step."""
        return sum(self.processor) / len(self.steps)


def in_background(arm: Arm) -> float:
    """Processor seconds that an arm's background threads have used so far (0 where the system doesn't say)."""
    nanoseconds = 0
    for thread in arm.threads():
        with contextlib.suppress(OSError):
            nanoseconds += int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0])
    return 1e-9 * nanoseconds


def turn(
    taken: Taken, batches: Sequence[tuple[Tensor, Tensor]], steps: int, round_number: int = 0
) -> list[float]:
    """So many steps of an arm: seconds of each. Its totals are added to ``taken``."""
    arm, each = taken.arm, []
    arm.resume()
    background = in_background(arm)
    worked = thread_time()
    began = last = perf_counter()
    for _ in range(steps):
        x, y = batches[arm.steps % len(batches)]
        arm.step(x, y)
        arm.steps += 1
        now = perf_counter()
        each.append(now - last)
        last = now
    taken.wall.append(last - began)
    taken.processor.append(thread_time() - worked)
    arm.worked(taken.processor[-1])
    taken.during += in_background(arm) - background
    taken.steps += each
    taken.rounds.append(round_number)
    return each


def prepare(kind: type[Arm], job: Job, folder: Path, plain_step: float, warm_up: int) -> Taken:
    """An arm that has been warmed up, with as many steps a turn as its speed allows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken = Taken(kind(job, folder), job.block)
        ours = issubclass(kind, Watched)
        steps = warm_up if ours or issubclass(kind, Plain) else PEER_WARM_UP
        if isinstance(taken.arm, Watched):
            turn(taken, job.batches, min(50, warm_up))  # every instrument is due in these
            taken.arm.looking = False
            steps -= min(50, warm_up)
        each = turn(taken, job.batches, steps)
        if not ours and plain_step:
            slower = float(np.median(each)) / plain_step
            taken.block = job.block if slower < SLOW else max(1, round(SLOW * job.block / slower))
    return Taken(taken.arm, taken.block)


def measure_job(job: Job, *, peers: bool, rounds: int, warm_up: int = WARM_UP) -> dict[str, Any]:
    """All arms on one job."""
    torch.set_num_threads(1)
    absent: dict[str, str] = {}
    arms: list[Taken] = []
    journal.EVERY = 3600.0
    with tempfile.TemporaryDirectory(prefix="thalweg-benchmark-") as folder:
        plain_step = 0.0
        for kind in (Plain, PlainAgain, HooksOnly, Full, *(PEERS if peers else ())):
            try:
                arms.append(prepare(kind, job, Path(folder), plain_step, warm_up))
            except Exception as error:
                absent[kind.name] = reason(error)
            if kind is Plain:
                plain_step = float(np.median(turn(Taken(arms[0].arm, 10), job.batches, 10)))
        before = {t.arm.name: inside(t.arm) for t in arms}
        background = [in_background(t.arm) for t in arms]
        firsts = {t.arm.name: t.arm.steps for t in arms}
        gc.collect()
        gc.freeze()  # the peers' libraries are no part of anybody's loop
        for round_number in range(rounds):
            present = [t for t in arms if round_number % PEERS_EVERY == 0 or not isinstance(t.arm, PEERS)]
            shift = round_number // 2 % len(present)
            order = present[shift:] + present[:shift]
            for taken in order if round_number % 2 == 0 else reversed(order):
                turn(taken, job.batches, taken.block, round_number)
            if any(isinstance(t.arm, PEERS) for t in present):
                gc.collect()
                gc.freeze()  # nor are the objects that peers pile up: the collector would go through them in every arm
        for taken, earlier in zip(arms, background, strict=True):
            taken.add_background(in_background(taken.arm) - earlier)
        result = {
            "job": job.name,
            "title": job.title,
            "rounds": rounds,
            "arms": [row(t, arms[:2]) for t in arms],
            "absent": absent,
        }
        full = next(t for t in arms if isinstance(t.arm, Full))
        result["components"] = components({t.arm.name: t for t in arms}, full, before)
        result["memory"] = {"kept": full.arm.most, "bound": MEMORY}
        result["periods"] = instruments_of(full.arm)
        result["closing"] = {}
        for taken in arms:
            began = perf_counter()
            taken.arm.close()
            if isinstance(taken.arm, Watched):
                result["closing"][taken.arm.name] = perf_counter() - began
        result["signals"] = signals(full.arm, firsts[full.arm.name])
        gc.unfreeze()
    result["targets"] = targets(result, job)
    return result


def reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:160]


def row(taken: Taken, plain: Sequence[Taken]) -> dict[str, Any]:
    """What an arm took, a step and as ratios to the mean of the plain loops."""
    p50, p99 = np.percentile(taken.steps, [50, 99])
    out = {"name": taken.arm.name, "covers": taken.arm.covers, "steps": len(taken.steps)}
    for clock in ("wall", "processor"):
        mine = np.array(getattr(taken, clock)) / taken.block
        both = [np.array(getattr(one, clock))[taken.rounds] / one.block for one in plain]
        theirs = np.mean(both, axis=0)
        out |= {
            clock: ratio(mine, theirs),
            f"{clock}_step": float(mine.mean()),
            f"{clock}_added": float((mine - theirs).mean()),
        }
    return out | {"p50": float(p50), "p99": float(p99)}


def ratio(mine: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Ratio of total times, with a 95 % interval from resampled rounds."""
    drawn = np.random.default_rng(0).integers(0, len(mine), (4000, len(mine)))
    low, high = np.percentile(mine[drawn].sum(1) / theirs[drawn].sum(1), [2.5, 97.5])
    return {"ratio": float(mine.sum() / theirs.sum()), "low": float(low), "high": float(high)}


def inside(arm: Arm) -> tuple[float, int]:
    """Seconds that the watch itself counted so far, and in how many steps."""
    if not isinstance(arm, Watched):
        return 0.0, 0
    meter = arm.track.cost
    return sum(b[1] for b in meter._blocks) + meter._spent, meter._total + meter._steps


def components(
    taken: dict[str, Taken], full: Taken, before: dict[str, tuple[float, int]]
) -> dict[str, float]:
    """Processor microseconds a step, as differences between the arms."""
    plain = (taken[Plain.name].mean + taken[PlainAgain.name].mean) / 2
    hooks = taken[HooksOnly.name]
    out = {
        "hooks and log": hooks.mean - plain,
        "instruments": full.mean - hooks.mean,
        "in all": full.mean - plain,
        "of which in background threads": full.background / len(full.steps),
    }
    for one in (hooks, full):
        spent, steps = inside(one.arm)
        spent_before, steps_before = before[one.arm.name]
        out[f"counted by the watch itself, {one.arm.name.removeprefix('thalweg, ')}"] = (
            spent - spent_before
        ) / max(steps - steps_before, 1)
    return {k: 1e6 * v for k, v in out.items()}


def instruments_of(arm: Full) -> list[dict[str, Any]]:
    """Each instrument's present period, and what a call of it costs."""
    return [
        {"name": p.name, "period": p.period, "call": 1e6 * p.cost, "step": 1e6 * p.cost / p.period}
        for p in arm.track.governor.planned
    ]


def signals(arm: Full, first: int) -> dict[str, Any]:
    """Of each default signal: how often it was recorded in each whole cycle of 200 counted steps, least and most."""
    run = tw.open_run(arm.watch.path)
    edges = np.arange(first, arm.steps + 1, CYCLE)
    counts: dict[str, list[int]] = {}
    for name in run.names():
        each = np.histogram(run[name].steps, edges)[0].tolist() if len(edges) > 1 else []
        counts[name] = each or [int((run[name].steps >= first).sum())]
    steps = min(CYCLE, arm.steps - first)
    out: dict[str, Any] = {
        "cycles": len(edges) - 1,
        "steps": steps,
        "names": len(counts),
        "of": {},
        "absent": {},
    }
    out["of"]["the loop: loss, rate, step time, samples, examples a second"] = least_and_most(
        [counts[n] for n in ("loss", "lr", "time/step", "samples", "throughput/examples")]
    )
    for kind in DEFAULT:
        for emits in kind().emits:
            label = f"{emits.name}/*" if emits.per_layer else emits.name
            found = [
                c
                for n, c in counts.items()
                if (n.startswith(emits.name + "/") if emits.per_layer else n == emits.name)
            ]
            if found:
                out["of"][label] = least_and_most(found)
            else:
                out["absent"][label] = kind().card.needs
    out["bursts"] = len(run.events("burst"))
    return out


def least_and_most(counts: Iterable[list[int]]) -> list[int]:
    flat = [c for each in counts for c in each]
    return [min(flat), max(flat)]


def targets(result: dict[str, Any], job: Job) -> dict[str, bool]:
    rows = {r["name"]: r for r in result["arms"]}
    plain, full = rows[Plain.name], rows[Full.name]
    flight = next(p["period"] for p in result["periods"] if p["name"] == "gradient-norm")
    return {
        **{
            f"adds at most 3 % or 60 us a step, {clock} time": full[f"{clock}_added"]
            <= max(SHARE * plain[f"{clock}_step"], FLOOR)
            for clock in ("wall", "processor")
        },
        "every default signal at least once in 200 steps": all(
            c[0] > 0 for c in result["signals"]["of"].values()
        ),
        f"per-layer gradient norms measured at least every {job.every} steps": flight <= job.every,
        "copies within memory=": result["memory"]["kept"] <= result["memory"]["bound"],
    }


# Where the time goes: a run of its own, since looking costs too.

POINTS = (
    ("forward", Track, "_forward_begins"),
    ("log", Watch, "log"),
    ("before the step", Track, "_before_step"),
    ("after the step", Track, "_after_step"),
)


def profile(job: Job, steps: int, warm_up: int = WARM_UP) -> dict[str, dict[str, float]]:
    """Microseconds a step of the loop's own thread in each of the watch's entry points, by timers around them."""
    torch.set_num_threads(1)
    originals = {label: getattr(owner, name) for label, owner, name in POINTS}
    spent: dict[str, list[float]] = {label: [] for label in originals}

    def timed(label: str) -> Any:
        original, times = originals[label], spent[label]

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = thread_time()
            result = original(*args, **kwargs)
            times.append(thread_time() - began)
            return result

        return wrapped

    out: dict[str, dict[str, float]] = {}
    try:
        for label, owner, name in POINTS:
            setattr(owner, name, timed(label))
        with tempfile.TemporaryDirectory(prefix="thalweg-benchmark-") as folder:
            for kind in (HooksOnly, Full):
                taken = Taken(kind(job, Path(folder)), job.block)
                taken.arm.looking = False
                turn(taken, job.batches, warm_up)
                for times in spent.values():
                    times.clear()
                turn(taken, job.batches, steps)
                for label, times in spent.items():
                    out[f"{label}, {kind.name.removeprefix('thalweg, ')}"] = {
                        "mean": 1e6 * sum(times) / steps,
                        "median": 1e6 * float(np.median(times)),
                        "most": 1e6 * max(times),
                    }
                taken.arm.close()
    finally:
        for label, owner, name in POINTS:
            setattr(owner, name, originals[label])
    return out


# Tables.


def show(result: dict[str, Any]) -> str:
    """One job's result as Markdown."""
    rows = [
        [
            r["name"],
            *(
                f"{r[c]['ratio']:.3f} ({r[c]['low']:.3f} to {r[c]['high']:.3f})"
                for c in ("wall", "processor")
            ),
            number(1e6 * r["wall_added"]),
            number(1e6 * r["processor_added"]),
            f"{1e3 * r['p50']:.3f}",
            f"{1e3 * r['p99']:.3f}",
            f"{r['steps']:,}",
        ]
        for r in result["arms"]
    ]
    head = [
        "loop",
        "wall time / plain (95 %)",
        "processor time / plain (95 %)",
        "added, us/step",
        "processor, us/step",
        "p50, ms",
        "p99, ms",
        "steps",
    ]
    parts = [f"### {result['title']}", table(head, rows)]
    if result["absent"]:
        parts.append(
            "\n".join(f"- {name} could not take part: {why}" for name, why in result["absent"].items())
        )
    parts.append(
        table(["added by", "processor us/step"], [[k, number(v)] for k, v in result["components"].items()])
    )
    parts.append(
        table(
            ["instrument", "every ... steps", "us a call", "us/step"],
            [[p["name"], str(p["period"]), number(p["call"]), number(p["step"])] for p in result["periods"]],
        )
    )
    seen = result["signals"]
    counts = [
        [name, str(low) if low == high else f"{low} to {high}"] for name, (low, high) in seen["of"].items()
    ]
    parts.append(table(["signal", f"times recorded in {seen['steps']} steps"], counts))
    absent = "; ".join(
        f"`{name}`" + (f" (needs {needs})" if needs else "") for name, needs in seen["absent"].items()
    )
    closing = ", ".join(
        f"{name.removeprefix('thalweg, ')} {s:.2f} s" for name, s in result["closing"].items()
    )
    kept, bound = result["memory"]["kept"] / 2**20, result["memory"]["bound"] / 2**20
    parts.append(
        f"{seen['names']} signals over {seen['cycles']} whole cycles, {seen['bursts']} bursts. Not applicable here: "
        f"{absent or 'none'}. Copies take {kept:.2f} MB of {bound:.0f} MB at most. Closing: {closing}."
    )
    parts.append(
        "\n".join(f"- {'met' if met else '**missed**'}: {what}" for what, met in result["targets"].items())
    )
    return "\n\n".join(parts)


def coverage() -> str:
    """What each arm covers, as a list."""
    return "\n".join(f"- **{a.name}**: {a.covers}." for a in (Plain, PlainAgain, HooksOnly, Full, *PEERS))


def measure(
    name: str, *, quick: bool = False, peers: bool = True, rounds: int | None = None
) -> dict[str, Any]:
    """One job: whole, or quickly with two turns or one cycle, whichever is more."""
    random.seed(0)
    job = JOBS[name]()
    rounds = rounds or (max(2, CYCLE // job.block) if quick else job.rounds)
    return measure_job(job, peers=peers, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", default=[*JOBS], help="mlp, cnn, gpt; by default all")
    parser.add_argument("--quick", action="store_true", help="one cadence cycle: a first impression")
    parser.add_argument("--rounds", type=int, help="turns of each arm")
    parser.add_argument("--no-peers", action="store_true", help="only plain and watched loops")
    parser.add_argument("--profile", action="store_true", help="only where the watch's own time goes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    if given.profile:
        for name in given.jobs:
            rows = [
                [k, *(number(v) for v in one.values())] for k, one in profile(JOBS[name](), 5 * CYCLE).items()
            ]
            print(table([f"{name}, us/step", "mean", "median", "most"], rows))
        return
    results = [
        measure(n, quick=given.quick, peers=not given.no_peers, rounds=given.rounds) for n in given.jobs
    ]
    print(json.dumps(results, indent=2) if given.json else "\n\n".join(show(r) for r in results))


if __name__ == "__main__":
    main()
