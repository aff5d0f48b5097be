"""How fast event files are read: beside TensorBoard's own `EventAccumulator`, in the same process, by turns.

Both read the same folders, a million scalars in all, and the values they give are compared; the ratio is of total
processor time, which other programs disturb less than time on the wall.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import number, table
from thalweg.record.importing import Imported, NameMap, tensorboard_folder
from thalweg.record.importing.checksums import crc32c_pieces
from thalweg.record.importing.tfrecords import masked

TAGS = (30, 300)
POINTS = 500_000  # for each number of tags
LARGE = 100_000_000
NAME = "events.out.tfevents.1700000000.host.1.0"


def write(folder: Path, tags: int, points: int) -> Path:
    """An event file as `SummaryWriter` writes it: an event a scalar, names of different lengths."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    folder.mkdir(parents=True)
    names = [f"group{tag % 7}/{'layer.' * (tag % 4)}signal_{tag}" for tag in range(tags)]
    values = np.random.default_rng(0).lognormal(size=points).tolist()
    events = [Event(wall_time=1.7e9, file_version="brain.Event:2").SerializeToString()]
    with (folder / NAME).open("wb") as file:
        for place, value in enumerate(values):
            scalar = Summary.Value(tag=names[place % tags], simple_value=value)
            wall = 1.7e9 + place * 1.37e-3
            event = Event(wall_time=wall, step=place // tags, summary=Summary(value=[scalar]))
            events.append(event.SerializeToString())
            if len(events) == 100_000 or place == points - 1:
                file.write(framed(events))
                events = []
    return folder


def framed(payloads: list[bytes]) -> bytes:
    """Records with their checksums."""
    pieces = [part for data in payloads for part in (len(data).to_bytes(8, "little"), data)]
    lengths = np.array([len(piece) for piece in pieces])
    sums = masked(
        crc32c_pieces(np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(lengths) - lengths, lengths)
    )
    return b"".join(piece + check.tobytes() for piece, check in zip(pieces, sums.astype("<u4"), strict=True))


def ours(folder: Path) -> Imported:
    (run,) = tensorboard_folder.read(folder, NameMap())
    return run


def theirs(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def same(run: Imported, accumulator: Any) -> bool:
    """Whether both gave the same steps, times and values, bit for bit."""
    columns = {column.name: column for column in run.parts[0].columns}
    if set(columns) != set(accumulator.Tags()["scalars"]):
        return False
    for name, column in columns.items():
        events = accumulator.Scalars(name)
        expected = np.array([(event.step, event.wall_time, event.value) for event in events])
        if not np.array_equal(np.stack([column.steps, column.times, column.values], axis=1), expected):
            return False
    return True


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = action()
    return time.process_time() - began, result


def compare(folder: Path, rounds: int) -> dict[str, Any]:
    """Both readers by turns, the one that begins changing at every round."""
    totals = {ours: 0.0, theirs: 0.0}
    equal = True
    for turn in range(rounds):
        given = {}
        for reader in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
            taken, given[reader] = timed(lambda reader=reader: reader(folder))
            totals[reader] += taken
        equal &= same(given[ours], given[theirs])
    return {
        "ours_s": totals[ours] / rounds,
        "theirs_s": totals[theirs] / rounds,
        "ratio": totals[theirs] / totals[ours],
        "equal": equal,
    }


def measure(rounds: int, points: int = POINTS) -> dict[str, Any]:
    root = Path(tempfile.mkdtemp(prefix="thalweg-benchmark-"))
    try:
        result: dict[str, Any] = {"points": points, "tags": {}}
        for tags in TAGS:
            folder = write(root / str(tags), tags, points)
            result["tags"][str(tags)] = compare(folder, rounds)
        file = folder / NAME
        copies = max(1, round(LARGE / file.stat().st_size))
        for copy in range(copies):
            target = root / "large" / str(copy)
            target.mkdir(parents=True)
            shutil.copyfile(file, target / NAME)
        result["large_bytes"] = copies * file.stat().st_size
        began = time.perf_counter()
        result["large_s"], _ = timed(lambda: list(tensorboard_folder.read(root / "large", NameMap())))
        result["large_wall_s"] = time.perf_counter() - began
        return result
    finally:
        shutil.rmtree(root, ignore_errors=True)


def show(result: dict[str, Any]) -> str:
    head = ("event files", "Thalweg, s", "EventAccumulator, s", "times as fast", "equal values")
    rows = [
        (
            f"{result['points']:,} points, {tags} tags",
            number(row["ours_s"]),
            number(row["theirs_s"]),
            number(row["ratio"]),
            "yes" if row["equal"] else "NO",
        )
        for tags, row in result["tags"].items()
    ]
    wall = number(result["large_wall_s"])
    size = f"{result['large_bytes'] / 1e6:.0f} MB in several folders ({wall} s on the wall)"
    return table(head, [*rows, (size, number(result["large_s"]), "-", "-", "-")])
