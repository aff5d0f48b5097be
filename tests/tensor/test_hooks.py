"""Hooks that copies and saved files of a model carry along as nothing at all."""

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from thalweg.tensor.hooks import Handle, Hooks, TemporaryHooks, find_targets


class Counter:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def note(self, *args: Any) -> None:
        self.calls.append(args)


def hooked() -> tuple[nn.Module, torch.optim.Optimizer, Hooks, Counter]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hooks, counter = Hooks(), Counter()
    hooks.forward_pre(model, counter.note)
    hooks.step(optimizer, counter.note, counter.note)
    return model, optimizer, hooks, counter


def test_hooks_are_called_and_removed() -> None:
    model, optimizer, hooks, counter = hooked()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert len(counter.calls) == 3
    assert counter.calls[0][0] is model
    assert counter.calls[1][0] is optimizer
    hooks.remove()
    hooks.remove()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert len(counter.calls) == 3
    assert not model._forward_pre_hooks
    assert not model._forward_pre_hooks_with_kwargs
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("how", ["deepcopy", "save"])
def test_a_copy_of_the_model_does_not_call_the_watch(how: str) -> None:
    model, _, _, counter = hooked()
    if how == "deepcopy":
        other = copy.deepcopy(model)
    else:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    x = torch.ones(1, 2)
    assert torch.equal(other(x), other(x))
    assert not counter.calls
    assert torch.equal(model(x), other(x))
    assert len(counter.calls) == 1


def test_a_copied_optimizer_is_not_watched() -> None:
    model, optimizer, _, counter = hooked()
    other = copy.deepcopy(optimizer)
    model(torch.ones(1, 2)).sum().backward()
    counter.calls.clear()
    other.step()
    assert not counter.calls


def test_a_copied_handle_is_inert() -> None:
    counter = Counter()
    handle = Handle(counter.note)
    copy.copy(handle)(1, (), {})
    copy.deepcopy(handle)(1, (), {})
    assert not counter.calls
    handle(1, (), {})
    assert counter.calls == [(1, (), {})]


def test_a_saved_model_loads_where_thalweg_is_not_installed(tmp_path: Path) -> None:
    model, _, _, _ = hooked()
    torch.save(model, tmp_path / "model.pt")
    x = torch.ones(1, 2)
    code = (
        "import sys, torch; assert not any('thalweg' in p for p in sys.path)\n"
        "try:\n    import thalweg\nexcept ImportError:\n    pass\nelse:\n    raise SystemExit('importable')\n"
        "model = torch.load(sys.argv[1], weights_only=False)\n"
        "print(repr(model(torch.ones(1, 2)).tolist()))\n"
    )
    paths = [p for p in sys.path if p.endswith("site-packages")]
    script = f"import sys; sys.path += {paths!r}\nsys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f)]\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "ignore", "-c", script + code, str(tmp_path / "model.pt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(model(x).tolist())


class Slotted(nn.Linear):
    __slots__ = ("extra",)


class OwnState(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "saved": True}


@pytest.mark.parametrize("kind", [nn.Linear, Slotted, OwnState])
def test_a_saved_model_holds_nothing_but_itself(kind: type[nn.Module]) -> None:
    plain, model = kind(2, 2), kind(2, 2)
    before = dict(vars(model))
    own = model.register_forward_pre_hook(torch.nn.functional.relu)
    hooks, second = Hooks(), Hooks()
    hooks.forward_pre(model, Counter().note)
    second.forward_pre(model, Counter().note)
    assert list(copy.deepcopy(model)._forward_pre_hooks) == [own.id]
    own.remove()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    with torch.serialization.safe_globals([kind]):
        other = torch.load(buffer, weights_only=True) if kind is nn.Linear else copy.copy(model)
    assert {*vars(other)} - {"saved"} == {*vars(plain)}
    assert not other._forward_pre_hooks
    assert not other._forward_pre_hooks_with_kwargs
    hooks.remove()
    assert not copy.copy(model)._forward_pre_hooks
    second.remove()
    assert {*vars(model)} == {*before}


def test_handles_are_found_by_their_owner() -> None:
    model, _, hooks, counter = hooked()
    model.register_forward_pre_hook(lambda module, args: None)
    assert find_targets(model) == [counter]
    assert find_targets(copy.deepcopy(model)) == []
    hooks.remove()
    assert find_targets(model) == []


def test_a_compiler_that_traces_through_a_handle_sees_nothing() -> None:
    model, _, _, counter = hooked()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        compiled(torch.ones(1, 2))
    assert not counter.calls
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_for_deployment_holds_nothing_of_the_watch() -> None:
    model = nn.Linear(2, 2)
    hooks = Hooks()
    x, seen = torch.ones(1, 2), []
    hooks.forward_pre(model, lambda module, args, kwargs: seen.append(args[0].square().sum() + len(seen)))
    plain = torch.jit.trace(copy.deepcopy(model), x)  # type: ignore[no-untyped-call]  # torch's
    traced = torch.jit.trace(model, x)  # type: ignore[no-untyped-call]  # torch's
    assert [n.kind() for n in traced.graph.nodes()] == [n.kind() for n in plain.graph.nodes()]
    assert torch.equal(traced(x), model(x))
    assert seen


def test_temporary_hooks_live_for_one_forward_also_when_it_raises() -> None:
    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.inner(x)
            raise ValueError("the user's own")

    import weakref

    model, temporary, counter = Raises(), TemporaryHooks(), Counter()
    temporary.add_pre(weakref.ref(model.inner), counter.note)
    temporary.add_end(model, lambda module, args, output: temporary.remove())
    with pytest.raises(ValueError, match="the user's own"):
        model(torch.ones(1, 2))
    assert len(counter.calls) == 1
    assert not model._forward_hooks
    assert not model.inner._forward_pre_hooks
