"""Other tools' logs on the command line: kept by import, and taken by the other commands as they are."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thalweg.cli import main
from thalweg.core.errors import RunFileError
from thalweg.record import open_run
from thalweg.record.importing import import_runs, keep

Call = Callable[..., tuple[int, str, str]]


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
def logs(tmp_path: Path) -> Path:
    """Two runs of Lightning in a folder, the second with a resumption."""
    folder = tmp_path / "logs"
    for name, steps in (("version_0", [*range(10)]), ("version_1", [*range(10), *range(5, 12)])):
        (folder / name).mkdir(parents=True)
        rows = "".join(f"{s},{2.0 + i},{1.7e9 + i}\n" for i, s in enumerate(steps))
        (folder / name / "metrics.csv").write_text("step,objective,timestamp\n" + rows)
    return folder


def test_import_shows_what_each_signal_was_taken_for(call: Call, logs: Path) -> None:
    code, out, _ = call("import", f"{logs}::version_0", "-o", "a.tw", "--map", "loss=objective")
    assert code == 0
    assert "objective" in out and "train loss" in out and "0 to 9" in out and "Written: a.tw" in out
    run = open_run("a.tw")
    assert run.by_role("train loss").name == "objective"
    assert run.meta["imported"]["format"] == "csv-table"
    assert run["objective"].times.tolist() == [1.7e9 + i for i in range(10)]
    assert run.started == 1.7e9
    _, out, _ = call("import", f"{logs}::version_0", "-o", "b.tw")
    assert "--map loss=NAME" in out
    code, _, err = call("import", f"{logs}::version_0", "-o", "a.tw")
    assert code == 1 and "never overwritten" in err


def test_import_of_several_keeps_each_with_its_segments(call: Call, logs: Path) -> None:
    code, out, _ = call("import", logs, "-o", "kept", "--json")
    records = json.loads(out)
    assert code == 0 and [Path(r["path"]).name for r in records] == ["version_0.tw", "version_1.tw"]
    assert records[1]["signals"][0]["name"] == "objective" and records[1]["signals"][0]["points"] == 12
    kept, source = open_run("kept/version_1.tw"), open_run(f"{logs}::version_1")
    assert len(kept.segments) == len(source.segments) == 2
    assert np.array_equal(kept["objective"].values, source["objective"].values)
    assert kept.get("objective", segment=0).values.tolist() == [2.0 + i for i in range(10)]
    assert any("resumption" in text for text in kept.meta["imported"]["warnings"])
    assert call("import", logs)[0] == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["version_0.tw", "version_1.tw"]


def test_windows_estimators_and_roles_are_kept(tmp_path: Path) -> None:
    rows = [{"loss": 3 - s / 10, "learning_rate": 1e-3, "step": s} for s in range(10, 60, 10)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    before = import_runs(tmp_path)[0]
    after = open_run(keep(before, tmp_path / "kept.tw"))
    assert {s.name: s for s in after.signals} == {s.name: s for s in before.signals}
    assert after["loss"].spec.window == 10
    with pytest.raises(RunFileError, match="can't be written"):
        keep(before, tmp_path / "kept.tw" / "below.tw")


def test_other_commands_take_a_log_as_it_is(call: Call, logs: Path) -> None:
    code, out, _ = call("ls", logs)
    assert code == 0 and "version_1" in out and "logs::version_1" in out
    assert [row["steps"] for row in json.loads(call("ls", logs, "--json", "--map", "loss=objective")[1])] == [
        9,
        11,
    ]
    code, _, err = call("show", logs)
    assert code == 1 and "holds 2 runs" in err and "version_0, version_1" in err
    assert "train loss" in call("show", f"{logs}::version_1", "--map", "loss=objective")[1]
    assert call("show", logs / "version_0" / "metrics.csv", "objective")[0] == 0
    assert call("export", f"{logs}::version_0", "--csv", "out.csv")[0] == 0
    assert open_run("out.csv")["objective"].values.tolist() == [2.0 + i for i in range(10)]
    assert call("report", f"{logs}::version_0", f"{logs}::version_1", "-o", "r.html")[0] == 0
    code, _, err = call("compact", f"{logs}::version_0")
    assert code == 1 and "thalweg import" in err
    code, _, err = call("show", f"{logs}::version_0", "--map", "nonsense")
    assert code == 2 and "WORD=NAME" in err


def test_a_folder_with_one_run_opens_it_and_several_are_listed(tmp_path: Path, logs: Path) -> None:
    keep(import_runs(f"{logs}::version_1")[0], tmp_path / "one" / "only.tw")
    assert open_run(tmp_path / "one").name == "version_1"
    keep(import_runs(f"{logs}::version_0")[0], tmp_path / "one" / "other.tw")
    with pytest.raises(RunFileError, match=r"folder with 2 runs: name one of only\.tw, other\.tw"):
        open_run(tmp_path / "one")
    (tmp_path / "none").mkdir()
    with pytest.raises(RunFileError, match="folder without a run"):
        open_run(tmp_path / "none")


def test_names_with_markup_and_links_in_circles(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "metrics.csv").write_text("step,[bold]<script>\x1b[31m,loss\n1,2,3\n2,1,2\n")
    code, out, _ = call("import", folder, "-o", "x.tw")
    assert code == 0 and "\x1b" not in out and "[bold]<script>" in out


def test_importing_and_looking_load_no_torch(logs: Path) -> None:
    code = (
        "import sys, thalweg.cli.entry as e\n"
        "def run(*a):\n"
        "    try: e.main(list(a))\n"
        "    except SystemExit as s: assert not s.code, a\n"
        f"run('ls', {str(logs)!r}); run('show', {str(logs / 'version_0')!r}); run('import', {str(logs)!r}, '-o', 'k')\n"
        f"run('report', {str(logs / 'version_0')!r}, '-o', 'r.html')\n"
        "import thalweg; thalweg.open_run('k/version_0.tw')\n"
        "assert not {'torch', 'tensorflow', 'pandas', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
