"""What training scripts print: one test for each kind of line, the user's own pattern, and text that is no log."""

import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from importer_fuzz import mutated, read_or_refused

from thalweg.core.errors import RunFileError, UsageError
from thalweg.record.importing import NameMap, import_runs, lines, text_log


def log(text, tmp_path, **options):
    (tmp_path / "train.log").write_text(text, encoding="utf-8")
    return import_runs(tmp_path / "train.log", **options)[0]


def test_nanogpt(tmp_path):
    run = log(
        "number of parameters: 10.65M\n"
        "step 0: train loss 4.2874, val loss 4.2823\n"
        "iter 0: loss 4.2649, time 33871.76ms, mfu -100.00%\n"
        "iter 10: loss 3.2438, time 25.55ms, mfu 14.58%\n"
        "step 250: train loss 1.96, val loss 2.06\n",
        tmp_path,
    )
    assert run.by_role("train loss").name == "loss"
    assert run["loss"].steps.tolist() == [0, 10]
    assert run.by_role("evaluation loss").name == "val loss"
    assert run["eval/train loss (estimate)"].spec.role == ""
    assert run["time"].spec.unit == "ms"
    assert run.config["number of parameters"] == 10.65e6


def test_nanogpt_without_single_steps_has_its_estimate_as_train_loss(tmp_path):
    run = log(
        "".join(f"step {s}: train loss {3 - s / 1000:.2f}, val loss 2.0\n" for s in (0, 250, 500)), tmp_path
    )
    assert run.by_role("train loss").name == "eval/train loss (estimate)"


def test_torchtitan_with_colors_ranks_and_times(tmp_path):
    lines = [
        f"\x1b[0m[rank{rank}]:[titan] 2025-06-04 08:51:{40 + s},074 - root - INFO - \x1b[31mstep: {s:2d}  \x1b[32mloss: "
        f"{12 - s:.4f}  \x1b[33mgrad_norm: {1 + s / 10:.4f}  \x1b[34mmemory: 27.34GiB(28.78%)  \x1b[36mtps: 7,034\x1b[0m"
        for s in range(1, 6)
        for rank in (0, 1)
    ]
    run = log("\n".join(lines), tmp_path)
    assert run["loss"].values.tolist() == [11, 10, 9, 8, 7]
    assert run.by_role("gradient norm").steps.tolist() == [1, 2, 3, 4, 5]
    assert run["memory"].spec.unit == "GiB"
    assert run["tps"].last == 7034
    assert run["loss"].times[1] - run["loss"].times[0] == pytest.approx(1.0)
    assert any("5 lines of other ranks" in text for text in run.warnings)


def test_megatron(tmp_path):
    line = (
        " [2025-08-01 07:19:{0}] iteration      {0}/    5000 | consumed samples:         {0}0 | elapsed time per iteration "
        "(ms): 19138.8 | throughput per GPU (TFLOP/s/GPU): 80.2 | learning rate: 6.976744E-08 | global batch size:   128 | "
        "lm loss: 1.0{0}3863E+01 | loss scale: 1.0 | grad norm: 26.203 | number of skipped iterations:   0 |\n"
    )
    text = (
        "".join(line.format(s) for s in (10, 20, 30))
        + " validation loss at iteration 30 | lm loss value: 3.5E+00 |\n"
    )
    run = log(text, tmp_path)
    roles = {spec.name: spec.role for spec in run.signals}
    assert roles["lm loss"] == "train loss" and roles["learning rate"] == "rate"
    assert roles["grad norm"] == "gradient norm" and roles["loss scale"] == "loss scale"
    assert roles["elapsed time per iteration (ms)"] == "step time" and roles["consumed samples"] == "samples"
    assert (
        roles["global batch size"] == "batch size"
        and roles["number of skipped iterations"] == "skipped updates"
    )
    assert run["lm loss"].spec.window == 10
    assert run.by_role("evaluation loss").name == "eval/lm loss value"


def test_llm_c_screen_and_file(tmp_path):
    run = log(
        "".join(
            f"step {s:4d}/19560 | loss {11 - s / 10:.6f} (+nanz)| norm {1 + s:.4f} (+0.2z)| lr 8.57e-07 | 99.36 ms\n"
            for s in range(1, 5)
        )
        + "val loss 10.9\n",
        tmp_path,
    )
    assert run.by_role("train loss").steps.tolist() == [1, 2, 3, 4]
    assert run.by_role("gradient norm").values.tolist() == [2, 3, 4, 5]
    assert run.by_role("evaluation loss").last == pytest.approx(10.9)
    run = log(
        "s:0 tel:11.0\ns:0 trl:10.9 lr:0.000001 norm:14.96\ns:1 trl:10.8 lr:0.000002 norm:15.18\n", tmp_path
    )
    assert {spec.role for spec in run.signals} == {"evaluation loss", "train loss", "rate", "gradient norm"}
    run = log("0 val 10.9\n0 hella 0.2463\n0 train 10.95\n1 train 10.7\n", tmp_path)
    assert run.by_role("train loss").values.tolist() == pytest.approx([10.95, 10.7])


def test_keras_keeps_the_full_bars(tmp_path):
    text = "".join(
        f"Epoch {e}/3\n 10/100 [==>......] - ETA: 1s - loss: 9.9\r100/100 [==========] - 1s 2ms/step - loss: {1 / e:.2f} - val_loss: {2 / e:.2f}\n"
        for e in (1, 2, 3)
    )
    run = log(text, tmp_path)
    assert run["loss"].steps.tolist() == [1, 2, 3] and run["loss"].spec.clock == "epochs"
    assert run["loss"].values.tolist() == pytest.approx([1, 0.5, 0.33])
    assert run["loss"].spec.window == 0 and run["val_loss"].spec.window == 1


def test_timm_and_the_examples_of_pytorch_have_running_means(tmp_path):
    text = "".join(
        f"Train: {e} [ {b:3d}/312 ( 16%)]  Loss: {6.9 - e:.3f} (6.95)  Time: 0.395s,  648.38/s  LR: 1.000e-06\n"
        for e in (0, 1)
        for b in (0, 50, 311)
    )
    text += "Test: [   0/48]  Loss:  6.5 (6.5)  Acc@1:  1.0 ( 1.0)\nTest: [  48/48]  Loss:  6.4 (6.45)  Acc@1:  2.0 ( 1.5)\n"
    run = log(text, tmp_path)
    assert run["Loss"].steps.tolist() == [0, 50, 311, 312, 362, 623]
    assert run["Loss (epoch so far)"].spec.window == 0 and run["Loss (epoch so far)"].spec.role == ""
    assert run.by_role("evaluation loss").values.tolist() == pytest.approx([6.45])
    text = "".join(
        f"Epoch: [{e}][{b:4d}/5005]\tTime  0.4 ( 0.6)\tLoss 6.9{e} (7.0)\tAcc@1   0.39 (  0.20)\n"
        for e in (0, 1)
        for b in (0, 10)
    )
    run = log(text + " *   Acc@1 76.1 Acc@5 92.8\n", tmp_path)
    assert run["Loss"].steps.tolist() == [0, 10, 5005, 5015]
    assert run["eval/Acc@1"].spec.role == "evaluation metric" and run["Acc@1"].spec.role == "train metric"


def test_fairseq_lightning_and_openmmlab(tmp_path):
    run = log(
        "".join(
            f"2020-01-01 10:00:0{i} | INFO | train_inner | epoch 001:   {i}00 / 11000 loss=8.{i}, ppl=137, num_updates={i}00, lr=1e-05, gnorm=1.2\n"
            for i in (1, 2, 3)
        ),
        tmp_path,
    )
    assert run["loss"].steps.tolist() == [100, 200, 300]
    assert run["gnorm"].spec.role == "gradient norm"
    run = log(
        "\r".join(
            f"Epoch {e}: {p:3d}%|####  | {b}/312 [00:12<00:15, 11.2it/s, v_num=0, train_loss=0.{9 - e}]"
            for e in (0, 1)
            for p, b in ((33, 104), (100, 312))
        ),
        tmp_path,
    )
    assert run["train_loss"].steps.tolist() == [104, 312, 416, 624]
    run = log(
        "".join(
            f"2024/01/01 10:00:0{i} - mmengine - INFO - Epoch(train)  [{e}][  {i}0/7330]  lr: 1.0000e-04  eta: 1 day, 10:10:10  grad_norm: 20.1  loss: 1.{i}  loss_cls: 0.5\n"
            for e in (1, 2)
            for i in (1, 2)
        ),
        tmp_path,
    )
    assert run["loss"].steps.tolist() == [10, 20, 7340, 7350]
    assert "eta" not in run and run["loss_cls"].spec.role == ""


def test_dictionaries_that_the_trainer_prints(tmp_path):
    run = log(
        "{'loss': 2.3, 'grad_norm': 1.0, 'learning_rate': 5e-05, 'epoch': 0.1}\n"
        "  5%|# | 500/10000 [00:10<03:00, 50it/s]{'loss': nan, 'grad_norm': 'inf', 'learning_rate': '4e-05', 'epoch': 0.2}\n"
        "{'eval_loss': 2.0, 'eval_runtime': 3.1, 'epoch': 1.0}\n{'train_runtime': 10.0, 'train_loss': 2.2, 'epoch': 1.0}\n",
        tmp_path,
    )
    assert run["loss"].spec.clock == "rows" and run["loss"].spec.window == 0
    assert np.isnan(run["loss"].values[1]) and np.isinf(run["grad_norm"].values[1])
    assert run.by_role("evaluation loss").steps.tolist() == [2]
    assert run.summary["train_loss"] == 2.2 and "train_loss" not in run


def test_tables_of_notebooks(tmp_path):
    run = log(
        "epoch     train_loss  valid_loss  accuracy  time    \n0         0.93        0.51        0.83      00:12   \n1         0.43        0.41        0.88      00:12   \n",
        tmp_path,
    )
    assert run["train_loss"].steps.tolist() == [0, 1]
    assert run["valid/accuracy"].spec.role == "evaluation metric"
    run = log(
        "      Epoch    GPU_mem   box_loss   cls_loss  Instances       Size\n      1/100      2.1G      1.12      1.17         20        640: 100%|##| 10/10\n      2/100      2.1G      1.02      1.07         20        640: 100%|##| 10/10\n",
        tmp_path,
    )
    assert run["box_loss"].values.tolist() == pytest.approx([1.12, 1.02])


def test_blocks_of_lines_belong_to_the_epoch_above_them(tmp_path):
    text = "d_model: 512\n" + "".join(
        f"Epoch: {e}/30\nTime Taken: 30.51s - LR: 4.11e-05\nTrain Loss: 4.{e} - Train Perplexity: 86\nValid Loss: 5.{e}\n"
        for e in (1, 2, 3)
    )
    run = log(text, tmp_path)
    assert run.by_role("train loss").steps.tolist() == [1, 2, 3]
    assert run.by_role("evaluation loss").values.tolist() == pytest.approx([5.1, 5.2, 5.3])
    assert run.config == {"d_model": "512"} or run.config == {"d_model": 512}
    assert run.by_role("rate").name == "LR"


def test_source_code_before_the_log_is_no_row(tmp_path):
    code = "def f(G, steps=10, eps=1e-7):\n    if step == 10:\n        val_loss = 0.0\n    batch = 16\n"
    run = log(
        code
        + "".join(
            f"step:{s}/6200 train_loss:{3 - s}.5 train_time:{s}00ms step_avg:216.33ms\n" for s in range(3)
        ),
        tmp_path,
    )
    assert run["train_loss"].steps.tolist() == [0, 1, 2]
    assert "val_loss" not in run and run.by_role("step time").spec.unit == "ms"


def test_the_users_own_pattern(tmp_path):
    text = "noise\nupd<7> L=3,5 x\nupd<8> L=2.5 x\n"
    run = log(text, tmp_path, pattern=r"upd<(?P<step>\d+)> L=(?P<loss>\S+)")
    assert run["loss"].steps.tolist() == [7, 8] and run["loss"].values.tolist() == [3.5, 2.5]
    with pytest.raises(UsageError, match="no regular expression"):
        log(text, tmp_path, pattern="(")
    with pytest.raises(UsageError, match="no named group"):
        log(text, tmp_path, pattern="upd")
    with pytest.raises(RunFileError, match="fits none of its 3 lines"):
        log(text, tmp_path, pattern="(?P<loss>never)")


def test_restarts_and_endings_of_lines(tmp_path):
    text = "\r\n".join(f"step {s} | loss {3 - s / 10}" for s in [*range(6), *range(3, 9)])
    run = log(text, tmp_path)
    assert len(run.segments) == 2 and run["loss"].steps.tolist() == list(range(9))
    (tmp_path / "wide.log").write_bytes(
        ("\ufeff" + "\n".join(f"step {s} loss: 1" for s in range(5))).encode("utf-16-le")
    )
    assert import_runs(tmp_path / "wide.log", format="text-log")[0]["loss"].steps.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "1 2 3\n4 5 6\n", "\x00\x01\x02", "a: b\n" * 50])
def test_what_is_no_log_is_refused(tmp_path, text):
    with pytest.raises(RunFileError):
        log(text, tmp_path)


@pytest.mark.parametrize(
    "unit",
    [
        "a:",
        "a b ",
        "step ",
        "epoch [",
        "1 ",
        "(1 ",
        "Epoch 1: 1%|",
        "{'",
        "a=1(",
        "- ",
        "[ 1/",
        "\x1b[",
        "x 1 (",
        "2024-",
        "| ",
    ],
)
def test_no_line_takes_long(tmp_path, unit):
    line = (unit * 70_000)[: 1 << 16]
    parser = text_log._Parser()
    started = time.process_time()
    for text in (line, line + "!", "step 1 " + line, line + " loss: 1"):
        parser(text)
        lines._NUMBERS.split(text)
    assert time.process_time() - started < 2.0


def test_every_expression_has_bounded_repeats():
    """Two unbounded repeats next to each other are how an expression becomes slow."""
    for name, value in vars(text_log).items():
        if isinstance(value, re.Pattern):
            assert not re.search(r"[*+]\)[*+]|\.\*.*\.\*", value.pattern), name


PIECES = (
    "step 10: loss 2.5, time 30ms\n", "Epoch 3/10\n", "val_loss: 0.3 - acc: 0.9\n", "{'loss': 2.3, 'epoch': 0.1}\n",
    "iteration 10/ 100 | lm loss: 1.0E+01 | grad norm: 2 |\n", "[rank0]: 2024-01-01 10:00:00 step: 3 loss: 1\n", "\r",
    "Train: 0 [ 50/312 ( 16%)] Loss: 6.9 (6.9)\n", "epoch train_loss valid_loss\n0 1.0 2.0\n", "s:1 trl:2 lr:3\n", "1 train 2.5\n",
)  # fmt: skip


def fuzz(path: Path, seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        text = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 30)))
        path.write_bytes(mutated(text.encode(), rng))
        read_or_refused(path, text_log)


def test_broken_logs_are_read_or_refused(tmp_path):
    fuzz(tmp_path / "t.log", range(300))


@pytest.mark.slow
def test_ten_thousand_broken_logs(tmp_path):
    fuzz(tmp_path / "t.log", range(300, 10_300))


def number(rng):
    """A number in any of the ways in which programs print one."""
    x = rng.lognormvariate(0, 3) * rng.choice((1, 1, -1))
    plain = (
        f"{x:.4f}",
        f"{abs(x):7.3f}",
        repr(x),
        f"{x:.3e}",
        f"{x:.2E}",
        f"{x:.6g}",
        f"{x:+.2f}",
        str(round(x, 1)),
    )
    whole = (str(rng.randrange(10)), str(rng.randrange(100_000)), f"{rng.randrange(10**5):5d}")
    odd = (
        "nan", "inf", "-inf", "0", "-0.0", "007", ".5", "5.", "1e5", f"{rng.randrange(10**7):,}", f"{1e6 * abs(x):,.2f}",
        str(rng.randrange(10**12)), str(rng.randrange(10**18)), f"{rng.random():.25f}", "1.2.3", "1,2", "12:30", "1-2",
    )  # fmt: skip
    return rng.choice(rng.choice((plain, plain, plain, whole, whole, odd)))


KINDS = {
    "nanogpt": "iter {at}: loss {n}, time {n}ms, mfu {n}%",
    "nanogpt evaluation": "step {at}: train loss {n}, val loss {n}",
    "llm.c": "step {at:4d}/19560 | loss {n} ({n}z)| norm {n} ({n}z)| lr {n} | {n} ms | {n} tok/s",
    "llm.c file": "s:{at} trl:{n} lr:{n} norm:{n}",
    "bare": "{at} val {n}",
    "megatron": " iteration {at:8d}/ 5000 | consumed samples: {n} | elapsed time per iteration (ms): {n} | learning rate: {n} | "
    "global batch size: {n} | lm loss: {n} | loss scale: {n} | grad norm: {n} | number of nan iterations: {n} |",
    "torchtitan": "\x1b[0m[rank{rank}]:[titan] 2025-06-04 08:51:{s:02d},074 - root - INFO - \x1b[31mstep: {at:2d}  \x1b[32mloss: {n}  "
    "\x1b[33mgrad_norm: {n}  \x1b[34mmemory: {n}GiB({n}%)  \x1b[36mtps: {n}\x1b[0m",
    "trainer": "{{'loss': {n}, 'grad_norm': {n}, 'learning_rate': {n}, 'mode': 'train', 'epoch': {n}}}",
    "trainer in a bar": "  5%|# | {at}/10000 [00:10<03:00, 50it/s]{{'loss': {n}, 'n/a': None, 'step': {n}}}",
    "json": '{{"step": {at}, "loss": {n}, "more": {{"lr": {n}, "text": "{n}"}}}}',
    "equals": "INFO step={at} loss={n} Acc@1={n} lr={n} tokens={n}M layer {n} norm={n}",
    "colon": "[{at}/5000] loss: {n} train_acc: {n} 3x3: {n}",
    "epoch": "Epoch: {epoch}/30 - loss: {n} - val_loss: {n}",
    "epoch alone": "Epoch {epoch}/30",
    "under an epoch": "Train Loss: {n} - Perplexity: {n}\tTime {n}s",
    "keras": "{at}/100 [==>...] - ETA: 1s - loss: {n}\r100/100 [=====] - 1s 2ms/step - loss: {n} - val_loss: {n}",
    "timm": "Train: {epoch} [ {at:3d}/312 ( {n}%)]  Loss: {n} ({n})  Time: {n}s, {n}/s  LR: {n}",
    "timm test": "Test: [ {at:3d}/40]  Loss: {n} ({n})  Acc@1: {n} ({n})",
    "pytorch": "Epoch: [{epoch}][{at:4d}/500]\tTime {n} ({n})\tLoss {n} ({n})\tAcc@1 {n} ({n})",
    "lightning": "Epoch {epoch}:  {s}%|###  | {at}/312 [00:12<00:15, {n}it/s, v_num=0, train_loss={n}]",
    "fairseq": "2020-01-01 10:00:{s:02d} | INFO | train_inner | epoch 001: {at} / 11000 loss={n}, ppl={n}, num_updates={at}, lr={n}",
    "openmmlab": "2024/01/01 10:00:{s:02d} - mmengine - INFO - Epoch(train)  [{epoch}][{at:3d}/730]  lr: {n}  eta: 1 day, 10:10:10  loss: {n}",
    "table": "{at}    {n}    {n}    00:{s:02d}",
    "header": "epoch     train_loss  valid_loss  time",
    "evaluation": " * Acc@1 {n} Acc@5 {n}",
    "rank": "[rank{rank}]: step: {at} loss: {n}",
    "text": "{n} files in {n} folders, {n} of them new",
    "wide": "step {at} " + "loss of a longer name {n} " * 8 + "| " + "another: {n} | " * 20,
    "setting": "d_model: {n}",
    "result": "final test loss {n}",
}  # fmt: skip


def written(kinds, count, rng, printed=number):
    """A log of these kinds of lines, in turn or as they come, with a number of another form here and there."""
    out = []
    for at in range(count):
        for kind in kinds:
            if rng.random() < 0.9:
                text = KINDS[kind].replace("{n}", "\0")
                text = text.format(at=at, epoch=at // 10, rank=rng.randrange(2), s=at % 60)
                out.append(
                    "".join(part + printed(rng) for part in text.split("\0")[:-1]) + text.split("\0")[-1]
                )
    return "\n".join(out) + "\n"


def usual(rng):
    """A number as a tool prints all of its own: positive, with four digits behind the point."""
    return f"{rng.lognormvariate(0, 1):.4f}"


def outcome(path):
    """All that is read of a log, or why it is refused."""
    try:
        (run,) = text_log.read(path, NameMap())
    except RunFileError as error:
        return str(error)
    columns = [
        (c.name, c.clock, c.role, c.window, c.estimator, c.unit, c.steps.tolist(), repr(c.values.tolist()),
         None if c.times is None else repr(c.times.tolist()), c.order.tolist())
        for c in run.parts[0].columns
    ]  # fmt: skip
    return columns, repr(run.config), repr(run.summary), run.notes, run.warnings


def with_and_without_plans(path, monkeypatch):
    """What is read by plans and what the parser alone reads."""
    planned = outcome(path)
    with monkeypatch.context() as changed:
        changed.setattr(text_log, "shape_of", lambda line: None)
        return planned, outcome(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("printed", [number, usual])
def test_plans_read_what_the_parser_reads(tmp_path, monkeypatch, kind, printed):
    path = tmp_path / "train.log"
    path.write_text(written(["epoch alone", kind], 120, random.Random(kind), printed))
    planned, parsed = with_and_without_plans(path, monkeypatch)
    assert planned == parsed


def compare(path, monkeypatch, seeds):
    read = 0
    for seed in seeds:
        rng = random.Random(seed)
        kinds = rng.sample(sorted(KINDS), rng.randint(1, 4))
        data = written(kinds, 40, rng, rng.choice((number, usual))).encode()
        path.write_bytes(mutated(data, rng) if rng.random() < 0.7 else data)
        monkeypatch.setattr(text_log, "_MOST_SHAPES", rng.choice((2, 1_000)))
        planned, parsed = with_and_without_plans(path, monkeypatch)
        assert planned == parsed, (seed, kinds)
        read += not isinstance(parsed, str)
    assert read > 0.8 * len(seeds)


def test_plans_read_what_the_parser_reads_of_broken_logs(tmp_path, monkeypatch):
    compare(tmp_path / "train.log", monkeypatch, range(60))


@pytest.mark.slow
def test_plans_read_what_the_parser_reads_of_two_thousand_broken_logs(tmp_path, monkeypatch):
    compare(tmp_path / "train.log", monkeypatch, range(60, 2_060))


@pytest.mark.parametrize(
    "kind",
    ["nanogpt", "llm.c", "llm.c file", "megatron", "torchtitan", "trainer", "colon", "epoch", "timm", "pytorch", "fairseq"],
)  # fmt: skip
def test_few_lines_of_a_long_log_are_parsed(tmp_path, monkeypatch, kind):
    """How fast a log is read: each line that is parsed costs several times what a planned one does."""
    (tmp_path / "train.log").write_text(written([kind], 3_000, random.Random(0), usual))
    assert len(parsed_lines(tmp_path / "train.log", monkeypatch)) < 150


def parsed_lines(path, monkeypatch):
    """The lines, of a log and of the samples for its plans, that the parser has to read."""
    found = []
    parse = text_log._Parser.__call__
    with monkeypatch.context() as changed:
        changed.setattr(
            text_log._Parser,
            "__call__",
            lambda parser, text, **how: found.append(text) or parse(parser, text, **how),
        )
        list(text_log.read(path, NameMap()))
    return found


def test_shapes_and_their_numbers():
    line = "iter 10: loss -3.24e-05, Acc@1 0.5, tps 7,034 of 123456789012, 1.2.3 1,2 v2"
    shape, numbers = lines.shape_of(line)
    assert numbers == ["10", "3.24", "0.5", "7,034", "123456789012"]
    assert shape == (
        "iter ", "", ": loss -", ".", "e-05, Acc@1 ", ".", ", tps ", ",", " of ", None, ", 1.2.3 1,2 v2"
    )  # fmt: skip
    assert lines.filled(shape, numbers) == line
    for narrow in (False, True):
        for sample in lines.samples(shape, narrow=narrow):
            assert lines.shape_of(lines.filled(shape, sample)) == (shape, sample)
            assert not narrow or max(map(len, sample)) <= lines.NARROW
    assert lines.shape_of("1 " * 257) is None and lines.shape_of("a" * 5_000) is None


def test_what_is_remembered_of_shapes_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(text_log, "_MOST_SHAPES", 20)
    shapes = text_log._Shapes(text_log._Parser(), text_log._Gathered(text_log.Rows(NameMap(), [])))
    for place in range(2_000):
        shapes.take(f"step: {place} name{place // 6}: 1.5", None, None)
        assert len(shapes._plans) <= 20 and len(shapes._seen) <= 20
    assert len(shapes._plans) == 20


def test_several_runs_in_one_text_are_counted_with_their_lines(tmp_path):
    one = "starting\n" + "".join(f"step {s}: loss {3 - s / 10:.2f}, lr 0.1\n" for s in range(10))
    run = log(one * 3, tmp_path)
    assert "3 runs seem to follow one another in this text: steps begin anew at lines 13, 24" in run.warnings
    assert len(run.segments) == 3
    one = "".join(f"step {s}: loss {3 - s / 100:.2f}, lr 0.1\n" for s in range(100))
    run = log(one * 9, tmp_path)
    assert any(
        "9 runs" in text and "at lines 101, 201, 301, 401, 501 and 3 more" in text for text in run.warnings
    )
    epochs = "".join(f"Epoch {e}/30\nTrain Loss: {3 - e / 10:.2f}\n" for e in range(1, 8))
    assert any(
        "2 runs" in text and text.endswith("at line 15") for text in log(epochs * 2, tmp_path).warnings
    )


def test_a_resumption_is_no_other_run(tmp_path):
    run = log("".join(f"step {s}: loss 2.5\n" for s in [*range(10), *range(5, 15)]), tmp_path)
    assert len(run.segments) == 2 and not any("follow one another" in text for text in run.warnings)


def test_a_step_is_looked_for_in_the_beginning_of_a_line_only(tmp_path):
    far = (
        "step: 1 loss: 2.5\n"
        + "b" * 589
        + "\tat step 12.5 of many more | c: 2\n"
        + "b" * 570
        + "\tstep 13 | c: 3\n"
    )
    run = log(far, tmp_path)
    assert run["c"].steps.tolist() == [1, 13] and run["c"].values.tolist() == [2, 3]


def test_a_long_segment_of_words_and_numbers_is_read_whole(tmp_path):
    names = [f"measure{chr(97 + place)}" for place in range(20)]
    text = "".join(f"* step {s} | " + " ".join(f"{name} {s}.25" for name in names) + "\n" for s in range(3))
    run = log(text, tmp_path)
    assert [run[f"eval/{name}"].last for name in names] == [2.25] * 20


def test_signs_exponents_and_units_are_planned(tmp_path, monkeypatch):
    path = tmp_path / "train.log"
    text = "".join(f"step: {s} gain: -{s}.5 rate: -{s}e-3 seen: {s}.5M tokens: {s},000\n" for s in range(100))
    path.write_text(text)
    planned, parsed = with_and_without_plans(path, monkeypatch)
    assert planned == parsed
    assert run_values(path, "gain") == [-s - 0.5 for s in range(100)]
    assert run_values(path, "rate") == [-s / 1000 for s in range(100)]
    assert run_values(path, "seen") == [s * 1e6 + 5e5 for s in range(100)]
    assert len(parsed_lines(path, monkeypatch)) < 10 * text_log._FEWEST_LINES


def run_values(path, name):
    (run,) = text_log.read(path, NameMap())
    return next(column.values.tolist() for column in run.parts[0].columns if column.name == name)


LONG_MEAN = "step {s} | loss 3.25 (+{n}z)| norm 1.5\n"
CROSSING = "a: {n} | " + "b" * 575 + "\tstep 12.5 | c: 2\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a unit that changes", "".join(f"step {s}: loss 1, time 3{'ms' if s < 20 else 's'}\n" for s in range(40))
         + "step 40: loss 1, time 3ms\n"),
        ("a result also before the first step", "verdict: 0.5\n" * 9 + "step 1: loss 2.5\nstep 2: loss 2.5\nverdict: 0.25\n"),
        ("a number too long for its shape", "".join(LONG_MEAN.format(s=s, n="0.5") for s in range(20))
         + LONG_MEAN.format(s=20, n="1000.5" + "1" * 18)),
        ("a step that is cut", "step 1: loss 2.5\n" + CROSSING.format(n=1.5) * 9
         + "".join(CROSSING.format(n="1." + "5" * digits) for digits in range(1, 20)) * 9),
    ],
)  # fmt: skip
def test_plans_keep_to_what_they_were_made_for(tmp_path, monkeypatch, name, text):
    (tmp_path / "train.log").write_text(text)
    planned, parsed = with_and_without_plans(tmp_path / "train.log", monkeypatch)
    assert planned == parsed, name
