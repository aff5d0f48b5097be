"""The common suite: what every rule must do, whatever it looks for. A new rule gets these tests with its card."""

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import falling, make_run

from thalweg.core import paper
from thalweg.diagnosis import Finding, NotEvaluable, Rule, RunView, explain, kinds
from thalweg.diagnosis.contracts import SignalQuery
from thalweg.diagnosis.findings import SEVERITIES
from thalweg.record import Run

every = pytest.mark.parametrize("rule", [pytest.param(explain(kind), id=kind) for kind in kinds()])
LAYERS = ("embedding.weight", "blocks.0.up.weight", "blocks.0.down.weight", "head.weight")


def watched(n: int, fill: Callable[[int, int], Any]) -> dict[str, Any]:
    """Every signal that a watch records, of the whole model and of four layers, filled by a function."""
    plain = (
        "loss", "eval/loss", "eval/accuracy", "lr", "grad/norm", "grad/norm_raw", "grad/clipped", "update/norm",
        "update/ratio", "weight/norm", "weight/distance", "grad/cosine", "grad/change", "grad/zero_share",
        "grad/nonfinite", "grad/rms_to_epsilon", "momentum/sign_agreement", "noise/scale", "units/dormant", "units/dead",
        "logits/largest", "logits/log_partition", "logits/collapsed", "time/step", "memory/peak", "amp/loss_scale",
        "amp/skipped", "samples", "tokens", "hyper/momentum", "hyper/weight_decay",
    )  # fmt: skip
    layered = (
        "grad/norm", "update/norm", "update/ratio", "weight/norm", "weight/distance", "units/dormant", "units/dead",
        "act/rms", "grad/rms_to_epsilon", "grad/cosine", "rate/effective",
    )  # fmt: skip
    names = [*plain, *(f"{quantity}/{layer}" for quantity in layered for layer in LAYERS)]
    return {name: fill(n, place) for place, name in enumerate(names)}


def noisy(n: int, seed: int) -> Any:
    return 1 + 0.1 * np.random.default_rng(seed).standard_normal(n)


SITUATIONS: Mapping[str, Mapping[str, Any]] = {
    "nothing but one other signal": {"weather": np.ones(50)},
    "a loss alone": {"loss": falling()},
    "a loss of three values": {"loss": np.array([3.0, 2.0, 1.0])},
    "one value of everything": watched(1, noisy),
    "three values of everything": watched(3, noisy),
    "everything constant": watched(400, lambda n, _: np.ones(n)),
    "everything zero": watched(400, lambda n, _: np.zeros(n)),
    "everything NaN": watched(200, lambda n, _: np.full(n, np.nan)),
    "everything infinite": watched(200, lambda n, _: np.full(n, np.inf)),
    "everything huge": watched(200, lambda n, p: 1e37 * noisy(n, p)),
    "everything tiny": watched(200, lambda n, p: 1e-37 * noisy(n, p)),
    "everything negative": watched(200, lambda n, p: -noisy(n, p)),
    "noise": watched(400, noisy),
    "holes": watched(
        400, lambda n, p: np.where(np.random.default_rng(p).random(n) < 0.3, np.nan, noisy(n, p))
    ),
    "far apart": {
        "loss": (np.arange(50) * 1_000_000, falling(50)),
        "lr": (np.arange(50) * 1_000_000, np.ones(50)),
    },
    "a late start": {
        name: (np.arange(10**9, 10**9 + 300), noisy(300, 1)) for name in ("loss", "lr", "grad/norm")
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        words: make_run(folder / f"{i}.tw", signals) for i, (words, signals) in enumerate(SITUATIONS.items())
    }


def outcome(rule: Rule, run: Run) -> "list[Finding] | NotEvaluable":
    return rule(RunView(run))


@every
@pytest.mark.parametrize("words", list(SITUATIONS))
def test_it_gives_findings_or_says_what_it_lacks(rule: Rule, words: str, runs: dict[str, Run]) -> None:
    with np.errstate(all="raise", under="ignore"):
        given = outcome(rule, runs[words])
    if isinstance(given, NotEvaluable):
        assert given.kind == rule.card.name and given.lacked
        return
    for finding in given:
        check_finding(rule, finding)


def check_finding(rule: Rule, finding: Finding) -> None:
    assert finding.kind == rule.card.name
    assert finding.severity in SEVERITIES and 0 < finding.confidence <= 1
    assert 0 <= finding.first_step <= finding.last_step
    assert finding.title and finding.evidence.text and finding.remedy
    assert len(finding.title) <= 140, finding.title
    numbers = finding.evidence.numbers
    assert all(isinstance(value, int | float | np.number) for value in numbers.values()), numbers
    json.dumps({key: float(value) for key, value in numbers.items()})
    for number in finding.papers:
        assert paper(number)


@every
def test_it_never_speaks_of_an_empty_run(rule: Rule, runs: dict[str, Run]) -> None:
    given = outcome(rule, runs["nothing but one other signal"])
    assert isinstance(given, NotEvaluable) or given == []


@every
def test_three_values_are_no_ground_for_more_than_a_note(rule: Rule, runs: dict[str, Run]) -> None:
    given = outcome(rule, runs["three values of everything"])
    assert isinstance(given, NotEvaluable) or all(f.severity == "note" for f in given)


@every
def test_noise_about_one_is_no_ground_for_a_critical_finding(rule: Rule, runs: dict[str, Run]) -> None:
    given = outcome(rule, runs["noise"])
    assert isinstance(given, NotEvaluable) or all(f.severity != "critical" for f in given), given


@every
def test_looking_twice_gives_the_same(rule: Rule, runs: dict[str, Run]) -> None:
    assert outcome(rule, runs["noise"]) == outcome(rule, runs["noise"])


@every
def test_it_explains_itself(rule: Rule) -> None:
    page = rule.page
    assert len(page.what) > 60 and page.causes and page.apart and page.remedy and page.tried
    assert rule.card.kind == "rule" and rule.card.summary
    known = set(kinds())
    assert set(page.explains) <= known, set(page.explains) - known
    assert rule.card.name not in page.explains
    for number in rule.card.papers:
        assert paper(number)


@every
def test_it_is_one_file_with_the_name_of_its_kind(rule: Rule) -> None:
    module = rule.check.__module__
    assert module.rpartition(".")[2] == rule.card.name.replace("-", "_") or module.endswith(".comparing")
    source = Path(__import__(module, fromlist=["x"]).__file__)
    assert len(ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "") > 60


@every
def test_a_million_values_take_about_a_second(rule: Rule, big: RunView) -> None:
    """Not a benchmark: a rule that takes ten times what it should makes a diagnosis useless."""
    import time

    before = time.thread_time()
    rule(big)
    assert time.thread_time() - before < 10


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    n = 1_000_000
    signals = {name: noisy(n, place) for place, name in enumerate(("loss", "lr", "grad/norm", "time/step"))}
    signals["loss"] = falling(n)
    return RunView(make_run(tmp_path_factory.mktemp("big") / "big.tw", signals))


def test_a_query_says_what_is_missing(runs: dict[str, Run]) -> None:
    view = RunView(runs["a loss alone"])
    assert SignalQuery(role="train loss").lacking(view) is None
    absent = SignalQuery(role="evaluation loss").lacking(view)
    assert absent is not None and "evaluation loss" in absent.lacked and "eval/loss" in absent.record
    short = SignalQuery(role="train loss", least=5000).lacking(view)
    assert short is not None and "5000 values" in short.lacked and short.record == ""
    layers = SignalQuery(name="grad/norm", layers=True).lacking(view)
    assert layers is not None and "by layer" in layers.lacked
