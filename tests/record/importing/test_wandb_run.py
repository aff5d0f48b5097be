"""Runs that W&B wrote itself, offline; logs framed here with its own messages; exports as its page and API give them."""

import json
import math
import random
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError
from thalweg.record.importing import Column, Imported, NameMap, import_runs, wandb_run
from thalweg.record.importing.wandb_run import accepts, read

wandb = pytest.importorskip("wandb")
pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")


def the_run(path: Path) -> Imported:
    (run,) = read(path, NameMap())
    return run


def columns_of(run: Imported, part: int = 0) -> dict[str, Column]:
    return {column.name: column for column in run.parts[part].columns}


def log_of(records: list[bytes]) -> bytes:
    """A log in blocks of 32 KiB, as LevelDB frames it."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        first = True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            piece, record = record[: room - 7], record[room - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            check = zlib.crc32(bytes([kind]) + piece)
            out += struct.pack("<IHB", check, len(piece), kind) + piece
            first = False
            if not record:
                break
    return bytes(out)


def history(step: int, **values: object) -> bytes:
    record = pb.Record()
    for name, value in {"_step": step, "_timestamp": 1.7e9 + step, **values}.items():
        item = record.history.item.add()
        item.nested_key.extend(name.split("__"))
        item.value_json = json.dumps(value)
    return record.SerializeToString()


def start(run_id: str = "abc", name: str = "my run", seconds: int = 1_700_000_000) -> bytes:
    record = pb.Record()
    record.run.run_id, record.run.display_name = run_id, name
    record.run.tags.append("night")
    record.run.start_time.seconds = seconds
    item = record.run.config.update.add()
    item.key, item.value_json = "lr", "0.1"
    return record.SerializeToString()


def stats(second: int, **values: float) -> bytes:
    record = pb.Record()
    record.stats.timestamp.seconds = 1_700_000_000 + second
    for name, value in values.items():
        item = record.stats.item.add()
        item.key, item.value_json = name, json.dumps(value)
    return record.SerializeToString()


def ended() -> bytes:
    record = pb.Record()
    record.exit.exit_code = 0
    record.exit.runtime = 60
    return record.SerializeToString()


def write(folder: Path, records: list[bytes], run_id: str = "abc", day: str = "20240101_000000") -> Path:
    file = folder / "wandb" / f"run-{day}-{run_id}" / f"run-{run_id}.wandb"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(log_of(records))
    return file


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by W&B itself."""
    folder = tmp_path_factory.mktemp("wandb")
    settings = wandb.Settings(silent=True, console="off", x_disable_meta=True)
    run = wandb.init(
        mode="offline", project="p", name="my run", dir=str(folder), tags=["night"], settings=settings,
        config={"lr": 0.1, "model": {"layers": 2}},
    )  # fmt: skip
    for step in range(300):
        row: dict[str, object] = {"train/loss": 1 / (step + 1), "nest": {"a": step}, "text": "hello"}
        if step % 50 == 0:
            row |= {"val/loss": 2.0 + step, "histogram": wandb.Histogram([1, 2, 3])}
        if step == 5:
            row["train/loss"] = float("nan")
        if step == 6:
            row["train/loss"] = float("-inf")
        run.log(row)
    run.finish()
    return folder


def test_what_wandb_writes_is_read_value_for_value(offline: Path) -> None:
    run = the_run(offline)
    mine = columns_of(run)
    expected = [1 / (step + 1) for step in range(300)]
    expected[5], expected[6] = math.nan, -math.inf
    np.testing.assert_array_equal(mine["train/loss"].values, expected)
    assert mine["train/loss"].steps.tolist() == list(range(300))
    assert mine["nest.a"].values.tolist() == list(range(300))
    assert mine["val/loss"].steps.tolist() == list(range(0, 300, 50))
    assert not [name for name in mine if name.startswith(("histogram", "_step", "_timestamp", "text"))]
    assert run.name == "my run" and run.tags == ["night"] and not run.live and not run.warnings
    assert run.config == {"lr": 0.1, "model": {"layers": 2}}
    assert mine["train/loss"].window == 1 and mine["train/loss"].estimator == ""
    times = mine["train/loss"].times
    assert times is not None and abs(times[-1] - time.time()) < 600


def test_the_machine_is_on_its_own_clock(tmp_path: Path) -> None:
    rows = [history(s, loss=1.0) for s in range(20)]
    write(tmp_path, [start(), stats(15, cpu=3.0), *rows, stats(30, cpu=4.0), ended()])
    (run,) = import_runs(tmp_path)
    assert run["system/cpu"].spec.clock == "seconds"
    assert run["system/cpu"].steps.tolist() == [15, 30] and run["system/cpu"].values.tolist() == [3, 4]
    assert run["loss"].steps.tolist() == list(range(20)) and run.tags == ["night"]


def test_records_over_block_boundaries(tmp_path: Path) -> None:
    rows = [history(s, loss=float(s), pad="x" * (s * 37 % 5000)) for s in range(200)]
    big = history(200, loss=200.0, pad="y" * 200_000)
    run = the_run(write(tmp_path, [start(), *rows, big, ended()]))
    assert columns_of(run)["loss"].values.tolist() == list(range(201)) and not run.warnings


def test_resumptions_are_parts_of_one_run(tmp_path: Path) -> None:
    write(tmp_path, [start(), *[history(s, loss=1.0) for s in range(100)], stats(50, cpu=1.0)])
    later = [
        start(seconds=1_700_001_000),
        stats(1010, cpu=2.0),
        *[history(s, loss=2.0) for s in range(80, 120)],
        ended(),
    ]
    write(tmp_path, later, day="20240102_000000")
    write(tmp_path, [start("other"), history(0, loss=3.0), ended()], "other")
    first, second = import_runs(tmp_path)
    assert {first.name, second.name} == {"my run (abc)", "my run (other)"}
    run = first if "abc" in first.name else second
    assert len(run.segments) == 2
    assert run["loss"].values.tolist() == [1.0] * 80 + [2.0] * 40
    assert run["system/cpu"].steps.tolist() == [50, 1010]


def test_damage_costs_what_it_touches(tmp_path: Path) -> None:
    file = write(tmp_path, [start(), *[history(s, loss=float(s)) for s in range(1000)], ended()])
    data = bytearray(file.read_bytes())
    data[40_000] ^= 1
    file.write_bytes(data)
    run = the_run(file)
    assert len(columns_of(run)["loss"].steps) == 999
    (warning,) = run.warnings
    assert "damaged at byte" in warning


def test_a_cut_or_growing_file(tmp_path: Path) -> None:
    records = [start(), *[history(s, loss=float(s)) for s in range(100)]]
    file = write(tmp_path, records)
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    (run,) = import_runs(tmp_path)
    assert len(run["loss"]) == 99 and run.live and "still being written" in run.warnings[0]
    file.write_bytes(log_of([*records, history(100, loss=7.0), ended()]))
    run.refresh()
    assert len(run["loss"]) == 101 and not run.live
    file.write_bytes(whole + bytes(500))  # room that was not written yet
    assert not the_run(file).warnings


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no run of W&B"):
        list(read(tmp_path, NameMap()))
    for content in (b"", b":W&B", bytes(100_000), log_of([start(), ended()])):
        (tmp_path / "run-a.wandb").write_bytes(content)
        with pytest.raises(RunFileError, match="no history"):
            list(read(tmp_path, NameMap()))


def test_how_sure_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "deep" / "er", [start(), history(0, loss=1.0)])
    assert accepts(file) == 0.98
    assert accepts(file.parent) == accepts(file.parent.parent) == accepts(tmp_path / "deep" / "er") == 0.9
    assert accepts(tmp_path) == 0.55
    (tmp_path / "plain.csv").write_text("step,loss\n1,2\n")
    assert accepts(tmp_path / "plain.csv") == 0


def test_links_in_a_circle(tmp_path: Path) -> None:
    file = write(tmp_path, [start(), history(0, loss=1.0)])
    (tmp_path / "wandb" / "latest-run").symlink_to(file.parent, target_is_directory=True)
    (tmp_path / "wandb" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(list(read(tmp_path, NameMap()))) == 1


def frame(steps: list[int]) -> str:
    lines = [",_step,_runtime,_timestamp,train/loss,val/loss"]
    for row, step in enumerate(steps):
        lines.append(f"{row},{step},{step * 2.0},{1.7e9 + step},{1 / (step + 1)},{'' if step % 2 else 'NaN'}")
    return "\n".join(lines) + "\n"


def test_a_sampled_history_is_marked_and_a_whole_one_is_not(tmp_path: Path) -> None:
    rng = random.Random(0)
    sampled = tmp_path / "sampled.csv"
    sampled.write_text(frame(sorted(rng.sample(range(12_000), 500))))
    assert accepts(sampled) == 0.9
    column = columns_of(the_run(sampled))["train/loss"]
    assert column.estimator == "sampled" and column.window == 0 and len(column.steps) == 500
    for steps in (list(range(500)), list(range(0, 5000, 10)), sorted(rng.sample(range(12_000), 777))):
        (tmp_path / "whole.csv").write_text(frame(steps))
        run = the_run(tmp_path / "whole.csv")
        assert columns_of(run)["train/loss"].estimator == "" and "_step" not in columns_of(run)
    (opened,) = import_runs(sampled)
    assert opened["train/loss"].spec.window == 0 and opened["train/loss"].spec.role == "train loss"


@pytest.mark.parametrize("orient", ["columns", "records", "lines"])
def test_a_frame_as_json(tmp_path: Path, orient: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"_step": [0, 10, 20], "_runtime": [1.0, 2, 3], "loss": [3.0, None, 1.0]})
    file = tmp_path / "h.json"
    table.to_json(file, orient="records" if orient == "lines" else orient, lines=orient == "lines")
    assert accepts(file) == 0.9
    assert columns_of(the_run(file))["loss"].steps.tolist() == [0, 20]


def test_history_and_summary_files_with_their_config(tmp_path: Path) -> None:
    files = tmp_path / "run-1-abc" / "files"
    files.mkdir(parents=True)
    rows = [
        {"_step": s, "_timestamp": 1.7e9 + s, "loss": s / 2, "im": {"_type": "image", "size": 3}}
        for s in range(9)
    ]
    (files / "wandb-history.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nbroken {")
    (files / "wandb-summary.json").write_text('{"_step": 8, "loss": 4.0, "_timestamp": 1700000008}')
    (files / "config.yaml").write_text(
        "wandb_version: 1\n\nlr:\n  desc: null\n  value: 0.1\nname:\n  value: gpt\nnested:\n  value:\n    a: 1\n"
    )
    run = the_run(tmp_path / "run-1-abc")
    assert run.name == "run-1-abc" and list(columns_of(run)) == ["loss"]
    assert run.config == {"lr": 0.1, "name": "gpt"} and "1 nested" in run.notes[-1]
    summary = columns_of(the_run(files / "wandb-summary.json"))["loss"]
    assert summary.steps.tolist() == [8] and summary.values.tolist() == [4.0]


def test_the_web_pages_csv(tmp_path: Path) -> None:
    head = ["Step"]
    for run in ("good - run", "bad"):
        head += [f"{run} - train/loss", f"{run} - train/loss__MIN", f"{run} - train/loss__MAX"]
    lines = [",".join(f'"{name}"' for name in head)]
    lines += [
        f'"{s}","{1 / (s + 1)}","{0.5 / (s + 1)}","{2 / (s + 1)}","3","3","3"' for s in range(0, 900, 9)
    ]
    file = tmp_path / "wandb_export_2024.csv"
    file.write_text("\n".join(lines))
    assert accepts(file) == 0.95
    good, bad = import_runs(file)
    assert (good.name, bad.name) == ("good - run", "bad")
    assert good["train/loss"].spec.estimator == "mean of a bin" and good["train/loss"].spec.window == 0
    assert good["train/loss__MAX"].spec.estimator == "largest of a bin"
    assert bad["train/loss"].spec.estimator == "sampled"
    (tmp_path / "every.csv").write_text("Step,a - loss\n" + "".join(f"{s},{s}\n" for s in range(50)))
    (every,) = import_runs(tmp_path / "every.csv")
    assert every["loss"].spec.estimator == "" and every["loss"].values.tolist() == list(range(50))


def test_a_corrupt_length_allocates_nothing(tmp_path: Path) -> None:
    row = pb.Record()
    row.history.item.add().value_json = "1"
    hostile = b"\x12\xff\xff\xff\xff\x0f" + row.SerializeToString()
    file = write(tmp_path, [start(), hostile, history(0, loss=1.0)])
    tracemalloc.start()
    run = the_run(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 and "1 records can't be understood" in run.warnings[0]
    assert columns_of(run)["loss"].values.tolist() == [1.0]


def fuzz(tmp_path: Path, seeds: range) -> None:
    rows = [history(s, loss=s / 3, nest__a=True, h___type="histogram", text="x") for s in range(12)]
    records = [start(), stats(3, cpu=1.0), *rows, stats(9, cpu=1.0), ended()]
    exports = {
        "h.csv": frame(list(range(0, 90, 7))).encode(),
        "page.csv": b"Step,a - loss,a - loss__MIN,a - loss__MAX\n"
        + b"".join(b"%d,1,1,2\n" % s for s in range(9)),
        "h.json": json.dumps([{"_step": s, "_runtime": 1, "loss": 2} for s in range(9)]).encode(),
        "wandb-history.jsonl": b"".join(b'{"_step": %d, "loss": 2, "d": {"e": 1}}\n' % s for s in range(9)),
    }
    read = 0
    for seed in seeds:
        rng = random.Random(seed)
        if seed % 4 == 0:
            name, data = "run-a.wandb", mutated(log_of(records), rng)
        elif seed % 4 == 1:
            changed = [mutated(record, rng) if rng.random() < 0.5 else record for record in records]
            name, data = "run-a.wandb", log_of(changed)
        else:
            name = rng.choice(list(exports))
            data = mutated(exports[name], rng)
        (tmp_path / name).write_bytes(data)
        read += read_or_refused(tmp_path / name, wandb_run)
    assert read > len(seeds) // 3


def test_fuzz(tmp_path: Path) -> None:
    fuzz(tmp_path, range(300))


@pytest.mark.slow
def test_fuzz_long(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 11_000))
