"""What goes wrong in and around the watch: the loop goes on, and what can be recorded is."""

import errno
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import mlp, record_of, sgd, steps_of, train, troubles, vectors

import thalweg as tw
from thalweg.core import Card
from thalweg.core.errors import ThalwegWarning
from thalweg.watching import Emits, Measured, Needs, Quantity, When


class Custom:
    """An instrument that does what it is told."""

    card = Card(name="custom", kind="instrument", summary="For a test.")
    needs = Needs(quantities=frozenset({Quantity.GRAD}))
    when: Any = When.GRADIENT
    emits = (Emits(name="custom/value"), Emits(name="custom/value", per_layer=True))

    def __init__(self, what: str) -> None:
        self.what, self.calls = what, 0

    def measure(self, view: Any) -> Measured | None:
        self.calls += 1
        if self.what == "raises":
            raise ArithmeticError("on purpose")
        if self.what == "is slow":
            time.sleep(0.06)
        if self.what == "interrupts":
            raise KeyboardInterrupt
        if self.what == "gives a sparse tensor":
            return Measured({"value": torch.eye(3).to_sparse()}, view.layers(Quantity.GRAD))
        if self.what == "raises at the forward's end":
            view.forward.at_end(lambda output: 1 / 0)
            return None
        if self.what == "raises before a module":
            for _, module in view.forward.modules():
                view.forward.before(module, lambda module, args: 1 / 0)
            return None
        if self.what == "gives nonsense":
            return 42  # type: ignore[return-value]  # on purpose
        layers = view.layers(Quantity.GRAD)
        return Measured({"value": torch.ones(len(layers))}, layers)

    def finish(
        self, raw: Mapping[str, Any], facts: Mapping[str, Any], layers: Sequence[str]
    ) -> Mapping[str, Any]:
        n = len(next(iter(raw.values())))
        if self.what == "finishes wrongly":
            raise ArithmeticError("on purpose")
        if self.what == "gives the wrong shape":
            return {"custom/value": np.zeros((n, 2)), "custom/value/*": np.zeros((n, 1))}
        if self.what == "gives another signal":
            return {"other": np.zeros(n)}
        return {"custom/value": np.ones(n), "custom/value/*": np.ones((n, len(layers)))}


def test_an_instrument_of_ones_own_is_recorded() -> None:
    model = mlp()
    optimizer = sgd(model)
    custom = Custom("behaves")
    watch = tw.watch(model, optimizer, probes=["gradient-norm", custom], cadence=1)
    train(model, optimizer, vectors(3), watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "custom/value/0.weight") == {0: 1, 1: 1, 2: 1}
    assert run["grad/norm"].steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "what",
    [
        "raises",
        "gives the wrong shape",
        "finishes wrongly",
        "gives another signal",
        "gives a sparse tensor",
        "gives nonsense",
        "raises at the forward's end",
        "raises before a module",
    ],
)
def test_an_instrument_that_fails_is_switched_off_and_the_others_go_on(what: str) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model)
    custom = Custom(what)
    if "forward" in what or "module" in what:
        custom.when = When.FORWARD
    watch = tw.watch(model, optimizer, probes=["cheap", custom], cadence=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = []
        for batch in vectors(8):
            losses += train(model, optimizer, [batch], watch)
            watch._journal.flush()
        calls = custom.calls
        losses += train(model, optimizer, vectors(4), watch)
        watch.close()
    run = tw.open_run(watch.path)
    assert calls < 8
    assert custom.calls == calls, "it is still called"
    (event,) = run.events("switched off")
    assert event.severity == "warning"
    assert event.details["instrument"] == "custom"
    assert {e.source for e in run.events("failure")} == {"instrument custom"}
    assert (
        len([w for w in caught if issubclass(w.category, ThalwegWarning)]) == len(run.events("failure")) == 1
    )
    assert run["loss"].values == pytest.approx(np.float32(losses))
    assert run["grad/norm"].steps.tolist() == list(range(12))
    assert run["units/dead"].steps.tolist() == list(range(12))
    assert not run.names("custom/*")


def test_a_slow_instrument_is_switched_off() -> None:
    model = mlp()
    optimizer = sgd(model)
    custom = Custom("is slow")
    watch = tw.watch(model, optimizer, probes=["gradient-norm", custom])
    batches = vectors(41)[:40]
    for _ in range(5):
        train(model, optimizer, batches, watch)
    calls = custom.calls
    train(model, optimizer, batches * 2, watch)
    run = record_of(watch)
    assert [e.details["instrument"] for e in run.events("switched off")] == ["custom"]
    assert custom.calls == calls
    assert calls < 15


def test_no_default_instrument_is_switched_off_for_being_slow() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer)
    for _ in range(6):
        train(model, optimizer, vectors(41)[:40], watch)
    run = record_of(watch)
    assert run.events("switched off") == []
    assert run.events("cadence")


def test_an_interrupt_passes_through_an_instrument() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, probes=Custom("interrupts"), cadence=1)
    with pytest.raises(KeyboardInterrupt):
        train(model, optimizer, vectors(2), watch)
    watch.close()


def test_an_interrupt_in_the_loop_ends_the_context_by_its_name() -> None:
    model = mlp()
    optimizer = sgd(model)
    with pytest.raises(KeyboardInterrupt), tw.watch(model, optimizer) as watch:
        train(model, optimizer, vectors(2), watch)
        raise KeyboardInterrupt
    run = tw.open_run(watch.path)
    assert run.segments[0].reason == "KeyboardInterrupt"
    assert run["loss"].steps.tolist() == [0, 1]


def test_warnings_that_are_errors_do_not_reach_the_loop() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch = tw.watch(model, optimizer, probes=["cheap", Custom("raises")], cadence=1)
        batches = vectors(8)
        batches[4][0][:] = float("nan")
        for x, y in batches:
            h = x
            for child in model:
                h = child(h)
            torch.nn.functional.cross_entropy(h, y).backward()
            watch.log(loss=1.0, note="text", nothing=None)
            optimizer.step()
            optimizer.zero_grad()
        watch.close()
    run = tw.open_run(watch.path)
    assert run["grad/norm"].steps.tolist() == list(range(8))
    assert {e.source for e in run.events("failure")} == {"instrument custom", "log"}


def test_a_folder_that_is_deleted_in_mid_run(tmp_path: Path) -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, out=tmp_path / "there" / "run", cadence=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(model, optimizer, vectors(2), watch)
        shutil.rmtree(tmp_path / "there")
        losses = train(model, optimizer, vectors(4), watch)
        watch._journal.flush()
        watch.close()
    assert len(losses) == 4


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(2), watch)
    watch._journal.flush()
    plain = os.write

    def full(handle: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(model, optimizer, vectors(4), watch)
        watch._journal.flush()
    monkeypatch.setattr(os, "write", plain)
    train(model, optimizer, vectors(2), watch)
    run = record_of(watch)
    assert {0, 1} <= set(run["loss"].steps.tolist())


def test_a_new_segment_that_cannot_be_made_does_not_raise_into_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    watch = tw.watch(model, optimizer, out="run")
    train(model, optimizer, vectors(2), watch)
    watch.close()
    again = tw.watch(model, optimizer, out="run", resume=True, cadence=1)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("thalweg.watching.session.Recorder", refuse)
    with pytest.warns(ThalwegWarning, match="Read-only"):
        train(model, optimizer, vectors(4), again)
        again.event("note")
        again._journal.drain()
        again.close()


def test_a_parameter_that_changes_its_shape_or_type_in_mid_run() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(model, optimizer, vectors(2), watch)
        model.double()
        train(model, optimizer, [(x.double(), y) for x, y in vectors(3)], watch)
        model[3].weight.data = torch.zeros(4, 16, dtype=torch.float64)[:3]
        model[3].bias.data = torch.zeros(3, dtype=torch.float64)
        train(model, optimizer, [(x.double(), y % 3) for x, y in vectors(3)], watch)
        watch.close()
    assert tw.open_run(watch.path)["loss"].steps.tolist() == list(range(8))


def test_an_optimizer_whose_groups_are_emptied_and_filled() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(2), watch)
    optimizer.param_groups[0]["params"].clear()
    train(model, optimizer, vectors(2), watch)
    optimizer.param_groups[0]["params"].extend(model.parameters())
    train(model, optimizer, vectors(2), watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["loss"].steps.tolist() == list(range(6))
    assert run["grad/norm"].steps.tolist() == [0, 1, 4, 5]


def test_memory_bounds_every_copy() -> None:
    """The copies of the view together, measured, for a model four times larger than the bound."""
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(16)))
    optimizer = sgd(model, lr=1e-3)
    bound = 1 << 20
    watch = tw.watch(model, optimizer, memory=bound, cadence=1)
    view = watch._tracks[0].view
    largest = 0

    def copies() -> None:
        nonlocal largest
        before = view._before[1] if view._before else []
        kept = [view._initial] if view._initial is not None else []
        previous = [view._previous[2]] if view._previous else []
        samples = [i for i in view.sample._indices if i is not None]
        held = [*before, *kept, *previous, *samples]
        largest = max(largest, sum(t.numel() * t.element_size() for t in held))

    optimizer.register_step_post_hook(lambda *a: None)
    handle = optimizer.register_step_pre_hook(lambda *a: copies())
    for _ in range(20):
        model(torch.randn(2, 256)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    handle.remove()
    assert 0 < largest <= bound
    assert troubles(record_of(watch)) == []


def test_the_cost_is_in_the_record() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer)
    for _ in range(5):
        train(model, optimizer, vectors(41)[:40], watch)
    cost = record_of(watch).meta["cost"]
    assert 0 < cost["share"] < 5
    assert cost["microseconds_per_step"] > 0
    assert cost["low"] <= cost["share"] <= cost["high"]
    assert set(cost["periods"]) >= {"gradient-norm", "applied-update"}


@pytest.mark.parametrize("cadence", ["fixed", 7])
def test_paired_runs_measure_at_the_same_steps(cadence: Any) -> None:
    seen = []
    for _ in range(2):
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        watch = tw.watch(model, optimizer, cadence=cadence)
        for _ in range(3):
            train(model, optimizer, vectors(41)[:40], watch)
        run = record_of(watch)
        assert run.events("cadence") == []
        seen.append({n: run[n].steps.tolist() for n in run.names()})
    assert seen[0] == seen[1]
    if cadence == 7:
        assert {s % 7 for s in seen[0]["update/norm"]} == {seen[0]["update/norm"][0]}


def test_a_very_rare_cadence_plans_nothing_ahead() -> None:
    began = time.perf_counter()
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1_000_000)
    train(model, optimizer, vectors(3), watch)
    assert time.perf_counter() - began < 5
    assert steps_of(record_of(watch), "grad/norm").keys() == {0}


def test_every_default_signal_within_two_hundred_steps() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    watch = tw.watch(model, optimizer)
    for _ in range(5):
        train(model, optimizer, vectors(41)[:40], watch)
    run = record_of(watch)
    for name in (
        "grad/norm",
        "update/ratio",
        "logits/largest",
        "units/dormant",
        "weight/distance",
        "grad/cosine",
    ):
        assert len(run[name]), name
    for name in (
        "momentum/sign_agreement",
        "grad/rms_to_epsilon",
        "rate/effective/0.weight",
        "grad/zero_share",
    ):
        assert len(run[name]), name
    assert len(run["hyper/eps/group0"])
    assert len(run["memory/peak"])
