"""``watch.log``, ``declare``, ``tokens``, events: what the user hands over, and under which name and step it is kept."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_training import mlp, record_of, sgd, steps_of, train, troubles, vectors

import thalweg as tw
from thalweg.core.errors import ThalwegWarning, UsageError


@pytest.fixture
def loop() -> Any:
    """A watch, and a function that logs something and makes an update."""
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, probes="none")
    (x, y), *_ = vectors(2)

    def step(*logs: Any, micro: int = 1) -> None:
        for i in range(micro):
            F.cross_entropy(model(x), y).backward()
            for log in logs:
                log(i) if callable(log) else watch.log(log)
        optimizer.step()
        optimizer.zero_grad()

    return watch, step


# -- kinds of values ----------------------------------------------------------------------------------------


VALUES = [
    3,
    3.0,
    True + 2,
    np.float32(3),
    np.int64(3),
    np.array(3.0),
    torch.tensor(3.0),
    torch.tensor([3.0], requires_grad=True),
    torch.tensor(3),
    torch.tensor(3.0, dtype=torch.bfloat16),
    torch.tensor([[3.0]], dtype=torch.float64),
    torch.nn.Parameter(torch.tensor(3.0)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{type(v).__name__}")
def test_numbers_of_every_kind(loop: Any, value: Any) -> None:
    watch, step = loop
    step({"quantity": value})
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "quantity") == {0: 3.0}


def test_values_with_a_shape(loop: Any) -> None:
    watch, step = loop
    step({"a": [1, 2, 3], "b": torch.eye(2), "c": np.arange(4), "d": (torch.tensor(1.0), 2.0), "loss": 1.0})
    run = record_of(watch)
    assert troubles(run) == []
    assert run["a"].values.tolist() == [[1, 2, 3]]
    assert run["b"].values.tolist() == [[[1, 0], [0, 1]]]
    assert run["c"].values.tolist() == [[0, 1, 2, 3]]
    assert run["d"].values.tolist() == [[1, 2]]
    assert steps_of(run, "loss") == {0: 1}


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "3.5",
        None,
        pytest.param(object(), id="object"),
        torch.tensor(1 + 2j),
        1j,
        {"a": 1},
        [],
        torch.zeros(0),
        np.str_("x"),
        b"3",
    ],
    ids=repr,
)
def test_what_is_no_number_is_complained_of_once_and_the_rest_is_kept(loop: Any, value: Any) -> None:
    watch, step = loop
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            step({"note": value, "loss": 2.0})
        watch.close()
    told = [w for w in caught if issubclass(w.category, ThalwegWarning)]
    run = tw.open_run(watch.path)
    assert "note" not in run
    assert steps_of(run, "loss") == {0: 2, 1: 2, 2: 2}
    assert len(told) == 1
    assert "note" in str(told[0].message)
    assert len(run.events("failure")) == 1


def test_tensors_that_have_no_array_lose_nothing_else(loop: Any) -> None:
    watch, step = loop
    with pytest.warns(ThalwegWarning):
        for i in range(3):
            step({"odd": torch.eye(3).to_sparse(), "loss": float(i)})
        watch.close()
    assert steps_of(tw.open_run(watch.path), "loss") == {0: 0, 1: 1, 2: 2}


def test_infinite_and_missing_values_are_values(loop: Any) -> None:
    watch, step = loop
    for value in (float("nan"), float("inf"), 1.0):
        step({"loss": value})
    values = record_of(watch)["loss"].values
    assert np.isnan(values[0])
    assert values[1:].tolist() == [float("inf"), 1]


# -- names ----------------------------------------------------------------------------------------------------


def test_a_users_name_that_is_an_instruments_goes_to_user() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[3].parameters()}], lr=0.1
    )
    watch = tw.watch(model, optimizer, cadence=1)
    x, y = vectors(1)[0]
    F.cross_entropy(model(x), y).backward()
    names = (
        "grad/norm",
        "grad/norm/0.weight",
        "lr",
        "lr/group0",
        "time/step",
        "update/ratio/3.bias",
        "grad/norm_raw",
    )
    watch.log(dict.fromkeys(names, 77.0), loss=1.0)
    watch.log({"norm": 78.0}, prefix="grad")
    optimizer.step()
    run = record_of(watch)
    assert troubles(run) == []
    for name in names:
        assert steps_of(run, f"user/{name}") == {0: 78.0 if name == "grad/norm" else 77.0}
        assert name not in run or run[name].last not in (77.0, 78.0)
    assert run["grad/norm"].last != 77.0


def test_a_prefix_is_put_before_each_name(loop: Any) -> None:
    watch, step = loop
    step(lambda i: watch.log({"loss": 1.0}, accuracy=0.5, prefix="train", tokens=7))
    run = record_of(watch)
    assert {"train/loss", "train/accuracy", "tokens"} <= set(run.names())


def test_roles_follow_the_names(loop: Any) -> None:
    watch, step = loop
    step({"loss": 1.0, "eval/loss": 2.0, "val_accuracy": 0.5})
    run = record_of(watch)
    assert run.by_role("train loss").name == "loss"
    assert run.by_role("evaluation loss").name == "eval/loss"
    assert run.by_role("evaluation metric").name == "val_accuracy"


# -- several logs of one step ---------------------------------------------------------------------------------------


def test_several_logs_within_a_step_are_averaged(loop: Any) -> None:
    watch, step = loop
    for _ in range(2):
        step(lambda i: watch.log(loss=float(i), share=1.0), micro=4)
    run = record_of(watch)
    assert steps_of(run, "loss") == {0: 1.5, 1: 1.5}
    assert steps_of(run, "share") == {0: 1.0, 1: 1.0}


def test_averages_go_on_over_flushes(loop: Any) -> None:
    watch, step = loop

    def log(i: int) -> None:
        watch.log(loss=float(i))
        assert watch.run["loss"].last == pytest.approx(i / 2)

    for _ in range(2):
        step(log, micro=4)
    assert steps_of(record_of(watch), "loss") == {0: 1.5, 1: 1.5}


def test_declared_reductions(loop: Any) -> None:
    watch, step = loop
    watch.declare("loss", reduce="sum", unit="nats")
    watch.declare("queue", reduce="last")
    for _ in range(2):
        step(lambda i: watch.log(loss=0.25 * (i + 1), queue=i), micro=4)
    run = record_of(watch)
    assert steps_of(run, "loss") == {0: 2.5, 1: 2.5}
    assert steps_of(run, "queue") == {0: 3, 1: 3}
    assert run["loss"].spec.unit == "nats"
    assert run["loss"].spec.role == "train loss"


def test_a_declared_role_shape_and_clock(loop: Any) -> None:
    watch, step = loop
    watch.declare("bleurt", role="evaluation metric", unit="points")
    watch.declare("spectrum", shape=(3,))
    watch.declare("pass", clock="evaluation")
    step({"spectrum": [1.0, 2.0, 3.0]})
    with torch.no_grad():
        watch._targets[0][1]()(vectors(1)[0][0])
    watch.log({"bleurt": 0.5})
    watch.log({"pass": 1.0, "loss": 2.0}, step=7)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["bleurt"].spec.role == "evaluation metric"
    assert run["bleurt"].steps.tolist() == [1], "an evaluation belongs to the update count of its own forward"
    assert run["spectrum"].spec.shape == (3,)
    assert run["pass"].spec.clock == "evaluation"
    assert steps_of(run, "pass") == {7: 1.0}
    assert steps_of(run, "loss")[7] == 2.0


@pytest.mark.parametrize(
    "options", [{"reduce": "median"}, {"role": "nonsense"}, {"shape": (-1,)}], ids=lambda o: next(iter(o))
)
def test_declarations_that_cannot_be_used_raise_at_the_call(loop: Any, options: dict[str, Any]) -> None:
    watch, step = loop
    with pytest.raises(UsageError):
        watch.declare("mine", **options)
    step({"mine": 1.0})
    assert steps_of(record_of(watch), "mine") == {0: 1.0}


def test_an_explicit_step(loop: Any) -> None:
    watch, step = loop
    step(lambda i: watch.log({"eval/loss": 3.0}, step=1000))
    assert steps_of(record_of(watch), "eval/loss") == {1000: 3.0}


# -- counters -----------------------------------------------------------------------------------------------------


def test_tokens_of_every_call_add_up(loop: Any) -> None:
    watch, step = loop
    for _ in range(3):
        step(lambda i: watch.log(loss=1.0, tokens=100), micro=2)
    run = record_of(watch)
    assert steps_of(run, "tokens") == {0: 200, 1: 400, 2: 600}
    assert run["tokens"].spec.role == "tokens"
    assert run.axis(run["loss"], "tokens").tolist() == [200, 400, 600]
    assert run["throughput/tokens"].steps.tolist() == [0, 1, 2]


def test_token_counts_stay_exact_beyond_float32(loop: Any) -> None:
    watch, step = loop
    for _ in range(3):
        step(lambda i: watch.log(tokens=2**24 + 1))
    assert steps_of(record_of(watch), "tokens") == {i: (i + 1) * (2**24 + 1) for i in range(3)}


def test_samples_step_time_and_throughput() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer)
    train(model, optimizer, vectors(4), watch)
    run = record_of(watch)
    assert run["samples"].values.tolist() == [12, 24, 36, 43]
    times = run["time/step"].values
    assert np.isnan(times[0])
    assert (times[1:] > 0).all()
    np.testing.assert_allclose(run["throughput/examples"].values[1:], [12, 12, 7] / times[1:], rtol=1e-3)


def test_updates_counts_and_run_can_be_read_while_it_goes_on(loop: Any) -> None:
    watch, step = loop
    for i in range(3):
        assert watch.updates == i
        step({"loss": float(i)})
        assert watch.run["loss"].steps.tolist() == list(range(i + 1))
        assert watch.run.live
    assert watch.updates == 3


def test_events_of_the_user(loop: Any) -> None:
    watch, step = loop
    step({"loss": 1.0})
    watch.event("new data", folder="b", when=[1, 2])
    (event,) = record_of(watch).events("new data")
    assert event.step == 1
    assert event.source == "user"
    assert event.details == {"folder": "b", "when": [1, 2]}


def test_the_summary_is_the_last_of_everything(loop: Any) -> None:
    watch, step = loop
    for i in range(4):
        step({"loss": float(i)})
    run = record_of(watch)
    assert run.summary["loss"] == 3.0
    assert run.summary["lr"] == pytest.approx(0.1)
    assert run.summary["step"] == 4


def test_a_mirror_gets_every_signal_and_one_that_fails_is_left_out(loop: Any) -> None:
    class Mirror:
        def __init__(self, bad: bool) -> None:
            self.seen: dict[str, list[float]] = {}
            self.bad, self.closed = bad, False

        def write(self, names: Any, steps: Any, values: Any, times: Any) -> None:
            if self.bad:
                raise OSError("gone")
            for name, column in zip(names, np.asarray(values).T, strict=True):
                self.seen.setdefault(name, []).extend(column.tolist())

        def close(self) -> None:
            self.closed = True

    watch, step = loop
    good, bad = Mirror(False), Mirror(True)
    watch._journal.mirrors += [bad, good]
    with pytest.warns(ThalwegWarning, match="gone"):
        for i in range(3):
            step({"loss": float(i)})
        watch.close()
    run = tw.open_run(watch.path)
    assert steps_of(run, "loss") == {0: 0, 1: 1, 2: 2}
    assert good.closed
    assert good.seen.get("lr") is not None


def test_another_kind_of_mirror_is_refused(loop: Any) -> None:
    with pytest.raises(UsageError, match="tensorboard"):
        loop[0].mirror("papyrus")


def test_nothing_is_written_outside_the_run_file(loop: Any, tmp_path: Path) -> None:
    watch, step = loop
    step({"loss": 1.0})
    watch.close()
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()] == [
        watch.path.relative_to(tmp_path)
    ]
