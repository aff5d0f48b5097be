"""The command line: what each command says, its records, its exit codes, and that it loads no PyTorch."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thalweg.cli import main
from thalweg.record import Recorder, open_run

Call = Callable[..., tuple[int, str, str]]
COMMANDS = (
    "ls", "show", "schedule", "report", "export", "compact", "methods", "papers", "data list", "data fetch",
)  # fmt: skip


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process; return exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs in runs/ of the working directory."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(("first", "second")):
        with Recorder(
            tmp_path / "runs" / f"{name}.tw",
            name=f"the {name}",
            config={"lr": 0.1},
            run_id=f"{index}a-{name}",
        ) as recorder:
            steps = np.arange(1, 101)
            values = np.stack([np.exp(-steps / 30), np.where(steps == 50, np.nan, steps)], axis=1)
            recorder.extend(["loss", "grad/norm"], steps, values)
            recorder.event("spike", step=40, severity="warning", source="loss", ratio=3.0)
    return tmp_path / "runs"


def process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "thalweg", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )  # type: ignore[call-overload]


# ------------------------------------------------------------------------------------------- all commands
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(call: Call, command: str) -> None:
    code, out, _ = call(*command.split(), "--help")
    assert code == 0 and f"Example:  thalweg {command}" in out and "--json" in out


def test_no_command_loads_torch(folder: Path) -> None:
    script = """
import sys, contextlib, io
from thalweg.cli import main
sys.modules["torch"] = None
for arguments in %r:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as ended:
            assert not ended.code, (arguments, ended.code)
del sys.modules["torch"]
loaded = [name for name in sys.modules if name.split(".")[0] == "torch"]
assert not loaded, loaded
"""
    calls = [
        ["ls"], ["show", "first"], ["show", "first", "loss"], ["report", "first", "-o", "r.html"],
        ["export", "first", "--csv", "out.csv"], ["compact", "first"], ["methods"], ["papers"], ["data", "list"], ["--help"],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script % calls], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_starting_imports_nothing_heavy() -> None:
    script = "import sys, thalweg.cli; print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy','typer','rich','plotly','sqlite3','pandas'}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ls", "nowhere"], 1, "there is no folder nowhere"),
        (["ls", "runs/first.tw"], 1, "is a file, and a folder is meant"),
        (["show", "third"], 1, "no run in runs/ has a name or id that begins with third"),
        (["show", "runs/third.tw"], 1, "does not exist; runs/ holds first.tw, second.tw"),
        (["show", "runs"], 2, "holds 2 runs, and one is meant"),
        (["show", "the"], 2, "could mean"),
        (["show", "first", "los"], 2, "has no signal los; it has loss"),
        (["show", "plain.txt"], 1, "plain.txt"),
        (["show", "."], 2, "holds 2 runs"),
        (["show", "void"], 1, "void is a folder without a run"),
        (["export", "first"], 2, "--csv FILE or --parquet FILE"),
        (["export", "first", "--csv", "x", "--signal", "nope*"], 2, "has no signal that fits nope*"),
        (["data", "fetch", "nope"], 2, "nope"),
        (["frobnicate"], 2, "frobnicate"),
        (["show"], 2, "Missing argument"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    call: Call, folder: Path, arguments: list[str], code: int, said: str
) -> None:
    Path("plain.txt").write_text("just text\n")
    Path("void").mkdir()
    returned, out, err = call(*arguments)
    assert returned == code and out == "" and said in err and "Traceback" not in err
    if not err.startswith("Usage"):
        assert err.count("\n") == 1 and err.startswith("thalweg: ")


# ------------------------------------------------------------------------------------------- ls
def test_ls_lists_runs_as_table_and_records(call: Call, folder: Path) -> None:
    _, out, _ = call("ls")
    assert (
        "the first" in out and "the second" in out and "closed" in out and str(Path("runs/first.tw")) in out
    )
    code, out, _ = call("ls", "runs", "--json")
    records = json.loads(out)
    assert code == 0 and {r["id"] for r in records} == {"0a-first", "1a-second"}
    assert {
        "path",
        "name",
        "started",
        "ended",
        "reason",
        "live",
        "steps",
        "last_loss",
        "signals",
        "points",
        "bytes",
    } <= set(records[0])
    assert records[0]["steps"] == 100 and records[0]["live"] is False
    assert records[0]["last_loss"] == pytest.approx(np.exp(-100 / 30), rel=1e-6)


def test_ls_of_an_empty_folder_says_so(call: Call, tmp_path: Path) -> None:
    assert "No runs in" in call("ls", tmp_path)[1]
    assert json.loads(call("ls", tmp_path, "--json")[1]) == []


@pytest.mark.slow
def test_ls_of_a_thousand_runs_takes_less_than_a_second(tmp_path: Path) -> None:
    for index in range(1_000):
        with Recorder(tmp_path / f"{index}.tw") as recorder:
            recorder.log({"loss": 1.0}, 1)
    taken = []
    for _ in range(3):
        before = os.times()
        done = process("ls", str(tmp_path))
        after = os.times()
        taken.append(
            after.children_user - before.children_user + after.children_system - before.children_system
        )
        assert done.stdout.count(".tw") == 1_000
    assert min(taken) < 1, "seconds of processor time, so that a busy machine does not count"


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    command = (
        f"{sys.executable} -m thalweg show first loss grad/norm --values | head -1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "loss" in done.stdout and done.stderr == ""


# ------------------------------------------------------------------------------------------- show
@pytest.mark.parametrize("text", ["first", "the first", "0a", "runs/first.tw", "first.tw"])
def test_show_finds_a_run_by_path_name_or_id(call: Call, folder: Path, text: str) -> None:
    code, out, _ = call("show", text)
    assert code == 0 and out.startswith("the first")
    for said in ("0a-first", "lr 0.1", "spike", "ratio 3.0", "grad/norm", "train loss"):
        assert said in out


def test_show_of_a_folder_takes_its_only_run(call: Call, folder: Path) -> None:
    (folder / "second.tw").unlink()
    assert call("show", folder)[1].startswith("the first")


def test_show_draws_a_signal_and_lists_its_values(call: Call, folder: Path) -> None:
    _, out, _ = call("show", "first", "loss")
    assert re.search("[\u2801-\u28ff]", out) and "… 88 more" in out
    assert len(re.findall(r"^ *\d+ +\d+\.\d\d +\S+ *$", out, re.M)) == 12
    _, out, _ = call("show", "first", "loss", "--values")
    assert len(re.findall(r"^ *\d+ +\d+\.\d\d +\S+ *$", out, re.M)) == 100


def test_show_takes_patterns_and_writes_strict_json(call: Call, folder: Path) -> None:
    _, out, _ = call("show", "first", "grad/*", "loss", "--json")
    records = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [r["name"] for r in records] == ["grad/norm", "loss"]
    assert records[0]["values"][49] is None and records[0]["values"][50] == 51.0
    assert records[0]["steps"] == list(range(1, 101)) and len(records[0]["times"]) == 100
    assert records[0]["spec"]["role"] == "gradient norm"
    (record,) = json.loads(call("show", "first", "--json")[1])
    assert record["config"] == {"lr": 0.1} and record["events"][0]["kind"] == "spike"
    assert {"segments", "signals", "environment", "tags", "meta", "live"} <= set(record)


def test_layers_of_one_quantity_share_a_line(call: Call, tmp_path: Path) -> None:
    with Recorder(tmp_path / "deep.tw") as recorder:
        for layer in ("a", "b"):
            recorder.declare(f"weight/norm/{layer}", layer=layer)
        recorder.extend(["weight/norm/a", "weight/norm/b"], [1, 2], [[1.0, 2.0], [3.0, 4.0]])
    _, out, _ = call("show", tmp_path / "deep.tw")
    assert "weight/norm/* (2 layers)" in out and "3 to 4" in out and "weight/norm/a" not in out


def test_a_quantity_of_layers_is_a_line_a_layer(call: Call, tmp_path: Path) -> None:
    steps = np.arange(1, 61)
    with Recorder(tmp_path / "deep.tw") as recorder:
        for layer in ("a", "long.name.b"):
            recorder.declare(f"grad/norm/{layer}", layer=layer)
            recorder.declare(f"act/rms/{layer}", layer=layer, unit="mV")
        recorder.extend(["grad/norm", "grad/norm/a"], steps, np.stack([steps + 0.5, 1.0 * steps], 1))
        recorder.extend(["grad/norm/long.name.b"], steps[::2], np.full((30, 1), 60.0))
        for layer in ("a", "long.name.b"):
            recorder.extend([f"act/rms/{layer}"], [1, 2], [[math.nan], [2.0]])
    _, out, _ = call("show", tmp_path / "deep.tw", "grad/norm")
    assert re.search("[\u2801-\u28ff]", out), "the total is drawn"
    (a,), (b,) = re.findall(r"^a .*$", out, re.M), re.findall(r"^long\.name\.b .*$", out, re.M)
    *numbers, course = a.split()
    assert numbers == ["a", "1", "60", "1", "60"]
    assert len(course) == 24 and course[0] == "▁" and course[-1] == "█" and list(course) == sorted(course)
    assert b.split() == ["long.name.b", *["60"] * 4, "█" * 24]
    _, out, _ = call("show", tmp_path / "deep.tw", "act/rms")
    assert "act/rms, mV: 2 layers, steps 1 to 2" in out
    assert re.search(r"^a +nan +2 +2 +2  +▅$", out, re.M)
    records = json.loads(call("show", tmp_path / "deep.tw", "act/rms", "--json")[1])
    assert [r["name"] for r in records] == ["act/rms/a", "act/rms/long.name.b"]


def test_names_cannot_steer_the_terminal(call: Call, tmp_path: Path) -> None:
    evil = "[red]\x1b]0;owned\x07\u202e\r[/red]"
    with Recorder(tmp_path / "evil.tw", name=evil, config={evil: evil}, tags=[evil]) as recorder:
        recorder.log({evil: 1.0}, 1)
        recorder.event(evil, step=1, source=evil, a=evil)
    for arguments in (
        ["ls", tmp_path],
        ["show", tmp_path],
        ["show", tmp_path, "*"],
        ["show", tmp_path, "nothing like it"],
    ):
        _, out, err = call(*arguments)
        assert not set("\x1b\x07\u202e\r") & set(out + err)
        assert "[red]" in out + err, "markup is shown, not followed"
    _, out, _ = call("ls", tmp_path, "--json")
    assert "\x1b" not in out and json.loads(out)[0]["name"] == evil


# ------------------------------------------------------------------------------------------- the others
def test_report_writes_a_page(call: Call, folder: Path) -> None:
    code, out, _ = call("report", "first", "second")
    assert code == 0 and "runs/report.html" in out and Path("runs/report.html").stat().st_size > 1_000_000
    (record,) = json.loads(call("report", "first", "-o", "r.html", "--json")[1])
    assert record == {"path": "r.html", "bytes": Path("r.html").stat().st_size, "runs": ["first"]}


def test_export_writes_csv_and_parquet(call: Call, folder: Path) -> None:
    code, out, _ = call("export", "first", "--csv", "out.csv", "--parquet", "out.parquet", "--signal", "lo*")
    assert code == 0 and "out.parquet" in out
    import pandas

    frame = pandas.read_parquet("out.parquet")
    assert len(frame) == 100 and "grad/norm" not in frame.to_string()
    assert Path("out.csv").read_text().count("\n") == 101


def test_compact_keeps_every_value(call: Call, folder: Path) -> None:
    before = open_run(folder / "first.tw")["loss"].values.copy()
    (record,) = json.loads(call("compact", "first", "--json")[1])
    np.testing.assert_array_equal(open_run(record["path"])["loss"].values, before)


def test_methods_papers_and_data_list_records(call: Call) -> None:
    cards = json.loads(call("methods", "--kind", "instrument", "--json")[1])
    assert {"gradient-norm"} <= {card["name"] for card in cards} and {card["kind"] for card in cards} == {
        "instrument"
    }
    assert "gradient-norm" in call("methods")[1]
    (found,) = json.loads(call("papers", "25", "--json")[1])[:1]
    assert found["title"] and {"id", "title", "year", "arxiv", "doi"} <= set(found)
    assert found["title"] in call("papers", found["title"])[1]
    assert "No paper" in call("papers", "no such words in any title")[1]
    assert {"mnist_5k", "shakespeare"} <= {
        record["name"] for record in json.loads(call("data", "list", "--json")[1])
    }
    assert "mnist_5k" in call("data", "list")[1]


# ------------------------------------------------------------------------------------------- following
@pytest.mark.parametrize("arguments", [["ls", "--json"], ["show", "growing", "loss", "--json"]])
def test_follow_repeats_while_a_run_grows_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(tmp_path / "runs" / "growing.tw", name="growing", flush_every=0.1)
    recorder.log({"loss": 1.0}, 1)
    recorder.flush()
    following = subprocess.Popen(
        [sys.executable, "-m", "thalweg", *arguments, "--follow"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1.5)
    assert following.poll() is None, "it goes on while the run is open"
    recorder.log({"loss": 0.5}, 2)
    recorder.close()
    out, _ = following.communicate(timeout=20)
    assert following.returncode == 0
    last = json.loads(out.splitlines()[-1])[0]
    assert last.get("last_loss", last.get("values", [None])[-1]) == 0.5


def test_ctrl_c_ends_following_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(tmp_path / "runs" / "growing.tw", flush_every=0.1) as recorder:
        recorder.log({"loss": 1.0}, 1)
        recorder.flush()
        command = [sys.executable, "-m", "thalweg", "ls", "--follow"]
        following = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have it ignored
        )
        time.sleep(3)
        os.kill(following.pid, signal.SIGINT)
        out, err = following.communicate(timeout=60)
    assert following.returncode == 0 and err == "" and "growing.tw" in out
