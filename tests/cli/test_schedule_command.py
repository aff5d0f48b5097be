"""``thalweg schedule``: plot, table, lines of Python, values as CSV and JSON, pictures, and errors in one line."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import thalweg as tw
from thalweg.cli import main

WSD = "wsd(peak=3e-4, total=400, warmup=40)"
COSINE = "cosine(peak=3e-4, total=300)"


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process, in a folder of its own; return exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["schedule", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_page_has_a_plot_values_and_the_lines_of_python(call) -> None:
    code, out, err = call(WSD, COSINE)
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert max(map(len, lines)) <= 90 and lines[0].startswith("0.0003 ┤")
    made = [line.split(maxsplit=1) for line in lines if "tw.schedules." in line]
    assert [letter for letter, _ in made] == ["a", "b"]
    for (_, line), text in zip(made, (WSD, COSINE), strict=True):
        assert eval(line, {"tw": tw}) == tw.schedules.parse(text)
    assert (
        sum(line.count("a") for line in lines[:14]) >= 3 and sum(line.count("b") for line in lines[:14]) >= 3
    )
    table = next(line for line in lines if line.startswith("a  "))
    assert table.split()[1:] == ["0", "0.0003", "0.0003", "0.0003", "3.75e-06", "0.0003"]


def test_one_schedule_is_plotted_alone_up_to_its_floor(call) -> None:
    code, out, _ = call("linear(start=1.0, total=50)")
    assert code == 0 and "tw.schedules.Linear(start=1.0, total=50)" in out
    foot = next(line for line in out.splitlines() if line.startswith("  0 ┤"))
    assert len(foot.rstrip()) == 90  # the line ends at zero, at the right


def test_json_has_every_value_and_the_code(call) -> None:
    code, out, _ = call(WSD, COSINE, "--json")
    records = json.loads(out)
    assert code == 0 and [r["expression"] for r in records] == [WSD, COSINE]
    assert [r["total"] for r in records] == [400, 300] and all(len(r["values"]) == 400 for r in records)
    assert records[0]["values"] == tw.schedules.parse(WSD).values().tolist()
    assert eval(records[1]["code"], {"tw": tw}) == tw.schedules.parse(COSINE)


def test_csv_has_a_column_each_and_keeps_every_digit(call, tmp_path: Path) -> None:
    code, out, _ = call(WSD, COSINE, "--steps", 350, "--csv", "rates.csv")
    assert code == 0 and "wrote rates.csv" in out
    rows = list(csv.reader((tmp_path / "rates.csv").open(newline="")))
    assert rows[0] == ["step", WSD, COSINE] and len(rows) == 351
    values = np.array(rows[1:], float)
    assert (values[:, 1] == tw.schedules.parse(WSD)(np.arange(350))).all()
    assert (values[:, 2] == tw.schedules.parse(COSINE)(np.arange(350))).all()


def test_pictures_are_svg_or_html_that_open_alone(call, tmp_path: Path) -> None:
    odd = "rex(peak=1.0, total=9) * 1.5"
    assert call(WSD, odd, "--plot", "two.svg")[0] == 0
    drawn = ElementTree.parse(tmp_path / "two.svg").getroot()
    tag = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{tag}path")) == 2
    assert {WSD, odd} <= {text.text for text in drawn.findall(f"{tag}text")}
    assert call(WSD, odd, "--plot", "two.html")[0] == 0
    page = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "plotly.js v" in page and '<script src="http' not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wds(peak=1, total=9)"], "did you mean wsd?"),
        (["wsd(peak=1, total=9"], "is no schedule"),
        (["wsd(peak=1, total=9, warmup=8, decay=7)"], "longer than the total of 9"),
        (["constant(peak=1)"], "--steps"),
        (["linear(start=1.0, total=1e12)"], "1,000,000,000,000 updates are more than"),
        ([COSINE, "--steps", "0"], "at least one update"),
        ([COSINE, "--plot", "a.png"], ".html or an .svg"),
        ([COSINE, "--csv", "nowhere/a.csv"], "nowhere"),
        ([COSINE] * 1 + [f"{COSINE[:-1]}, final={k}e-9)" for k in range(30)], "1 to 26"),
        ([], "Missing argument"),
    ],
)
def test_errors_are_a_line_and_an_exit_code(call, arguments: list[str], said: str) -> None:
    code, out, err = call(*arguments)
    assert code in (1, 2) and out == "" and said in err and "Traceback" not in err


def test_the_command_loads_no_torch() -> None:
    import subprocess
    import sys

    script = f"""
import sys
sys.modules["torch"] = None
from thalweg.cli import main
try:
    main(["schedule", "{WSD}", "--json"])
finally:
    del sys.modules["torch"]
    print([m for m in sys.modules if m.split(".")[0] in ("torch", "plotly")], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stderr.strip() == "[]"
