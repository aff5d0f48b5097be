"""Mutates run files and reads them, in a process of its own with a limit on memory and time.

Arguments: folder, seed, count. Prints how many mutants were read and how many refused; anything else than the two is
a failure, with the mutant left in the folder.
"""

import contextlib
import random
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

from thalweg.core.errors import RunFileError
from thalweg.record import Recorder, compact, open_run, open_runs
from thalweg.record.frames import HEADER_SIZE, Scan, make_frame, scan

SECONDS = 10
MEMORY = 3 << 30


def samples(folder):
    """The two forms of a run that has some of everything."""
    recorder = Recorder(folder / "sample.tw", config={"lr": 0.1, "deep": {"a": [1, 2]}}, flush_every=60)
    recorder.declare("tokens", dtype="int64")
    rng = np.random.default_rng(0)
    for step in range(120):
        recorder.log({"loss": 1.0 / (step + 1), "lr": 0.1, "tokens": step}, step + step // 50)
        if step % 20 == 0:
            recorder.log({"spectrum": rng.random(7), "eval/loss": 1.0}, step)
            recorder.flush()
    recorder.extend(
        [f"grad/norm/{i}" for i in range(12)], np.sort(rng.integers(0, 900, 200)), rng.random((200, 12))
    )
    recorder.event("note", step=3, text="hi")
    recorder.set_meta("summary", {"a": 1})
    recorder.flush()
    log = recorder.path.read_bytes()
    recorder.close()
    closed = recorder.path.read_bytes()
    recorder.path.unlink()
    return log, closed


def mutate(rng, data):
    """A few random changes of bytes, stretches and length."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        if not data:
            break
        at = rng.randrange(len(data))
        size = rng.choice([1, 1, 2, 4, 8, 100])
        match rng.randrange(7):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + size] = rng.randbytes(size)
            case 3:
                data[at : at + size] = rng.choice([b"\xff", b"\x00", b"\x7f"]) * size
            case 4:
                del data[at : at + size]
            case 5:
                other = rng.randrange(len(data))
                data[at : at + size] = data[other : other + size]
            case 6 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def mutate_frames(rng, log):
    """A log whose frames are whole, but hold, repeat and lack what they should not."""
    frames = [(f.kind, bytes(f.payload)) for f in scan(lambda a, n: log[a : a + n], len(log), Scan())]
    for _ in range(rng.choice([1, 2, 5])):
        at = rng.randrange(len(frames))
        kind, payload = frames[at]
        match rng.randrange(5):
            case 0 | 1:
                frames[at] = kind, mutate(rng, payload)
            case 2:
                frames[at] = rng.choice(b"GMDLBESZ"), payload
            case 3:
                frames.insert(rng.randrange(len(frames)), frames[at])
            case 4:
                del frames[at]
        if not frames:
            break
    return log[:HEADER_SIZE] + b"".join(make_frame(kind, payload) for kind, payload in frames)


def read_all(path):
    """Everything a reader can ask for."""
    run = open_run(path)
    for name in run.names():
        series = run[name]
        assert len(series.steps) == len(series.values)
        assert bool((np.diff(series.steps) > 0).all())
        run.axis(series, "time")
    run.events()
    run.matrix("grad/norm")
    run.wall_time()
    repr(
        (run.config, run.tags, run.summary, run.environment, run.segments, run.live, run.clocks, run.signals)
    )
    run.refresh()


def try_one(path, merge):
    """Whether a mutant was read (True) or refused in words (False)."""
    open_runs(path.parent)
    try:
        read_all(path)
        good = True
    except RunFileError as error:
        assert str(error)
        good = False
    if merge:
        with contextlib.suppress(RunFileError):
            read_all(compact(path))
    return good


def main(folder, seed, count):
    rng = random.Random(seed)
    log, closed = samples(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    results = [0, 0]
    for index in range(count):
        match index % 4:
            case 0:
                data = mutate(rng, log)
            case 1 | 2:
                data = mutate_frames(rng, log)
            case _:
                data = closed[:16] + mutate(rng, closed[16:])
        path = folder / "mutant.tw"
        path.write_bytes(data)
        signal.alarm(SECONDS)
        try:
            results[0 if try_one(path, index % 3 == 0) else 1] += 1
        except BaseException:
            (folder / f"failed-{seed}-{index}.tw").write_bytes(data)
            traceback.print_exc()
            sys.exit(f"mutant {index} of seed {seed} was neither read nor refused")
        signal.alarm(0)
        for left in folder.glob(".mutant*"):
            left.unlink()
    print(*results)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
