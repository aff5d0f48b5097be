"""Mirrors: what TensorBoard and W&B get is what was recorded."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thalweg.core.errors import MissingExtra, UsageError
from thalweg.record.mirrors import make_mirror


def _scalars(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: [(e.step, e.value, e.wall_time) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]
    }


def test_tensorboard_reads_back_every_value_step_and_time(tmp_path: Path) -> None:
    mirror = make_mirror("tensorboard", name="first", folder=tmp_path)
    values = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    values[7, 0] = math.nan
    times = 1.7e9 + np.arange(50.0)
    mirror.write(["loss", "grad/norm/0.weight"], np.arange(50), values, times)
    mirror.write(["lr"], np.arange(0, 50, 10), np.full((5, 1), 0.1), None)
    mirror.close()

    read = _scalars(tmp_path / "first")
    assert sorted(read) == ["grad/norm/0.weight", "loss", "lr"]
    assert [s for s, _, _ in read["loss"]] == list(range(50))
    np.testing.assert_array_equal([v for _, v, _ in read["loss"]], values[:, 0])
    np.testing.assert_array_equal([v for _, v, _ in read["grad/norm/0.weight"]], values[:, 1])
    assert [t for _, _, t in read["loss"]] == times.tolist()
    assert [s for s, _, _ in read["lr"]] == [0, 10, 20, 30, 40]


def test_late_rows_do_not_make_tensorboard_forget_what_it_has(tmp_path: Path) -> None:
    mirror = make_mirror("tensorboard", name="late", folder=tmp_path)
    mirror.write(["a"], [10, 20], [[1.0], [2.0]], None)
    mirror.write(["a"], [11, 12, 20, 30], [[5.0], [5.0], [3.0], [4.0]], None)
    mirror.close()
    last = {step: value for step, value, _ in _scalars(tmp_path / "late")["a"]}
    assert last == {10: 1.0, 20: 3.0, 30: 4.0}


def test_two_mirrors_of_one_name_do_not_share_a_file(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        mirror = make_mirror("tensorboard", name="same", folder=tmp_path)
        mirror.write(["a"], [0], [[value]], None)
        mirror.close()
    assert len(list((tmp_path / "same").iterdir())) == 2


def test_the_tensorboard_mirror_loads_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from thalweg.record.mirrors import make_mirror\n"
        f"m = make_mirror('tensorboard', name='x', folder={str(tmp_path)!r}); m.write(['a'], [1], [[2.0]], None); m.close()\n"
        "print([n for n in ('torch', 'tensorflow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_wandb_offline_keeps_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    mirror = make_mirror("wandb", name="first", mode="offline", dir=str(tmp_path), project="thalweg-test")
    mirror.write(["loss", "lr"], [0, 1, 2], [[3.0, 0.1], [2.5, 0.1], [2.25, 0.05]], None)
    mirror.write(["grad/norm"], [0, 2], [[1.5], [1.25]], None)
    mirror.close()
    rows = _wandb_rows(tmp_path)
    assert [(r["thalweg/step"], r["loss"], r["lr"]) for r in rows if "loss" in r] == [
        (0, 3.0, 0.1),
        (1, 2.5, 0.1),
        (2, 2.25, 0.05),
    ]
    assert [(r["thalweg/step"], r["grad/norm"]) for r in rows if "grad/norm" in r] == [(0, 1.5), (2, 1.25)]


def test_an_active_wandb_run_is_used_and_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    own = wandb.init(mode="offline", dir=str(tmp_path), project="thalweg-test")
    mirror = make_mirror("wandb", name="ignored")
    mirror.write(["loss"], [4], [[3.0]], None)
    mirror.close()
    assert wandb.run is own
    own.log({"loss": 9.0})
    own.finish()
    rows = _wandb_rows(tmp_path)
    assert [r["thalweg/loss"] for r in rows if "thalweg/loss" in r] == [3.0]
    assert [r["loss"] for r in rows if "loss" in r] == [9.0]


def _wandb_rows(folder: Path) -> list[dict[str, float]]:
    """The history records of the one offline run under a folder: protobufs in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("*.wandb")
    data, at, whole, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.HasField("history"):
                items = record.history.item
                rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def test_other_kinds_and_options_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tensorboard"):
        make_mirror("mlflow", name="x")
    with pytest.raises(UsageError, match="folder"):
        make_mirror("tensorboard", name="x", dir=tmp_path)


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_an_absent_tool_names_its_extra(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [n for n in sys.modules if n.split(".")[0] == kind]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingExtra, match=rf"thalweg\[{kind}\]"):
        make_mirror(kind, name="x")


def test_a_mirrored_watch_gives_tensorboard_what_it_records(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import thalweg as tw

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tw.watch(model, optimizer, out=tmp_path / "run.tw", cadence=1) as watch:
        watch.mirror("tensorboard", folder=tmp_path / "tb")
        for _ in range(20):
            loss = model(torch.randn(4, 3)).square().mean()
            loss.backward()
            watch.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
    run, read = tw.open_run(tmp_path / "run.tw"), _scalars(tmp_path / "tb" / "run")
    for name in ("loss", "lr", "grad/norm", "grad/norm/weight"):
        assert [s for s, _, _ in read[name]] == run[name].steps.tolist()
        np.testing.assert_allclose([v for _, v, _ in read[name]], run[name].values, rtol=1e-6)
