"""``thalweg diagnose`` and ``thalweg explain``: what they print, what they write, how they end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thalweg.cli import main
from thalweg.diagnosis import kinds
from thalweg.record import Recorder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is lost, a healthy one, and a CSV of the first with a name of its own."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    loss = 0.4 + 2 * np.exp(-np.arange(1, 401) / 80) + 0.03 * random.standard_normal(400)
    for name, bad in (("lost", 300), ("fine", 10**9)):
        recorder = Recorder(f"runs/{name}.tw")
        for step in range(1, 401):
            recorder.log(
                {"loss": np.nan if step >= bad else loss[step - 1], "lr": 1e-3 * (1 - step / 401)}, step
            )
        recorder.close()
    rows = [f"{s},{'nan' if s >= 300 else loss[s - 1]:}" for s in range(1, 401)]
    Path("log.csv").write_text("step,mine\n" + "\n".join(rows) + "\n")
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_it_says_what_when_and_what_to_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "lost") == 0
    out = capsys.readouterr().out
    assert "CRITICAL" in out and "nonfinite-loss" in out and "step" in out and "Do: " in out
    assert "Could not be judged" in out and "tw.watch(model, optimizer)" in out


def test_json_is_a_record_with_the_attributes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "lost", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    (finding,) = [f for f in record["findings"] if f["kind"] == "nonfinite-loss"]
    assert finding["first_step"] == 300 and finding["severity"] == "critical" and finding["remedy"]
    assert {"kind", "lacked", "record"} == set(record["not_evaluable"][0])


def test_a_log_of_another_tool_with_a_map(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "log.csv", "--map", "loss=mine") == 0
    assert "nonfinite-loss" in capsys.readouterr().out
    assert run("diagnose", "log.csv", "--map", "mine") == 2
    assert "--map takes WORD=NAME" in capsys.readouterr().err
    assert run("diagnose", "log.csv", "--map", "loss=other") == 1
    assert "no column 'other'" in capsys.readouterr().err


def test_exit_codes_for_a_job(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "lost", "--exit-code") == 3
    assert run("diagnose", "lost", "--exit-code", "--ignore", "nonfinite-loss") == 0
    assert run("diagnose", "fine", "--exit-code") == 0
    assert run("diagnose", "lost", "--ignore", "weather") == 2
    assert "no rule is named weather" in capsys.readouterr().err
    assert run("diagnose", "nowhere") == 1


def test_a_project_silences_kinds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text('[tool.thalweg]\nignore = ["nonfinite-loss"]\n')
    assert run("diagnose", "lost", "--exit-code") == 0
    Path("pyproject.toml").write_text('[tool.thalweg]\nignore = "nonfinite-loss"\n')
    assert run("diagnose", "lost") == 2
    assert "should be a list" in capsys.readouterr().err
    Path("pyproject.toml").write_text("[tool.thalweg\n")
    assert run("diagnose", "lost") == 2


def test_the_report_has_the_findings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "lost", "-o", "out/report.html") == 0
    page = Path("out/report.html").read_text()
    assert "nonfinite-loss" in page and "<svg" in page and "could not be judged" in page


def test_two_runs_are_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "lost", "--against", "fine", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["findings"][0]["kind"] == "runs-differ"
    assert run("diagnose", "fine", "--against", "runs/fine.tw", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert all(f["kind"] != "runs-differ" for f in record["findings"])


def test_a_pattern_reads_any_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.log").write_text("".join(f"at {s} it was {'nan' if s > 250 else 2.0}\n" for s in range(300)))
    assert run("diagnose", "my.log", "--pattern", r"at (?P<step>\d+) it was (?P<loss>\S+)") == 0
    assert "nonfinite-loss" in capsys.readouterr().out


def test_every_kind_is_explained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain") == 0
    listed = capsys.readouterr().out
    assert all(kind in listed for kind in kinds())
    for kind in kinds():
        assert run("explain", kind) == 0
        out = capsys.readouterr().out
        assert "What brings it about" in out and "What to do" in out and "Thresholds: " in out
    assert run("explain", "loss-spikes") == 2
    assert "did you mean loss-spike" in capsys.readouterr().err
    assert run("explain", "--json") == 0
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} == set(kinds())


def test_neither_loads_torch(here: Path) -> None:
    code = (
        "import sys\nfrom thalweg.cli import main\n"
        "for words in (['diagnose', 'lost', '-o', 'r.html'], ['explain', 'loss-spike']):\n"
        "    try: main(words)\n    except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=120)
    assert done.stderr.strip().splitlines()[-1] == "False", done.stderr
