"""`diagnose` as a whole: what it gives, what it silences, what it does with rules that fail and with several keys."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from making import falling, make_run

import thalweg as tw
from thalweg.core.errors import UsageError
from thalweg.diagnosis import Evidence, Finding, Page, Rule, RunView, diagnose, diagnosing
from thalweg.diagnosis.grouping import group
from thalweg.diagnosis.rendering import as_html, as_text


def lost(path: Path, at: int = 300, **more: object) -> "tw.Run":
    loss = falling(400)
    loss[at - 1 :] = np.nan
    return make_run(path, {"loss": loss, **more})


def finding(kind: str, first: int = 10, severity: str = "warning", confidence: float = 0.9) -> Finding:
    return Finding(
        kind=kind,
        title=kind,
        severity=severity,  # type: ignore[arg-type]  # a test's shorthand
        confidence=confidence,
        first_step=first,
        last_step=1000,
        evidence=Evidence(text="seen"),
        remedy="do",
    )


def test_a_lost_run_says_so_first(tmp_path: Path) -> None:
    diagnosis = tw.diagnose(lost(tmp_path / "a.tw"))
    assert diagnosis[0].kind == "nonfinite-loss" and diagnosis[0].first_step == 300
    assert diagnosis.worst == "critical" and "nonfinite-loss" in diagnosis.judged
    assert not diagnosis.failed


def test_a_path_will_do_and_a_map_too(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("step,mine\n" + "\n".join(f"{i},{'nan' if i > 200 else 2.0}" for i in range(300)))
    assert "nonfinite-loss" not in diagnose(file).judged
    assert diagnose(file, map={"loss": "mine"})[0].first_step == 201


def test_kinds_are_silenced_and_chosen(tmp_path: Path) -> None:
    run = lost(tmp_path / "a.tw")
    silenced = diagnose(run, ignore=["nonfinite-loss"])
    assert all(f.kind != "nonfinite-loss" for f in silenced.flat()) and silenced.ignored == (
        "nonfinite-loss",
    )
    assert diagnose(run, only=["nonfinite-loss"]).judged == ("nonfinite-loss",)
    with pytest.raises(UsageError, match="no rule is named weather"):
        diagnose(run, ignore=["weather"])


def test_a_rule_that_fails_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = diagnosing.load_rules()

    def broken(view: RunView) -> list[Finding]:
        raise ZeroDivisionError("of its own")

    page = Page(what="", causes=(), apart={}, remedy=(), tried="")
    card = tw.Card(name="broken", kind="rule", summary="Fails.")
    monkeypatch.setattr(
        diagnosing, "load_rules", lambda: rules | {"broken": Rule(card=card, page=page, check=broken)}
    )
    diagnosis = diagnose(lost(tmp_path / "a.tw"))
    assert diagnosis.failed == {"broken": "ZeroDivisionError: of its own"}
    assert diagnosis[0].kind == "nonfinite-loss" and "broken failed" in str(diagnosis)


def test_several_models_are_looked_at_one_by_one(tmp_path: Path) -> None:
    bad = falling(400)
    bad[350:] = np.nan
    run = make_run(tmp_path / "gan.tw", {"G:loss": falling(400), "D:loss": bad})
    found = diagnose(run, only=["nonfinite-loss"])
    assert [f.where for f in found] == ["D"]


def test_symptoms_stand_under_their_cause() -> None:
    explains = {"rate-high": ("divergence",), "divergence": ("nonfinite-loss",)}
    grouped = group(
        [finding("nonfinite-loss", 30, "critical"), finding("divergence", 20), finding("rate-high", 1)],
        explains,
    )
    assert [f.kind for f in grouped] == ["rate-high"]
    assert [s.kind for s in grouped[0].symptoms] == ["nonfinite-loss", "divergence"]
    assert grouped[0].severity == "critical"  # as severe as what it led to


def test_a_cause_that_comes_later_explains_nothing() -> None:
    grouped = group([finding("divergence", 20), finding("rate-high", 500)], {"rate-high": ("divergence",)})
    assert {f.kind for f in grouped} == {"divergence", "rate-high"}


def test_a_ring_of_explanations_loses_nothing() -> None:
    explains = {"a": ("b",), "b": ("c",), "c": ("a",)}
    shown = group([finding("a", 3), finding("b", 1), finding("c", 2)], explains)
    assert sorted(f.kind for one in shown for f in (one, *one.symptoms)) == ["a", "b", "c"]


def test_two_that_explain_one_another_are_both_shown() -> None:
    explains = {"a": ("b",), "b": ("a",)}
    shown = group([finding("a"), finding("b")], explains)
    assert sorted(f.kind for one in shown for f in (one, *one.symptoms)) == ["a", "b"]


def test_the_worst_comes_first_then_the_surest() -> None:
    grouped = group(
        [finding("a", severity="note"), finding("b", confidence=0.5), finding("c", confidence=0.8)], {}
    )
    assert [f.kind for f in grouped] == ["c", "b", "a"]


def test_text_and_html_say_it_and_hold_no_markup_of_the_log(tmp_path: Path) -> None:
    run = lost(tmp_path / "a.tw")
    run.name = "<script>alert(1)</script>\x1b[31m"
    diagnosis = diagnose(run)
    text, html = as_text(diagnosis), as_html(diagnosis)
    assert "nonfinite-loss" in text and "step 300" in text and "\x1b" not in text
    assert "<script>" not in html and "&lt;script&gt;" in html and "<svg" in html
    assert max(map(len, text.splitlines())) <= 110


def test_nothing_found_is_said_with_what_could_not_be_judged(tmp_path: Path) -> None:
    text = str(diagnose(make_run(tmp_path / "a.tw", {"weather": np.ones(30)})))
    assert "nothing found" in text and "Could not be judged" in text and "watch.log(loss=loss)" in text


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    import subprocess

    lost(tmp_path / "a.tw")
    code = (
        "import sys, thalweg as tw; d = tw.diagnose('a.tw'); tw.report('a.tw', 'a.html'); tw.explain('loss-spike') "
        "if 'loss-spike' in __import__('thalweg.diagnosis', fromlist=['x']).kinds() else 0; "
        "assert d[0].kind; print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_every_rule_is_found_by_its_card() -> None:
    for name in diagnosing.load_rules():
        assert isinstance(diagnosing.load_rules()[name], Rule)
    folder = Path(importlib.import_module("thalweg.diagnosis.rules").__file__ or "").parent
    files = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert files <= {name.replace("-", "_") for name in diagnosing.load_rules()}


def test_a_finding_is_json(tmp_path: Path) -> None:
    from thalweg.cli.diagnose_command import record
    from thalweg.cli.output import plain

    text = json.dumps(plain(record(diagnose(lost(tmp_path / "a.tw")))), allow_nan=False)
    assert json.loads(text)["findings"][0]["evidence"]["numbers"]["first"] == 300
