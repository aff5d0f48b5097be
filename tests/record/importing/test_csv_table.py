"""Tables: separators, decimal marks, headers of all kinds, holes, several in a folder, our own export."""

import random
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError
from thalweg.record import Recorder, export_csv, open_run
from thalweg.record.importing import csv_table, import_runs, tabular


def table(text, tmp_path, name="t.csv", **options):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return import_runs(tmp_path / name, **options)[0]


def test_lightning_rows_with_holes_and_epoch_means(tmp_path):
    rows = ["epoch,step,train_loss_step,train_loss_epoch,val_loss"]
    for epoch in range(3):
        rows += [f"{epoch},{epoch * 100 + s},{3 - epoch},," for s in (49, 99)]
        rows += [
            f"{epoch},{epoch * 100 + 99},,,{2 - epoch / 10}",
            f"{epoch},{epoch * 100 + 99},,{3 - epoch},",
        ]
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_10").mkdir()
    (tmp_path / "version_9").mkdir()
    for folder in tmp_path.iterdir():
        (folder / "metrics.csv").write_text("\n".join(rows))
        (folder / "hparams.yaml").write_text("lr: 0.1\nnested:\n  a: 1\nname: resnet\n")
    runs = import_runs(tmp_path)
    assert [run.name for run in runs] == ["version_0", "version_9", "version_10"]
    run = runs[0]
    assert run.config == {"lr": 0.1, "name": "resnet"}
    assert run["train_loss_step"].spec.window == 1
    assert run["train_loss_epoch"].spec.window == 100 and "epoch" in run["train_loss_epoch"].spec.estimator
    assert run.by_role("evaluation loss").steps.tolist() == [99, 199, 299]
    assert run.warnings == []


def test_a_locale_of_commas(tmp_path):
    run = table('step;loss;acc;"lr"\n1;2,5;1.250,75;0.001\n2;1,125;80,1;0.002\n3;0,875;90;1e-3\n', tmp_path)
    assert run["loss"].values.tolist() == [2.5, 1.125, 0.875]
    assert run["acc"].values.tolist() == pytest.approx([1250.75, 80.1, 90])
    assert run["lr"].values.tolist() == pytest.approx([0.001, 0.002, 0.001])


def test_thousands_stay_thousands_between_commas(tmp_path):
    run = table('step,tokens,loss\n1,"1,024","0,5"\n2,"2,048",0.25\n', tmp_path)
    assert run["tokens"].values.tolist() == [1024, 2048]
    assert run["loss"].values.tolist() == [0.5, 0.25]


def test_headers_of_all_kinds(tmp_path):
    run = table('\ufeffstep,"train, loss",loss,loss,time (ms),\n1,1,2,3,4,5\n2,1,2,3,4,5\n', tmp_path)
    assert run.names() == ["column 6", "loss", "loss.2", "time (ms)", "train, loss"]
    assert run["time (ms)"].spec.unit == "ms"


def test_no_header_and_a_first_column_that_grows(tmp_path):
    run = table("10,2.5,0.1\n20,2.0,0.1\n30,1.5,0.1\n", tmp_path)
    assert run["column 2"].steps.tolist() == [10, 20, 30]
    assert any("columns are called" in text for text in run.warnings)
    mapped = table("10,2.5,0.1\n20,2.0,0.1\n", tmp_path, map={"loss": "column 2", "lr": "column 3"})
    assert mapped.by_role("train loss").values.tolist() == [2.5, 2.0]
    assert mapped["loss"].name == "column 2"
    assert mapped.by_role("rate").name == "column 3"


def test_steps_epochs_times_and_tokens_are_told_apart(tmp_path):
    run = table(
        "Wall time,epoch,global_step,tokens_seen,loss\n1700000000,0,1.0,16777217,2\n1700000001,1,2.0,33554435,1\n",
        tmp_path,
    )
    assert run["loss"].steps.tolist() == [1, 2]
    assert run["loss"].times.tolist() == [1.7e9, 1.7e9 + 1]
    assert run.by_role("tokens").values.tolist() == [16777217, 33554435]
    assert run["epoch"].spec.role == "epoch"


def test_only_epochs(tmp_path):
    run = table("epoch,loss,val_loss,time\n1,2,3,60\n2,1,2,50\n3,1,2,55\n", tmp_path)
    assert run["loss"].spec.clock == "epochs"
    assert run["loss"].spec.window == 0 and "mean" in run["loss"].spec.estimator
    assert run["val_loss"].spec.window == 1
    assert run["time"].values.tolist() == [60, 50, 55]


def test_batches_that_begin_anew_in_every_epoch_are_counted_on(tmp_path):
    rows = [f"{e},{b},{e + b}" for e in range(3) for b in range(4)]
    run = table("epoch,batch,loss\n" + "\n".join(rows), tmp_path)
    assert run["loss"].steps.tolist() == list(range(12))
    assert any("begins anew" in note for note in run.meta["imported"]["notes"])


def test_text_in_a_numbers_place_named_numbers_and_holes(tmp_path):
    rows = [f"{s},{1 / s},x" for s in range(1, 30)]
    rows[3], rows[5], rows[7] = "4,oops,x", "6,NaN,x", "8,-Infinity,x"
    rows[20] = "5000,0.1,x"
    run = table("step,loss,tag\n" + "\n".join(rows[:21]), tmp_path)
    assert np.isnan(run["loss"].values[4]) and np.isneginf(run["loss"].values[6])
    assert 4 not in run["loss"].steps
    assert any("'oops'" in text for text in run.warnings)
    assert any("hole" in text and "5,000" in text for text in run.warnings)
    assert run.config == {"tag": "x"}


def test_single_rows_out_of_order_repeats_and_a_resumption(tmp_path):
    single = table("step,loss\n1,1\n2,2\n4,4\n3,3\n5,5\n5,6\n", tmp_path)
    assert single["loss"].steps.tolist() == [1, 2, 3, 4, 5]
    assert single["loss"].values.tolist() == [1, 2, 3, 4, 6]
    assert len(single.segments) == 1
    assert any("out of order" in t for t in single.warnings) and any("repeat" in t for t in single.warnings)
    rows = [f"{s},{s}" for s in range(10)] + [f"{s},{s + 100}" for s in range(6, 15)]
    resumed = table("step,loss\n" + "\n".join(rows), tmp_path)
    assert len(resumed.segments) == 2
    assert resumed["loss"].values.tolist() == [*range(6), *range(106, 115)]
    assert resumed.get("loss", segment=0).values.tolist() == list(range(10))
    anew = table(
        "step,loss\n" + "\n".join([f"{s},1" for s in range(5)] + [f"{s},2" for s in range(5)]), tmp_path
    )
    assert anew["loss"].values.tolist() == [2] * 5
    assert any("begin anew" in text for text in anew.warnings)


def test_three_points_one_column_and_huge_cells(tmp_path):
    assert table("loss\n3\n2\n1\n", tmp_path)["loss"].values.tolist() == [3, 2, 1]
    run = table(f'step,loss,note\n1,2,"{"x" * 300_000}"\n2,1,short\n3,{"9" * 300},\n', tmp_path)
    assert 2 in run["loss"].steps
    unended = table('step,loss\n1,2\n2,"1\n' + "".join(f"{s},1\n" for s in range(3, 30_000)), tmp_path)
    assert unended["loss"].steps[0] == 1
    assert any("never ends" in text for text in unended.warnings)


def test_our_own_export_comes_back(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        for step in range(50):
            recorder.log({"loss": 1 / (step + 1), "eval/loss": 2.0}, step, time=1.7e9 + step)
    before = open_run(tmp_path / "a.tw")
    after = open_run(export_csv(before, tmp_path / "out.csv"))
    assert after.names() == before.names()
    assert np.array_equal(after["loss"].values, before["loss"].values)
    assert np.allclose(after["loss"].times, before["loss"].times)


def test_ultralytics_has_parts_and_metrics_of_the_validation(tmp_path):
    run = table(
        "epoch, train/box_loss, train/cls_loss, metrics/mAP50(B), val/box_loss, lr/pg0\n1,2,1,0.1,3,0.1\n2,1,1,0.2,2,0.1\n",
        tmp_path,
    )
    assert {s.name for s in run.all_by_role("train loss")} == {"train/box_loss", "train/cls_loss"}
    assert run.by_role("evaluation metric").name == "metrics/mAP50(B)"
    assert any("parts" in note for note in run.meta["imported"]["notes"])


def test_a_large_table_is_thinned_without_losing_a_spike(tmp_path, monkeypatch):
    monkeypatch.setattr(tabular, "MOST_POINTS", 4_000)
    monkeypatch.setattr(tabular, "_STRETCH", 1_000)
    rows = [f"{s},{100.0 if s == 7_777 else 'nan' if s == 5_555 else 1 + s % 3}" for s in range(20_000)]
    run = table("step,loss\n" + "\n".join(rows), tmp_path)
    values = run["loss"].values
    assert len(values) <= 4_000
    assert 100.0 in values and run["loss"].steps[values == 100.0].tolist() == [7_777]
    assert 5_555 in run["loss"].steps[np.isnan(values)]
    assert "smallest and largest" in run["loss"].spec.estimator
    assert any("more than 4,000 numbers" in text for text in run.warnings)


def test_progress_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("step,loss\n" + "".join(f"{s},1\n" for s in range(1000)))
    said = []
    import_runs(tmp_path / "t.csv", tell=lambda done, total: said.append((done, total)))
    assert said and said[-1][0] == said[-1][1] == (tmp_path / "t.csv").stat().st_size


@pytest.mark.parametrize("text", ["", "\n\n", "step,loss\n", "a,b\nx,y\n", "\x00\x01\x02,\x03"])
def test_what_holds_no_number_is_refused(tmp_path, text):
    with pytest.raises(RunFileError):
        table(text, tmp_path)


def test_a_map_that_names_nothing_lists_what_there_is(tmp_path):
    with pytest.raises(RunFileError, match=r"no column 'x'.*it has loss"):
        table("step,loss\n1,2\n", tmp_path, map={"loss": "x"})["loss"]


def fuzz(path: Path, seeds: range) -> None:
    heads = ("step,loss,lr\n", "epoch;train loss;val\n", '"a","b,c",d\n', "signal,step,value\n", "")
    for seed in seeds:
        rng = random.Random(seed)
        mark = rng.choice(",;\t")
        rows = (
            mark.join(rng.choice(("1", "2,5", "nan", "", "x", "1e9", '"', "-3.5")) for _ in range(3))
            for _ in range(20)
        )
        path.write_bytes(mutated((rng.choice(heads) + "\n".join(rows)).encode(), rng))
        read_or_refused(path, csv_table)


def test_broken_tables_are_read_or_refused(tmp_path):
    fuzz(tmp_path / "t.csv", range(300))


@pytest.mark.slow
def test_ten_thousand_broken_tables(tmp_path):
    fuzz(tmp_path / "t.csv", range(300, 10_300))
