"""Critical findings are said while the run goes on: in time, once each, at a bounded share of the time."""

import itertools
import time
import warnings
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg.core.errors import ThalwegWarning
from thalweg.diagnosis import Finding
from thalweg.record import Recorder
from thalweg.watching import live_findings
from thalweg.watching.live_findings import FIRST, LEAST, SHARE, LiveFindings


def lost(path: Path) -> Path:
    recorder = Recorder(path)
    for step in range(200):
        recorder.log({"loss": float("nan") if step > 150 else 2.0 + 0.01 * (step % 7)}, step)
    recorder.close()
    return recorder.path


def test_it_looks_when_it_is_time_and_says_a_kind_once(tmp_path: Path) -> None:
    times = iter([0.0, 0.0, FIRST - 0.1, FIRST, FIRST + 1000.0, FIRST + 2000.0])
    told: list[Finding] = []
    live = LiveFindings(lost(tmp_path / "a.tw"), told.append, clock=lambda: next(times))
    live.look()
    live.look()
    assert not told
    for _ in range(3):
        live.look()
    assert [f.kind for f in told] == ["nonfinite-loss"]


def test_looks_take_at_most_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks, spent = 0.0, list[float](), 0.0
    live = LiveFindings(lost(tmp_path / "a.tw"), lambda finding: None, clock=lambda: now)

    def costly(self: LiveFindings) -> list[Finding]:
        nonlocal spent
        spent += 0.5
        looks.append(now)
        return []

    monkeypatch.setattr(LiveFindings, "_critical", costly)
    monkeypatch.setattr(live_findings.time, "thread_time", lambda: spent)
    for tenth in range(36_000):
        now = tenth / 10
        live.look()
    assert looks[0] == FIRST
    assert len(looks) * 0.5 <= SHARE * 3600 + 0.5
    assert min(b - a for a, b in itertools.pairwise(looks)) >= LEAST


def test_a_lost_run_is_told_in_the_loop_and_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_findings, "FIRST", 0.5)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch = tw.watch(model, optimizer, out=tmp_path / "run.tw")
        ends, step = time.monotonic() + 60, 0
        while time.monotonic() < ends and not any("nonfinite" in str(w.message) for w in caught):
            loss = model(torch.randn(8, 4)).square().mean() * (float("nan") if step > 100 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            watch.log(loss=loss)
            optimizer.step()
            step += 1
            time.sleep(0.002)
        watch.close()
    said = [w for w in caught if issubclass(w.category, ThalwegWarning) and "nonfinite" in str(w.message)]
    assert said and len({str(w.message) for w in said}) == len(said)
    events = tw.open_run(tmp_path / "run.tw").events("finding")
    assert events and events[0].severity == "critical" and events[0].details["remedy"]


def test_a_diagnosis_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_findings, "FIRST", 0.0)

    def broken(self: LiveFindings) -> list[Finding]:
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr(LiveFindings, "_critical", broken)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = tw.watch(model, optimizer, out=tmp_path / "run.tw")
    ends = time.monotonic() + 30
    while (time.monotonic() < ends and watch._journal.look is not None) or not watch._begun:
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        time.sleep(0.002)
    watch.close()
    assert any("of its own" in e.details.get("error", "") for e in tw.open_run(tmp_path / "run.tw").events())
