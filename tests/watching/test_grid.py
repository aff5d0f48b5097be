"""The acceptance grid: a covering subset of its cells (the whole in the slow set), and that it would notice a fault."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thalweg as tw
from acceptance import launching
from acceptance.by_hand import ByHand
from acceptance.cells import LEVELS, Cell, all_cells, covering, impossible, pairs_of
from acceptance.launching import ROOT
from acceptance.training import Observer, digits, set_up, train
from acceptance.verdicts import CORRECT, IN_PART, UNSUPPORTED, WRONG, Verdict
from acceptance.worker import judge_cell
from thalweg.watching.instruments.gradient_norm import GradientNorm
from thalweg.watching.instruments.hyper_parameters import HyperParameters

PLAIN = Cell("eager", "float32", "foreach", "one", "plain")


def run_grid(out: Path, *arguments: str) -> list[Verdict]:
    """The verdicts of the command, which fails if any is wrong."""
    command = [sys.executable, str(ROOT / "tools" / "grid.py"), "--json", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert out.exists(), done.stderr
    verdicts = [Verdict(**v) for v in json.loads(out.read_text())]
    assert done.returncode == any(v.kind == WRONG for v in verdicts)
    return verdicts


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    """The covering subset, judged once."""
    return run_grid(tmp_path_factory.mktemp("grid") / "verdicts.json", "--cover")


def test_the_grid_has_every_combination_of_five_factors() -> None:
    assert [len(levels) for levels in LEVELS.values()] == [2, 3, 2, 3, 5]
    assert len(set(all_cells())) == 180


def test_the_covering_subset_has_every_pair_of_levels_that_torch_can_do() -> None:
    possible = [c for c in all_cells() if not impossible(c)]
    chosen = [c for c in covering() if not impossible(c)]
    assert set().union(*map(pairs_of, chosen)) == set().union(*map(pairs_of, possible))
    assert len(covering()) <= 20


def test_no_cell_of_the_covering_subset_is_wrong(covered: list[Verdict]) -> None:
    assert [v.cell for v in covered] == [c.name for c in covering()]
    assert [f"{v.cell}: {v.text}" for v in covered if v.kind == WRONG] == []


def test_eager_mode_is_recorded_in_full_shards_included(covered: list[Verdict]) -> None:
    full = [v for v in covered if v.cell.startswith("eager") and v.kind != UNSUPPORTED]
    assert any("fsdp2" in v.cell for v in full)
    assert full
    assert {v.kind for v in full} == {CORRECT}
    assert min(v.compared for v in full) > 500


def test_what_is_refused_is_what_compilation_hides(covered: list[Verdict]) -> None:
    for verdict in covered:
        cell = Cell.named(verdict.cell)
        refused = {name.split("/")[0] for name in verdict.refused}
        hidden = {"act", "units", "logits"} if cell.mode == "compiled" else set()
        assert refused <= hidden, verdict
        assert (verdict.kind == IN_PART) == bool(refused), verdict
        assert not {"grad/norm", "grad/norm/*", "update/norm", "weight/norm", "loss"} & set(verdict.refused)


def test_only_the_scaler_with_a_closure_is_unsupported(covered: list[Verdict]) -> None:
    found = [v for v in covered if v.kind == UNSUPPORTED]
    assert [v.cell for v in found] == [c.name for c in covering() if impossible(c)]
    assert all("GradScaler" in v.text for v in found)


@pytest.mark.slow
def test_no_cell_of_the_whole_grid_is_wrong(tmp_path: Path) -> None:
    verdicts = [v for level in LEVELS["mode"] for v in run_grid(tmp_path / f"{level}.json", "--only", level)]
    assert len(verdicts) == 180
    assert [f"{v.cell}: {v.text}" for v in verdicts if v.kind == WRONG] == []
    assert sum(v.kind == UNSUPPORTED for v in verdicts) == sum(map(impossible, all_cells()))


# -- would it notice? ------------------------------------------------------------------------------------


def test_a_norm_that_is_a_little_off_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = GradientNorm.finish

    def off(self: GradientNorm, *args: Any) -> dict[str, Any]:
        return {k: v * 1.0001 for k, v in plain(self, *args).items()}

    monkeypatch.setattr(GradientNorm, "finish", off)
    verdict = judge_cell(PLAIN, digits(), "", tmp_path)
    assert verdict.kind == WRONG
    assert "grad/norm" in verdict.text


def test_a_value_that_stands_a_step_too_early_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ByHand._put

    def early(self: ByHand, name: str, value: float) -> None:
        if not (name == "weight/distance" and self._step == 0):
            self._step -= name == "weight/distance"
            plain(self, name, value)
            self._step += name == "weight/distance"

    monkeypatch.setattr(ByHand, "_put", early)
    verdict = judge_cell(PLAIN, digits(), "", tmp_path)
    assert verdict.kind == WRONG
    assert "weight/distance" in verdict.text


@pytest.mark.parametrize("draw", [random.random, lambda: torch.rand(1)], ids=["python", "torch"])
def test_an_instrument_that_draws_random_numbers_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Any
) -> None:
    plain = HyperParameters.measure

    def drawing(self: HyperParameters, view: Any) -> Any:
        draw()
        return plain(self, view)

    monkeypatch.setattr(HyperParameters, "measure", drawing)
    verdict = judge_cell(PLAIN, digits(), "", tmp_path)
    assert verdict.kind == WRONG
    assert "differs from the unwatched run" in verdict.text


def test_an_instrument_that_is_missing_without_words_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HyperParameters, "measure", lambda self, view: None)
    verdict = judge_cell(PLAIN, digits(), "", tmp_path)
    assert verdict.kind == WRONG
    assert "hyper/weight_decay/group0 is missing" in verdict.text


def test_processes_that_hang_are_ended_and_said_to_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "PATIENCE", 0.2)
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = time.monotonic()
    assert "hang" in launching._wait([sleeping], tmp_path / "verdicts.jsonl")
    assert time.monotonic() - began < 20
    assert sleeping.returncode


@pytest.mark.parametrize("cadence", [2, 3])
@pytest.mark.parametrize("kernel", LEVELS["kernel"])
@pytest.mark.parametrize("precision", LEVELS["precision"])
def test_at_a_slower_cadence_the_same_values_are_recorded_at_fewer_steps(
    tmp_path: Path, precision: str, kernel: str, cadence: int
) -> None:
    """Nesterov's momentum changes gradients in place, a fused step unscales them: neither may be seen."""
    cell = Cell("eager", precision, kernel, "one", "accumulation")
    data = digits()
    setup = set_up(cell, 0, "")
    hand = ByHand(setup)
    train(setup, data, hand, None)
    setup = set_up(cell, 0, "")
    watch = tw.watch(
        setup.model, setup.optimizer, scaler=setup.scaler, out=tmp_path / "a.tw", cadence=cadence
    )
    train(setup, data, Observer(), watch)
    watch.close()
    run = tw.open_run(tmp_path / "a.tw")
    assert "grad/norm" in run
    names = [
        "grad/norm",
        "grad/cosine",
        "grad/change",
        "momentum/sign_agreement",
        "update/norm",
        "noise/trace",
    ]
    for name in names if cadence == 2 or precision != "fp16" else names[:1]:  # 3 meets the skipped try
        steps, values = run[name].steps, run[name].values
        skipped = np.isin(steps, list(hand.after_skip)) & np.isnan(values)  # no gradient to compare with
        expected = [hand.values[name][s] for s in steps.tolist()]
        assert len(steps) >= 1, name
        assert values[~skipped] == pytest.approx(np.array(expected)[~skipped], rel=2e-5, abs=1e-7), name
