"""Event files written by TensorBoard's own writers, read by its own loader and by ours; and everything that can break."""

import json
import os
import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from thalweg.core.errors import RunFileError
from thalweg.record.importing import Column, Imported, NameMap, import_runs, tensorboard_folder
from thalweg.record.importing.checksums import crc32c_pieces, crc32c_rows
from thalweg.record.importing.tensorboard_folder import accepts, read
from thalweg.record.importing.tfrecords import masked

FILE = "events.out.tfevents.1700000000.host.1.0"


def the_run(path: Path) -> Imported:
    (run,) = read(path, NameMap())
    return run


def columns_of(run: Imported, part: int = 0) -> dict[str, Column]:
    return {column.name: column for column in run.parts[part].columns}


def scalar(tag: str, value: float, step: int = 0, wall: float = 1.7e9) -> Event:
    return Event(
        wall_time=wall, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    )


def write(path: Path, events: list[Event]) -> list[int]:
    """Write an event file; where each record begins, and where the file ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = []
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in [Event(wall_time=1.7e9, file_version="brain.Event:2"), *events]:
            places.append(file.tell())
            writer.write(event.SerializeToString())
        return [*places, file.tell()]


def framed(payloads: list[bytes]) -> bytes:
    """Records with right checksums; TensorBoard's own writer takes a microsecond for every byte."""
    pieces = [part for payload in payloads for part in (len(payload).to_bytes(8, "little"), payload)]
    lengths = np.array([len(piece) for piece in pieces])
    sums = crc32c_pieces(np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(lengths) - lengths, lengths)
    return b"".join(a + b.tobytes() for a, b in zip(pieces, masked(sums).astype("<u4"), strict=True))


def losses(count: int, first: int = 0, wall: float = 1.7e9, tag: str = "loss") -> list[Event]:
    return [scalar(tag, 1 / (step + 1), step, wall + step) for step in range(first, first + count)]


def same_as_tensorboard(path: Path, run: Imported) -> None:
    oracle = EventAccumulator(str(path), size_guidance={"scalars": 0})
    oracle.Reload()
    mine = columns_of(run)
    assert set(mine) == set(oracle.Tags()["scalars"])
    for name, column in mine.items():
        events = oracle.Scalars(name)
        assert column.steps.tolist() == [e.step for e in events]
        np.testing.assert_array_equal(column.values, [e.value for e in events])
        assert column.times is not None
        assert column.times.tolist() == [e.wall_time for e in events]


def bitwise_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_checksums_are_those_of_the_bitwise_algorithm() -> None:
    assert bitwise_crc(b"123456789") == 0xE3069283
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 3000).astype(np.uint8)
    for length in (1, 8, 63, 64, 65, 200):
        rows = np.lib.stride_tricks.sliding_window_view(data, length)[:9].copy()
        assert crc32c_rows(rows).tolist() == [bitwise_crc(row.tobytes()) for row in rows]
    starts, lengths = rng.integers(0, 1500, 40), rng.integers(0, 1400, 40)
    lengths[:3] = 0, 64, 128
    expected = [bitwise_crc(data[a : a + n].tobytes()) for a, n in zip(starts, lengths, strict=True)]
    assert crc32c_pieces(data, starts, lengths).tolist() == expected


def test_what_torch_writes_is_read_value_for_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in range(400):
            for tag in ("train/loss", "train/lr", "häßlich/<b>tag</b>", "x" * 40):
                writer.add_scalar(tag, rng.lognormal(), step * 100)
            if step % 50 == 0:
                writer.add_scalar("eval/loss", float("nan") if step == 50 else float("inf"), step)
    run = the_run(tmp_path / "run")
    same_as_tensorboard(tmp_path / "run", run)
    assert run.name == "run" and not run.warnings and run.live
    (opened,) = import_runs(tmp_path / "run")
    assert opened["train/loss"].spec.role == "train loss"
    assert opened["eval/loss"].spec.role == "evaluation loss"
    assert len(opened["train/loss"]) == 400


def test_steps_of_every_size_negative_ones_and_several_values_in_an_event(tmp_path: Path) -> None:
    steps = [0, 1, 127, 128, 16383, 16384, 2**31, 2**40, 2**62, -1]
    events = [
        Event(wall_time=float(i), step=step, summary=Summary(value=[
            Summary.Value(tag=tag, simple_value=i + place) for place, tag in enumerate(("a", "b", "longer"))
        ]))
        for i, step in enumerate(steps * 5)
    ]  # fmt: skip
    write(tmp_path / FILE, events)
    same_as_tensorboard(tmp_path, the_run(tmp_path))


def tensor(dtype: int, **values: object) -> Event:
    shape = TensorShapeProto()
    value = Summary.Value(
        tag=f"t{dtype}{''.join(values)}", tensor=TensorProto(dtype=dtype, tensor_shape=shape, **values)
    )
    return Event(wall_time=1.0, step=3, summary=Summary(value=[value]))


def test_scalar_tensors_of_every_type(tmp_path: Path) -> None:
    bf16 = (np.array([1.5], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    events = [
        tensor(1, float_val=[0.1]), tensor(1, tensor_content=np.float32(0.1).tobytes()),
        tensor(2, double_val=[0.1]), tensor(2, tensor_content=np.float64(0.1).tobytes()),
        tensor(3, int_val=[-7]), tensor(9, int64_val=[-(2**40)]), tensor(10, bool_val=[True]),
        tensor(19, half_val=[int(np.float16(0.25).view(np.uint16))]), tensor(19, tensor_content=np.float16(0.25).tobytes()),
        tensor(14, half_val=[int(bf16[0])]), tensor(14, tensor_content=bf16.tobytes()), tensor(23, uint64_val=[2**63]),
    ]  # fmt: skip
    write(tmp_path / FILE, events * 20)
    mine = {name: column.values[-1] for name, column in columns_of(the_run(tmp_path)).items()}
    expected = [float(np.float32(0.1))] * 2 + [0.1] * 2 + [-7, -(2.0**40), 1, 0.25, 0.25, 1.5, 1.5, 2.0**63]
    assert list(mine.values()) == expected
    with SummaryWriter(str(tmp_path / "new")) as writer:
        for step in range(20):
            writer.add_scalar("new", step / 3, step, new_style=True)
            writer.add_scalar("double", step / 3, step, new_style=True, double_precision=True)
    run = columns_of(the_run(tmp_path / "new"))
    np.testing.assert_array_equal(run["new"].values, (np.arange(20) / 3).astype(np.float32))
    assert run["double"].values.tolist() == [step / 3 for step in range(20)]


def test_histograms_images_audio_text_and_tensors_are_counted_and_passed_over(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(30):
            writer.add_scalar("loss", step, step)
            writer.add_histogram("weights", np.random.default_rng(step).normal(size=500), step)
        writer.add_text("sample", "once upon a time")
        writer.add_text("args", json.dumps({"learning_rate": 3e-4, "model": "gpt"}))
        writer.add_pr_curve("curve", np.array([0, 1]), np.array([0.2, 0.9]))
        writer.add_tensor("embedding", __import__("torch").ones(3))
    run = the_run(tmp_path)
    same_as_tensorboard(tmp_path, run)
    assert run.config == {"args": {"learning_rate": 3e-4, "model": "gpt"}}
    (note,) = run.notes
    assert "30 histograms" in note and "2 tensors" in note and "1 text" in note


def test_every_folder_is_a_run(tmp_path: Path) -> None:
    for name in ("", "a", "b/c"):
        write(tmp_path / "logs" / name / FILE, losses(5))
    runs = list(read(tmp_path / "logs", NameMap()))
    assert [run.name for run in runs] == ["logs", "a", str(Path("b", "c"))]
    assert [run.name for run in import_runs(tmp_path / "logs")] == ["logs", "a", str(Path("b", "c"))]
    assert [run.name for run in import_runs(f"{tmp_path / 'logs'}::a")] == ["a"]
    assert the_run(tmp_path / "logs" / "a" / FILE).name == "a"


def test_what_add_scalars_and_add_hparams_spread_over_folders_comes_back(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in range(10):
            writer.add_scalar("lr", 0.1, step)
            writer.add_scalars("my/loss", {"train": step, "val": 2 * step}, step)
        writer.add_hparams({"lr": 0.1, "optimizer": "sgd", "nesterov": True}, {"hparam/accuracy": 0.9})
    assert len(list((tmp_path / "run").iterdir())) == 4
    run = the_run(tmp_path / "run")
    mine = columns_of(run)
    assert set(mine) == {"lr", "my/loss/train", "my/loss/val", "hparam/accuracy"}
    assert mine["my/loss/val"].values.tolist() == [2.0 * step for step in range(10)]
    assert run.config == {"lr": 0.1, "optimizer": "sgd", "nesterov": True}


def test_a_resumption_is_a_part_and_loses_nothing_that_counts_otherwise(tmp_path: Path) -> None:
    epochs = [scalar("val/loss", 9 - e, e, 1.7e9 + 25 * e) for e in range(1, 4)]
    write(tmp_path / FILE, sorted(losses(100) + epochs, key=lambda e: e.wall_time))
    later = 1.7e9 + 1000
    again = [scalar("val/loss", 5 - e, e, later + 25 * e) for e in range(3, 5)]
    extra = [scalar("lr", 0.5, 76, later), *losses(60, 80, later)]
    write(tmp_path / "events.out.tfevents.1700000900.host.2.0", extra + again)
    run = the_run(tmp_path)
    assert [part.started for part in run.parts] == [1.7e9, 1.7e9]  # both begin with the same first event
    (opened,) = import_runs(tmp_path)
    assert len(opened.segments) == 2 and opened.segments[1].first_step == 80
    assert opened["loss"].steps.tolist() == list(range(140))
    assert opened["val/loss"].steps.tolist() == [1, 2, 3, 4]
    assert opened["val/loss"].values.tolist() == [8, 7, 2, 1]
    assert opened["lr"].steps.tolist() == [76]


def test_a_restart_voids_what_it_says(tmp_path: Path) -> None:
    for purge, steps in ((None, range(10)), (6, range(8, 12))):
        writer = SummaryWriter(str(tmp_path), purge_step=purge)
        for step in steps:
            writer.add_scalar("loss", step, step)
        writer.close()
        time.sleep(1.05)  # the next file's name has another second
    oracle = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    oracle.Reload()
    (opened,) = import_runs(tmp_path)
    assert opened["loss"].steps.tolist() == [e.step for e in oracle.Scalars("loss")]
    restart = Event(wall_time=1.7e9, step=3, session_log=SessionLog(status=SessionLog.START))
    write(tmp_path / "one" / FILE, [*losses(6), restart, scalar("loss", 7.0, 4)])
    assert columns_of(the_run(tmp_path / "one"))["loss"].steps.tolist() == [0, 1, 2, 4]


def test_writers_at_the_same_time_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path / FILE, losses(50))
    write(tmp_path / FILE.replace(".1.0", ".2.0"), losses(50))
    write(tmp_path / FILE.replace(".1.0", ".3.0"), losses(50, tag="other"))
    runs = list(read(tmp_path, NameMap()))
    assert len(runs) == 2 and len({run.name for run in runs}) == 2
    assert sorted(columns_of(runs[0])) == ["loss", "other"]
    assert "2 writers" in runs[0].warnings[0]


def test_a_wrong_checksum_costs_one_record(tmp_path: Path) -> None:
    places = write(tmp_path / FILE, losses(3000))
    data = bytearray((tmp_path / FILE).read_bytes())
    data[places[1500] + 20] ^= 1
    (tmp_path / FILE).write_bytes(data)
    run = the_run(tmp_path)
    assert columns_of(run)["loss"].steps.tolist() == [s for s in range(3000) if s != 1499]
    (warning,) = run.warnings
    assert f"byte {places[1500]:,}" in warning and FILE in warning


@pytest.mark.parametrize("seed", range(20))
def test_damage_costs_what_it_touches_and_no_more(tmp_path: Path, seed: int) -> None:
    places = write(tmp_path / FILE, losses(500))
    rng = random.Random(seed)
    data = bytearray((tmp_path / FILE).read_bytes())
    at, size = rng.randrange(100, len(data) - 200), rng.randrange(1, 150)
    if seed % 2:
        data[at : at + size] = rng.randbytes(size)
        expected = [i - 1 for i in range(1, 501) if places[i + 1] <= at or places[i] >= at + size]
    else:
        del data[at : at + size]
        expected = [i - 1 for i in range(1, 501) if places[i + 1] <= at or places[i] >= at + size]
    (tmp_path / FILE).write_bytes(data)
    run = the_run(tmp_path)
    assert columns_of(run)["loss"].steps.tolist() == expected
    assert run.warnings and all(FILE in warning for warning in run.warnings)


def test_the_end_of_a_file_may_be_cut(tmp_path: Path) -> None:
    places = write(tmp_path / FILE, losses(20))
    whole = (tmp_path / FILE).read_bytes()
    for cut in range(places[10], places[11] + 1):
        (tmp_path / FILE).write_bytes(whole[:cut])
        run = the_run(tmp_path)
        assert len(columns_of(run)["loss"].steps) == (10 if cut == places[11] else 9)
        if cut in (places[10], places[11]):
            assert not run.warnings
        else:
            (warning,) = run.warnings
            assert "still being written" in warning


def test_a_growing_file_is_read_again(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    for event in losses(10):
        writer.add_event(event)
    writer.flush()
    (run,) = import_runs(tmp_path)
    assert len(run["loss"]) == 10 and run.live
    for event in losses(10, 10):
        writer.add_event(event)
    writer.close()
    run.refresh()
    assert len(run["loss"]) == 20


def test_nothing_readable_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no event file"):
        list(read(tmp_path, NameMap()))
    (tmp_path / FILE).touch()
    with pytest.raises(RunFileError, match="1 event files, and no scalar"):
        list(read(tmp_path, NameMap()))
    (tmp_path / FILE).write_bytes(bytes(1000))
    with pytest.raises(RunFileError, match="damaged at byte 0"):
        list(read(tmp_path, NameMap()))
    write(tmp_path / "good" / FILE, losses(3))
    run = the_run(tmp_path)
    assert run.name == "good" and "damaged at byte 0" in run.warnings[0]


def test_links_pipes_and_names_with_markup_do_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "<b>logs[red]"
    write(root / FILE, losses(3, tag="[bold]loss[/]"))
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "events.out.tfevents.1.self").symlink_to(root / "events.out.tfevents.1.self")
    os.mkfifo(root / "events.out.tfevents.2.pipe")
    run = the_run(root)
    assert run.name == "<b>logs[red]" and list(columns_of(run)) == ["[bold]loss[/]"]
    assert len(run.warnings) == 2


def test_how_sure_it_is(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "er" / FILE, losses(3))
    (tmp_path / "other.txt").write_text("step 1 loss 2")
    (tmp_path / "empty").mkdir()
    assert accepts(tmp_path / "deep" / "er") == accepts(tmp_path / "deep" / "er" / FILE) == 0.95
    assert accepts(tmp_path) == 0.6
    assert accepts(tmp_path / "other.txt") == accepts(tmp_path / "empty") == 0


def test_a_corrupt_length_allocates_nothing_and_large_records_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / FILE, losses(100))
    small = (tmp_path / FILE).read_bytes()
    huge = (1 << 40).to_bytes(8, "little")
    check = masked(np.array([bitwise_crc(huge)], np.uint32)).astype("<u4").tobytes()
    (tmp_path / FILE).write_bytes(small + huge + check + small)
    tracemalloc.start()
    run = the_run(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert len(columns_of(run)["loss"].steps) == 200
    assert "beyond the end" in run.warnings[0]


def test_memory_is_bounded_by_what_is_kept(tmp_path: Path) -> None:
    big = Event(wall_time=1.0, summary=Summary(value=[
        Summary.Value(tag="i", image=Summary.Image(encoded_image_string=bytes(1 << 20)))
    ]))  # fmt: skip
    write(tmp_path / FILE, losses(5))
    with (tmp_path / FILE).open("ab") as file:
        file.write(framed([big.SerializeToString()]) * 60)
    tracemalloc.start()
    run = the_run(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    assert run.notes == ["left out, since they are no scalars: 60 images"]
    assert len(columns_of(run)["loss"].steps) == 5 and not run.warnings


def fuzz(tmp_path: Path, seeds: range) -> None:
    """Records are changed in their data as well, under right checksums, so that the parser meets what is wrong."""
    with SummaryWriter(str(tmp_path / "model")) as writer:
        for step in range(15):
            writer.add_scalar("loss", step, step)
            writer.add_scalar("double", step, step, new_style=True, double_precision=True)
        writer.add_histogram("h", np.arange(9), 1)
        writer.add_text("args", '{"a": 1}')
        writer.add_hparams({"a": 1}, {"m": 1}, run_name=".")
    files = sorted((tmp_path / "model").iterdir())
    model = b"".join(file.read_bytes() for file in files)
    payloads = [event.SerializeToString() for file in files for event in _events(file)]
    target = tmp_path / "fuzzed" / FILE
    target.parent.mkdir()
    read = 0
    for seed in seeds:
        rng = random.Random(seed)
        if seed % 2:
            target.write_bytes(mutated(model, rng))
        else:
            changed = [mutated(payload, rng) if rng.random() < 0.5 else payload for payload in payloads]
            target.write_bytes(framed(changed))
        read += read_or_refused(target.parent, tensorboard_folder)
    assert read > len(seeds) // 2


def _events(path: Path) -> list[Event]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return list(EventFileLoader(str(path)).Load())


def test_fuzz(tmp_path: Path) -> None:
    fuzz(tmp_path, range(300))


@pytest.mark.slow
def test_fuzz_long(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 11_000))
