"""Loops as people write them, each of which has broken some monitor."""

import copy
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_training import (
    Transformer,
    cnn,
    images,
    loss_of,
    mlp,
    record_of,
    sequences,
    sgd,
    steps_of,
    train,
    troubles,
    vectors,
)
from torch import Tensor, nn

import thalweg as tw
from thalweg.core.errors import ThalwegWarning, UsageError


def norm_of(model: nn.Module) -> float:
    return float(
        torch.cat([p.grad.double().reshape(-1) for p in model.parameters() if p.grad is not None]).norm()
    )


def start(model: nn.Module, optimizer: Any, **options: Any) -> Any:
    return tw.watch(model, optimizer, **{"cadence": 1, **options})


# -- where a loss belongs ---------------------------------------------------------------------------------------


def test_a_loss_at_step_s_is_the_loss_after_s_updates_wherever_it_is_logged() -> None:
    for when in ("before backward", "after zero_grad", "after step"):
        torch.manual_seed(0)
        model = mlp()
        optimizer = sgd(model)
        watch = start(model, optimizer)
        wanted = []
        for x, y in vectors(4):
            loss = F.cross_entropy(model(x), y)
            wanted.append(float(loss.detach()))
            if when == "before backward":
                watch.log(loss=loss)
            optimizer.zero_grad()
            if when == "after zero_grad":
                watch.log(loss=loss)
            loss.backward()
            optimizer.step()
            if when == "after step":
                watch.log(loss=loss)
        run = record_of(watch)
        assert steps_of(run, "loss") == pytest.approx(dict(enumerate(wanted))), when


def test_zero_grad_before_the_log_and_gradients_zeroed_in_place() -> None:
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    watch = start(model, optimizer)
    norms = []
    for x, y in vectors(4):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norms.append(norm_of(model))
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        watch.log(loss=loss)
    run = record_of(watch)
    assert steps_of(run, "grad/norm") == pytest.approx(dict(enumerate(norms)), rel=1e-5)
    assert run["loss"].steps.tolist() == [0, 1, 2, 3]


def test_a_logged_tensor_that_is_changed_in_place_afterwards() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    with torch.no_grad():
        value, several, array = torch.tensor(3.0), torch.tensor([1.0, 2.0]), np.array([1.0, 2.0])
    for _ in range(2):
        watch.log(loss=value, several=several, array=array)
        value /= 4
        several.zero_()
        array[:] = 0
        watch.step()
    run = record_of(watch)
    assert steps_of(run, "loss") == {0: 3.0, 1: 0.75}
    assert run["several"].values.tolist() == [[1, 2], [0, 0]]
    assert run["array"].values.tolist() == [[1, 2], [0, 0]]


def test_an_output_buffer_that_the_next_forward_overwrites() -> None:
    """As under CUDA graphs: the loss lives in memory that is used again."""

    class Reuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.buffer = mlp(), torch.zeros(())

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            loss = F.cross_entropy(self.body(x), y)
            self.buffer.copy_(loss.detach())
            loss.backward()
            return self.buffer

    model = Reuses()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    wanted = []
    for x, y in vectors(3):
        out = model(x, y)
        watch.log(loss=out)
        wanted.append(float(out))
        optimizer.step()
        optimizer.zero_grad()
    assert steps_of(record_of(watch), "loss") == pytest.approx(dict(enumerate(wanted)))


def test_a_loop_that_updates_by_hand() -> None:
    torch.manual_seed(0)
    model = mlp()
    watch = start(model, None)
    expected, ratios, distances = {}, {}, {}
    weights = lambda: torch.cat([p.detach().flatten() for p in model.parameters()]).double()  # noqa: E731
    first = weights()
    for step, (x, y) in enumerate(vectors(4)):
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        rate = 0.1 / (step + 1)
        watch.log(loss=loss, lr=rate)
        before = weights()
        distances[step] = float((before - first).norm())
        with torch.no_grad():
            for p in model.parameters():
                p.add_(p.grad, alpha=-rate)
        after = weights()
        expected[step] = float((after - before).norm())
        ratios[step] = expected[step] / float(before.norm())
        watch.step()
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "update/norm") == pytest.approx(expected, rel=1e-5)
    assert steps_of(run, "update/ratio") == pytest.approx(ratios, rel=1e-5)
    distances[4] = float((weights() - first).norm())  # looked at before an update that never came
    assert steps_of(run, "weight/distance") == pytest.approx(distances, rel=1e-5)
    assert steps_of(run, "lr") == pytest.approx({s: 0.1 / (s + 1) for s in range(4)})
    assert run.by_role("rate").name == "lr"
    assert run["time/step"].steps.tolist() == [0, 1, 2, 3]
    assert not run.names("user/*")


def test_a_loop_whose_first_sign_of_life_is_an_update() -> None:
    model = mlp()
    watch = start(model, None)
    for step in range(3):
        with torch.no_grad():
            model[0].weight.add_(1.0)
        watch.step()
        assert watch.updates == step + 1
    run = record_of(watch)
    assert troubles(run) == []
    assert run["update/norm"].steps.tolist() == [1, 2], "nothing was copied before the first"
    assert run["update/norm"].values == pytest.approx([160**0.5] * 2)


def test_evaluation_passes_in_between() -> None:
    model = cnn()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    batches = images(6)
    for i, (x, y) in enumerate(batches):
        model.train()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if i % 2:
            model.eval()
            with torch.no_grad():
                for x2, _ in batches[:3]:
                    model(x2)
            watch.log({"eval/accuracy": 0.1 * i})
        watch.log(loss=loss)
        optimizer.step()
        optimizer.zero_grad()
        with torch.inference_mode():
            model(x)
        watch.log({"eval/after": i})
    run = record_of(watch)
    assert troubles(run) == []
    assert run["eval/accuracy"].steps.tolist() == [1, 3, 5]
    assert run["eval/after"].steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert run["loss"].steps.tolist() == list(range(6))
    assert run["samples"].values.tolist() == [6 * (i + 1) for i in range(6)]


def test_evaluation_that_forgot_no_grad_is_no_training_batch() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for x, y in vectors(4)[:3]:
        model.train()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        model(x)
    run = record_of(watch)
    assert run["samples"].values.tolist() == [12, 24, 36]
    assert "noise/scale" not in run


def test_fine_tuning_in_evaluation_mode_is_training() -> None:
    model = mlp().eval()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    train(model, optimizer, vectors(4)[:3], watch)
    run = record_of(watch)
    assert run["samples"].values.tolist() == [12, 24, 36]
    assert "rate/effective/0.weight" not in run, "a frozen BatchNorm makes no layer scale-invariant"


def test_a_loop_that_calls_the_children() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    with pytest.warns(ThalwegWarning, match="No forward"):
        for x, y in vectors(5):
            h = x
            for child in model:
                h = child(h)
            loss = F.cross_entropy(h, y)
            loss.backward()
            watch.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
        watch.close()
    run = tw.open_run(watch.path)
    assert run["loss"].steps.tolist() == list(range(5))
    assert run["grad/norm"].steps.tolist() == list(range(5))
    assert run.events("no forward seen")
    assert troubles(run) == []


def test_children_called_with_stamps() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for x, y in vectors(2):
        watch.stamp()
        h = x
        for child in model:
            h = child(h)
        loss = F.cross_entropy(h, y)
        loss.backward()
        optimizer.step()
        watch.log(loss=loss)
    assert record_of(watch)["loss"].steps.tolist() == [0, 1]


# -- compiled after the watch -------------------------------------------------------------------------------------


def test_a_model_compiled_after_the_watch_is_said_in_words() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(ThalwegWarning, match=r"after torch\.compile"):
        losses = train(compiled, optimizer, vectors(6)[:5], watch)
        watch.close()
    run = tw.open_run(watch.path)
    assert steps_of(run, "loss") == pytest.approx(dict(enumerate(losses)))
    assert len(run.events("no forward seen")) == 1
    torch.compiler.reset()


def test_compiled_after_a_first_eager_forward() -> None:
    """The stamp of that forward must not stick to every later loss."""
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    train(model, optimizer, vectors(2), watch)
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(ThalwegWarning, match="No forward"):
        train(compiled, optimizer, vectors(8)[:7], watch)
        watch.close()
    steps = tw.open_run(watch.path)["loss"].steps.tolist()
    assert steps[-4:] == [5, 6, 7, 8]
    torch.compiler.reset()


@pytest.mark.parametrize("how", ["torch.compile", "model.compile", "a part"])
def test_a_model_compiled_before_the_watch(how: str) -> None:
    torch.manual_seed(0)
    model = mlp()
    outer: nn.Module = model
    if how == "torch.compile":
        outer = torch.compile(model, backend="eager")
    elif how == "model.compile":
        model.compile(backend="eager")
    else:
        model[0] = torch.compile(model[0], backend="eager")
    optimizer = sgd(outer)
    watch = start(outer, optimizer)
    losses = train(outer, optimizer, vectors(6)[:5], watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "loss") == pytest.approx(dict(enumerate(losses)))
    assert set(run.events("not recorded")[0].details["instruments"]) == {"output-logits", "unit-activity"}
    assert run.names("grad/norm/*") == [f"grad/norm/{n}" for n in sorted(dict(mlp().named_parameters()))]
    torch.compiler.reset()


def test_the_watch_does_not_make_a_compiled_model_compile_again() -> None:
    from torch._dynamo.testing import CompileCounter

    model, counter = mlp(), CompileCounter()
    outer = torch.compile(model, backend=counter)
    optimizer = sgd(outer)
    batches = vectors(9)[:8]
    train(outer, optimizer, batches)
    before = counter.frame_count
    watch = start(outer, optimizer, cadence="auto")
    train(outer, optimizer, batches, watch)
    watch.close()
    train(outer, optimizer, batches)
    assert counter.frame_count == before
    torch.compiler.reset()


# -- optimizers ---------------------------------------------------------------------------------------------------


def test_an_optimizer_in_the_backward_pass() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def update(parameter: Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(update)
    watch = start(model, None)
    losses = []
    for x, y in vectors(4):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        losses.append(float(loss.detach()))
        watch.log(loss=loss)
        watch.step()
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "loss") == pytest.approx(dict(enumerate(losses)))
    assert run["time/step"].steps.tolist() == [0, 1, 2, 3]
    assert "weight/distance" in run


def test_lbfgs_records_the_gradient_of_the_first_evaluation() -> None:
    torch.manual_seed(0)
    model = nn.Linear(10, 4)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    watch = start(model, optimizer)
    firsts, losses = [], []
    for x, y in vectors(3):
        evaluations = 0

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            nonlocal evaluations
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            evaluations += 1
            watch.log(loss=loss)
            if evaluations == 1:
                firsts.append(norm_of(model))
                losses.append(float(loss.detach()))
            return loss

        returned = optimizer.step(closure)
        assert float(returned) == pytest.approx(losses[-1])
        assert evaluations > 1
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "grad/norm") == pytest.approx(dict(enumerate(firsts)), rel=1e-5)
    assert steps_of(run, "loss") == pytest.approx(dict(enumerate(losses)))
    assert run["samples"].values.tolist() == [12, 24, 31], (
        "a batch counts once, however often it is evaluated"
    )
    assert not run.names("noise/*"), "evaluations of one batch are no micro-batches"


@pytest.mark.parametrize("keyword", [True, False])
def test_a_closure_is_called_once_and_its_value_returned(keyword: bool) -> None:
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    watch = start(model, optimizer)
    (x, y), calls = vectors(2)[0], []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        calls.append(norm_of(model))
        return loss

    for _ in range(3):
        result = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
        assert isinstance(result, Tensor)
    assert steps_of(record_of(watch), "grad/norm") == pytest.approx(dict(enumerate(calls)), rel=1e-5)


def test_a_closure_that_raises_raises() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)

    def closure() -> Tensor:
        raise LookupError("the user's own")

    with pytest.raises(LookupError, match="the user's own"):
        optimizer.step(closure)
    train(model, optimizer, vectors(2), watch)
    assert record_of(watch)["loss"].steps.tolist()[-1] >= 1


def test_several_optimizers_on_one_model() -> None:
    torch.manual_seed(0)
    model = mlp()
    body = torch.optim.SGD(model[0].parameters(), lr=0.1)
    head = torch.optim.AdamW([*model[1].parameters(), *model[3].parameters()], lr=0.01)
    watch = start(model, {"body": body, "head": head})
    wanted = []
    for i, (x, y) in enumerate(vectors(4)):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        wanted.append(float(model[0].weight.grad.double().norm()))
        watch.log(loss=loss)
        body.step()
        if i % 2:
            head.step()
        model.zero_grad()
    run = record_of(watch)
    assert troubles(run) == []
    assert run["loss"].steps.tolist() == [0, 1, 2, 3]
    assert steps_of(run, "body:grad/norm/0.weight")[0] == pytest.approx(wanted[0], rel=1e-5)
    assert run["body:grad/norm"].steps.tolist() == [0, 1, 2, 3]
    assert run["head:grad/norm"].steps.tolist() == [0, 1]
    assert run["head:grad/norm"].spec.clock == "updates/head"
    assert run["body:lr"].last == pytest.approx(0.1)
    assert not run.names("body:grad/norm/3.*")


def test_several_models_and_optimizers() -> None:
    """A generator and a discriminator, each with its own clock; what the user logs keeps its name."""
    torch.manual_seed(0)
    g, d = nn.Linear(4, 10), nn.Linear(10, 1)
    og, od = sgd(g), torch.optim.Adam(d.parameters())
    watch = tw.watch({"G": g, "D": d}, {"G": og, "D": od}, cadence=1)
    for _ in range(3):
        for _ in range(2):
            od.zero_grad()
            loss_d = d(torch.randn(5, 10)).mean() - d(g(torch.randn(5, 4)).detach()).mean()
            loss_d.backward()
            od.step()
        og.zero_grad()
        loss_g = d(g(torch.randn(5, 4))).mean()
        loss_g.backward()
        watch.log(loss_g=loss_g, loss_d=loss_d)
        assert float(watch.clip_grad_norm_(1e9, key="D")) > 0
        og.step()
    with pytest.raises(UsageError, match="G, D"):
        watch.clip_grad_norm_(1.0, key="E")
    run = record_of(watch)
    assert troubles(run) == []
    assert run["G:grad/norm"].steps.tolist() == [0, 1, 2]
    assert run["D:grad/norm"].steps.tolist() == list(range(6))
    assert {"updates", "updates/D"} <= set(run.clocks)
    assert "loss_g" in run
    assert "loss_d" in run
    assert "D:grad/norm_raw" in run


def test_one_forward_that_raises_under_two_optimizers_raises_the_users_error() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fail = mlp(), True

        def forward(self, x: Tensor) -> Tensor:
            out = self.body(x)
            if self.fail:
                raise LookupError("the user's own")
            return out

    model = Sometimes()
    optimizers = {"a": sgd(model.body[0]), "b": sgd(model.body[3])}
    watch = start(model, optimizers)
    x, y = vectors(2)[0]
    with pytest.raises(LookupError, match="the user's own"):
        model(x)
    assert not model._forward_hooks
    assert not model.body[0]._forward_pre_hooks
    model.fail = False
    F.cross_entropy(model(x), y).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    assert troubles(record_of(watch)) == []


def test_an_interrupted_forward_leaves_no_hooks_for_the_next_one() -> None:
    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.stop = mlp(), True

        def forward(self, x: Tensor) -> Tensor:
            out = self.body(x)
            if self.stop:
                raise KeyboardInterrupt
            return out

    model = Interrupted()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    with pytest.raises(KeyboardInterrupt):
        model(vectors(1)[0][0])
    model.stop = False
    train(model, optimizer, vectors(2), watch)
    assert not model._forward_hooks
    assert not model.body[0]._forward_pre_hooks
    run = record_of(watch)
    assert troubles(run) == []
    assert run["logits/largest"].steps.tolist() == [0, 1]


# -- parameters -----------------------------------------------------------------------------------------------------


def test_tied_shared_and_frozen_parameters() -> None:
    model = Transformer()
    model.norm.requires_grad_(False)
    optimizer = sgd(model)
    watch = start(model, optimizer)
    train(model, optimizer, sequences(2), watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert run.events("parameters")[0].details["tied"] == {"embed.weight": ["head.weight"]}
    assert "grad/norm/embed.weight" in run
    assert "grad/norm/head.weight" not in run
    assert "grad/norm/norm.weight" not in run
    assert steps_of(run, "update/norm/norm.weight") == {0: 0, 1: 0}


def test_parameters_shared_by_two_watched_models() -> None:
    body = nn.Linear(10, 8)
    one, two = nn.Sequential(body, nn.Linear(8, 4)), nn.Sequential(body, nn.Linear(8, 2))
    first, second = sgd(one), sgd(two)
    watch = start({"one": one, "two": two}, {"one": first, "two": second})
    for x, y in vectors(3):
        for model, optimizer in ((one, first), (two, second)):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y % 2).backward()
            optimizer.step()
    run = record_of(watch)
    assert troubles(run) == []
    assert run["one:grad/norm"].steps.tolist() == run["two:grad/norm"].steps.tolist() == [0, 1, 2]


def test_parameters_added_later_keep_the_distance_of_the_others() -> None:
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))
    optimizer = sgd(model[0])
    watch = start(model, optimizer)
    first = model[0].weight.detach().double().clone()
    train(model, optimizer, vectors(2), watch)
    optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.5})
    late = model[2].weight.detach().double().clone()
    train(model, optimizer, vectors(2), watch)
    before = [p.detach().double().clone() for p in (model[0].weight, model[2].weight)]
    train(model, optimizer, vectors(1), watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["weight/distance/0.weight"].last == pytest.approx(float((before[0] - first).norm()), rel=1e-5)
    assert run["weight/distance/2.weight"].last == pytest.approx(float((before[1] - late).norm()), rel=1e-5)
    assert run["lr/group1"].last == 0.5


def test_relu_in_place_sees_what_comes_out_of_it() -> None:
    for inplace in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 4))
        optimizer = sgd(model)
        watch = start(model, optimizer)
        train(model, optimizer, vectors(3), watch)
        run = record_of(watch)
        if inplace:
            kept = run["act/rms/2"].values
    assert run["act/rms/2"].values.tolist() == kept.tolist()


# -- copies ---------------------------------------------------------------------------------------------------------


def test_copies_saves_and_averages_of_a_watched_model() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    x, y = vectors(1)[0]
    for _ in range(3):
        clone = copy.deepcopy(model)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        for other in (clone, loaded, averaged):
            other.train()
            F.cross_entropy(other(x), y).backward()
            other.zero_grad()
        stepped = sgd(clone)
        F.cross_entropy(clone(x), y).backward()
        stepped.step()
        train(model, optimizer, [(x, y)], watch)
        averaged.update_parameters(model)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["loss"].steps.tolist() == run["grad/norm"].steps.tolist() == [0, 1, 2]
    assert run["samples"].values.tolist() == [len(x) * (i + 1) for i in range(3)]


def test_a_copied_optimizer_takes_its_own_steps() -> None:
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    watch = start(model, optimizer)
    train(model, optimizer, vectors(2), watch)
    copied = copy.deepcopy(optimizer)
    for group in copied.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    copied.step()
    train(model, optimizer, vectors(1), watch)
    assert record_of(watch)["grad/norm"].steps.tolist() == [0, 1, 2]


def test_functional_transforms_of_a_watched_model() -> None:
    """Per-example gradients through vmap: what flows through the model there is not a batch of the loop."""
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))
    optimizer = sgd(model)
    watch = start(model, optimizer)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x[None],)), y[None])

    per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    for x, y in vectors(5)[:4]:
        per_example(parameters, x, y)
        train(model, optimizer, [(x, y)], watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["samples"].values.tolist() == [12, 24, 36, 48]
    assert run["logits/largest"].steps.tolist() == [0, 1, 2, 3]


def test_activation_checkpointing_counts_each_forward_once() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(10, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(checkpoint(lambda h: self.first(h).relu(), x, use_reentrant=False))

    model = Checkpointed()
    optimizer = sgd(model)
    whole = Checkpointed()
    watch = start(model, optimizer)
    train(model, optimizer, vectors(3), watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["samples"].values.tolist() == [12, 24, 31]
    outer = start(whole, other := sgd(whole))
    for x, y in vectors(3):
        loss_of(checkpoint(whole, x, use_reentrant=False), y).backward()
        other.step()
        other.zero_grad()
    assert record_of(outer)["samples"].values.tolist() == [12, 24, 31]


# -- mixed precision ---------------------------------------------------------------------------------------------------


def amp_loop(scaler: Any, *, given: bool, make: Any, poison: int = -1) -> tuple[Any, dict[int, float], int]:
    torch.manual_seed(0)
    model = mlp()
    optimizer = make(model)
    watch = start(model, optimizer, scaler=scaler if given else None)
    norms, applied = {}, 0
    for i, (x, y) in enumerate(vectors(9)[:8]):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        if i == poison:
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        watch.log(loss=loss)
        before = model[0].weight.detach().clone()
        scale = scaler.get_scale()
        norm = norm_of(model) / scale
        scaler.step(optimizer)
        scaler.update()
        if not torch.equal(before, model[0].weight):
            norms[applied] = norm
            applied += 1
        optimizer.zero_grad()
    return record_of(watch), norms, applied


@pytest.mark.parametrize("given", [True, False], ids=["scaler=", "no scaler="])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_overflow_under_a_grad_scaler(fused: bool, given: bool) -> None:
    """Two skipped updates are in neither clock's steps, and the applied gradients are unscaled."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-100)
    run, norms, applied = amp_loop(
        scaler, given=given, make=lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2, fused=fused), poison=4
    )
    assert troubles(run) == []
    assert 0 < applied < 8
    seen = steps_of(run, "grad/norm")
    assert {s: v for s, v in seen.items() if np.isfinite(v)} == pytest.approx(norms, rel=1e-4)
    assert run["loss"].steps.tolist() == list(range(applied))
    if given:
        assert run["amp/skipped"].last == 8 - applied
        assert len(run.events("update skipped")) == 8 - applied
        assert run["amp/scale"].last == scaler.get_scale()
    else:
        assert "amp/scale" not in run
        (event,) = [e for e in run.events("not recorded") if "signals" in e.details]
        assert "scaler=" in event.details["text"]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_the_last_update_is_counted_when_it_is_skipped(fused: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    make = lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2, fused=fused)  # noqa: E731
    run, _, applied = amp_loop(scaler, given=True, make=make, poison=7)
    assert troubles(run) == []
    assert applied == 7
    assert run["amp/skipped"].last == 1
    assert [e.step for e in run.events("update skipped")] == [7]
    assert run["amp/scale"].last == scaler.get_scale() == 512


def test_a_disabled_scaler_is_no_scaler() -> None:
    run, _, applied = amp_loop(torch.amp.GradScaler("cpu", enabled=False), given=True, make=sgd)
    assert troubles(run) == []
    assert applied == 8
    assert "amp/scale" not in run


def test_gradients_unscaled_by_hand_for_clipping() -> None:
    for fused in (False, True):
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        watch = start(model, optimizer, scaler=scaler)
        raw, applied = [], []
        for x, y in vectors(3):
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.unscale_(optimizer)
            raw.append(norm_of(model))
            watch.clip_grad_norm_(0.1)
            applied.append(norm_of(model))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        run = record_of(watch)
        assert troubles(run) == []
        assert run["grad/norm_raw"].values == pytest.approx(np.float32(raw), rel=1e-5)
        assert run["grad/norm"].values == pytest.approx(np.float32(applied), rel=1e-5)
        assert run["grad/clipped"].values.tolist() == [float(n > 0.1) for n in raw]
        assert run["grad/norm_raw"].spec.stage == "raw"
        assert run["grad/norm"].spec.stage == "applied"


# -- clipping ----------------------------------------------------------------------------------------------------------


def test_clipping_is_torchs_own_and_records_the_norm_before() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model)
    twin = copy.deepcopy(model)
    watch = start(model, optimizer)
    for x, y in vectors(3):
        for one in (model, twin):
            one.zero_grad()
            F.cross_entropy(one(x), y).backward()
        ours = watch.clip_grad_norm_(0.2)
        torchs = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.2)
        assert torch.equal(ours, torchs)
        assert all(
            torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
        )
        optimizer.step()
        with torch.no_grad():
            for a, b in zip(model.parameters(), twin.parameters(), strict=True):
                b.copy_(a)
    assert record_of(watch)["grad/norm_raw"].steps.tolist() == [0, 1, 2]


def test_a_norm_that_an_integration_hands_over_is_recorded_as_our_own() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=2, probes=["gradient-norm"])
    due = []
    for i, (x, y) in enumerate(vectors(4)):
        F.cross_entropy(model(x), y).backward()
        due.append(watch.is_due("gradient-norm"))
        watch.record_clipping(2.5 if i % 2 else torch.tensor(0.5), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert due == [True, False, True, False]
    assert not watch.is_due("no such instrument")
    run = record_of(watch)
    assert troubles(run) == []
    assert steps_of(run, "grad/norm_raw") == {0: 0.5, 1: 2.5, 2: 0.5, 3: 2.5}
    assert steps_of(run, "grad/clipped") == {0: 0, 1: 1, 2: 0, 3: 1}
    watch.record_clipping(1.0, 1.0)
    assert not watch.is_due("gradient-norm"), "a closed watch looks at nothing"


def test_clipping_with_options_of_torch() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    x, y = vectors(1)[0]
    F.cross_entropy(model(x), y).backward()
    assert float(watch.clip_grad_norm_(1.0, norm_type=float("inf"), foreach=True)) > 0
    model[0].weight.grad[0] = float("nan")
    with pytest.raises(RuntimeError, match="non-finite"):
        watch.clip_grad_norm_(1.0, error_if_nonfinite=True)
    optimizer.step()
    run = record_of(watch)
    assert "grad/norm_raw" not in run


# -- faults of the loop --------------------------------------------------------------------------------------------------


def test_nan_everywhere() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    watch = start(model, optimizer)
    train(model, optimizer, vectors(4), watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert np.isnan(run["loss"].values).all()
    assert np.isnan(run["grad/norm"].values).all()
    assert run["grad/nonfinite"].last == sum(p.numel() for p in model.parameters())


def test_a_spike_is_kept_in_full_and_starts_a_burst() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1)
    for step in range(100):
        model(torch.ones(2, 4)).sum().backward()
        if step == 65:
            model.weight.grad *= 1000
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 5:
            watch.run
    run = record_of(watch)
    triggers = run.events("burst") + run.events("trigger")
    assert [e.step for e in triggers] == [65]
    around = run["grad/norm/weight"].steps.tolist()
    assert set(range(50, 95)) <= set(around)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_that_trains_its_copy_leaves_the_record_alone(tmp_path: Path) -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = start(model, optimizer, out="run")
    parent = os.getpid()

    def loop(batches: int) -> None:
        for x, y in vectors(batches):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            watch.log(loss=loss, who=float(os.getpid() == parent))
            watch.clip_grad_norm_(1.0)
            optimizer.step()
            optimizer.zero_grad()

    loop(3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            loop(20)
            watch.event("child")
            watch.state_dict()
            watch.close()
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    loop(2)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["loss"].steps.tolist() == [0, 1, 2, 3, 4]
    assert run["who"].values.tolist() == [1] * 5
    assert run.events("child") == []
    assert [p.name for p in tmp_path.glob("*.tw*")] == ["run.tw"]


def test_data_loader_workers_by_fork() -> None:
    model = mlp()
    optimizer = sgd(model)
    x, y = vectors(1)[0]
    data = torch.utils.data.TensorDataset(x, y)
    watch = start(model, optimizer)
    for _ in range(2):
        loader = torch.utils.data.DataLoader(
            data, batch_size=4, num_workers=1, multiprocessing_context="fork"
        )
        train(model, optimizer, loader, watch)
    run = record_of(watch)
    assert troubles(run) == []
    assert run["loss"].steps.tolist() == list(range(4))
