"""FSDP2 with ``ranks="all"``: what the reader joins is that of the whole model, recomputed in float64 from whole tensors.

The acceptance grid does it for every default signal; here are meshes, rows and gradients that it hasn't.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks_together import Work, together
from small_training import loss_of, vectors
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import thalweg as tw
from thalweg.record import compact, open_run, rank_path
from thalweg.watching.instruments import ZeroGradient

Values = dict[str, dict[int, float]]


def network() -> nn.Module:
    """Rows of 16, 3 and 1: shards are uneven, and the last rank's are empty."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 1))


def whole(tensor: Any) -> np.ndarray[Any, Any]:
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return np.array(full.detach().double(), copy=True)


class ByHand:
    """Signals of whole gradients and parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.values: Values = {}
        self.previous: dict[str, np.ndarray[Any, Any]] = {}

    def before(self) -> None:
        self.grads = {n: whole(p.grad) for n, p in self.model.named_parameters()}
        self.weights = {n: whole(p) for n, p in self.model.named_parameters()}

    def after(self, step: int) -> None:
        updates = {n: whole(p) - self.weights[n] for n, p in self.model.named_parameters()}
        each = {n: {n} for n in self.grads} | {"": set(self.grads)}
        for layer, names in each.items():
            grad, weight, update = (
                np.concatenate([x[n].ravel() for n in self.grads if n in names])
                for x in (self.grads, self.weights, updates)
            )
            found = {
                "grad/norm": np.linalg.norm(grad),
                "grad/zero_share": (grad == 0).mean(),
                "update/norm": np.linalg.norm(update),
                "weight/norm": np.linalg.norm(weight),
                "update/ratio": np.linalg.norm(update) / np.linalg.norm(weight),
                "grad/nonfinite": (~np.isfinite(grad)).sum(),
            }
            if self.previous:
                past = np.concatenate([self.previous[n].ravel() for n in self.grads if n in names])
                with np.errstate(all="ignore"):
                    found["grad/cosine"] = grad @ past / np.linalg.norm(grad) / np.linalg.norm(past)
                    found["grad/change"] = np.linalg.norm(grad - past) / np.linalg.norm(past)
            for name, value in found.items():
                self.values.setdefault(f"{name}/{layer}".rstrip("/"), {})[step] = float(value)
        self.previous = self.grads


def same_gradients_everywhere(model: nn.Module) -> None:
    """What DDP would do for parameters that are not sharded."""
    for p in model.parameters():
        if p.grad is not None and not hasattr(p.grad, "full_tensor"):
            dist.all_reduce(p.grad, dist.ReduceOp.AVG)


def trained(rank: int, folder: Path, kind: str) -> Values:
    model = network()
    if kind == "hybrid":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    elif kind == "mixed":
        fully_shard(model[0], mesh=init_device_mesh("cpu", (2,)))
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    memory = 1 << 16 if kind == "turns" else None
    watch = tw.watch(model, optimizer, out=folder / "a.tw", ranks="all", cadence=1, memory=memory)
    if kind == "turns":
        view = watch._tracks[0].view
        view.rotation = [[i] for i in range(len(view.table.rows))]
    hand = ByHand(model)
    for step, (x, _) in enumerate(vectors(6, seed=rank)):
        model(x).square().mean().backward()
        same_gradients_everywhere(model)
        if kind == "bad" and step == 3 and rank == 1:
            model[0].weight.grad.to_local()[0, :2] = math.nan
        hand.before()
        optimizer.step()
        hand.after(step)
        optimizer.zero_grad()
        if kind == "bad" and step == 3:
            break
    watch.close()
    return hand.values


def slower(rank: int, folder: Path) -> tuple[dict[str, int], list[int]]:
    """One rank's instruments cost far more than the other's."""
    plain = ZeroGradient.measure

    def slow(self: ZeroGradient, view: Any) -> Any:
        time.sleep(0.02 * rank)
        return plain(self, view)

    ZeroGradient.measure = slow  # type: ignore[method-assign]
    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = tw.watch(model, optimizer, out=folder / "a.tw", ranks="all")
    for x, _ in vectors(330, seed=rank):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    periods = {p.name: p.period * p.on for p in watch._tracks[0].governor.planned}
    watch.close()
    ZeroGradient.measure = plain  # type: ignore[method-assign]
    mine = open_run(rank_path(folder / "a.tw", rank))
    source, part = mine._parts[rank]
    return periods, sorted(source.column("grad/zero_share", part)[0].tolist())


def accumulated(rank: int, folder: Path) -> None:
    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = tw.watch(model, optimizer, out=folder / "a.tw", ranks="all", cadence=1)
    for i, (x, _) in enumerate(vectors(9, seed=rank)[:8]):
        model(x).square().mean().backward()
        if i % 2:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            optimizer.zero_grad()
    watch.close()


def replicated(rank: int, folder: Path, ranks: str) -> dict[str, float]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4))
    model = nn.parallel.DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = tw.watch(model, optimizer, out=folder / "a.tw", ranks=ranks, cadence=1)
    seen: list[Tensor] = []
    plain[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    for x, y in vectors(3, seed=rank):
        loss_of(model(x[: 4 + 4 * rank]), y[: 4 + 4 * rank]).backward()
        optimizer.step()
        optimizer.zero_grad()
    watch.close()
    return {
        "size": float(seen[0].square().sum()),
        "dead": float((seen[0] == 0).all(0).double().mean()),
        "elements": float(seen[0].numel()),
    }


def over_some(rank: int, folder: Path) -> None:
    model = nn.Linear(8, 8)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts"))
    fully_shard(model, mesh=mesh["parts"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = tw.watch(model, optimizer, out=folder / "a.tw", ranks="all", cadence=1)
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    watch.close()


TWO: list[Work] = [
    *((kind, trained, (kind,)) for kind in ("sharded", "mixed", "turns", "bad")),
    ("slower", slower, ()),
    ("accumulated", accumulated, ()),
    ("replicas", replicated, ("all",)),
    ("one replica", replicated, ("zero",)),
]
FOUR: list[Work] = [("hybrid", trained, ("hybrid",)), ("some", over_some, ())]
Done = dict[str, tuple[Path, list[Any]]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Every work's folder, and what it returned on each rank."""
    out: Done = {}
    for works, world in ((TWO, 2), (FOUR, 4)):
        folder = tmp_path_factory.mktemp(f"world{world}")
        found = together(works, folder, world)
        out |= {name: (folder / name, found[name]) for name, *_ in works}
    return out


@pytest.mark.parametrize("kind", ["sharded", "mixed", "hybrid"])
def test_what_ranks_recorded_of_their_parts_is_the_whole(done: Done, kind: str) -> None:
    folder, (expected, *_) = done[kind]
    for merged in (False, True):
        if merged:
            compact(folder / "a.tw")
            assert [p.name for p in folder.glob("*.tw")] == ["a.tw"]
        run = open_run(folder / "a.tw")
        assert run.warnings == []
        assert run.events("failure") == []
        for name, values in expected.items():
            if name.startswith("grad/nonfinite"):
                assert name not in run
                continue
            steps = run[name].steps.tolist()
            assert steps == ([0] if name.startswith("grad/norm/") else list(values)), name
            assert run[name].values == pytest.approx(
                [values[s] for s in steps], rel=2e-5, abs=1e-7, nan_ok=True
            )
            assert (run[name].spec.shape, run[name].spec.dtype) == ((), "float32")


def test_updates_in_turns_are_joined_turn_by_turn(done: Done) -> None:
    folder, (expected, *_) = done["turns"]
    run = open_run(folder / "a.tw")
    for at, layer in enumerate(network().state_dict()):
        name = f"update/ratio/{layer}"
        assert run[name].steps.tolist() == [at]
        assert run[name].values == pytest.approx([expected[name][at]], rel=2e-5)
    squares = [expected[f"update/norm/{layer}"][i] ** 2 for i, layer in enumerate(network().state_dict())]
    assert run["update/norm"].steps.tolist() == [5]
    assert run["update/norm"].values == pytest.approx([math.sqrt(sum(squares))], rel=2e-5)


def test_bad_entries_on_one_rank_only_are_counted(done: Done) -> None:
    folder, (expected, *_) = done["bad"]
    run = open_run(folder / "a.tw")
    assert run["grad/nonfinite"].steps.tolist() == [3]
    assert run["grad/nonfinite"].values.tolist() == [expected["grad/nonfinite"][3]] == [2.0]
    assert run["grad/nonfinite/0.weight"].values.tolist() == [2.0]
    assert run["grad/nonfinite/0.bias"].values.tolist() == [0.0]


def test_all_ranks_measure_at_the_same_steps_whatever_it_costs_each(done: Done) -> None:
    folder, ((periods, steps), (others, same)) = done["slower"]
    assert periods == others
    assert len(set(periods.values())) > 1
    assert steps == same
    run = open_run(folder / "a.tw")
    assert run["grad/zero_share"].steps.tolist() == steps
    assert run["grad/change"].steps[-1] > 200
    assert run.events("burst") == []


def test_clipping_that_leaves_no_trace_leaves_out_the_noise_scale(done: Done) -> None:
    run = open_run(done["accumulated"][0] / "a.tw")
    assert "noise/scale" not in run
    said = [
        e.details for e in run.events("not recorded") if "noise-scale" in e.details.get("instruments", ())
    ]
    assert said
    assert all("watch.clip_grad_norm_" in details["text"] for details in said)


def test_batches_of_several_ranks_are_one_batch(done: Done) -> None:
    folder, found = done["replicas"]
    run = open_run(folder / "a.tw")
    assert run["samples"].values.tolist() == [12.0, 24.0, 4.0 + 7.0 + 24.0]
    rms = math.sqrt(sum(f["size"] for f in found) / sum(f["elements"] for f in found))
    assert run["act/rms/2"].values[0] == pytest.approx(rms, rel=1e-6)
    share = (4 * found[0]["dead"] + 8 * found[1]["dead"]) / 12
    assert run["units/dead/2"].values[0] == pytest.approx(share, rel=1e-6)
    assert run["grad/norm"].spec.reduce == "none"


def test_one_rank_of_ddp_records_its_own_batch(done: Done) -> None:
    folder, found = done["one replica"]
    run = open_run(folder / "a.tw")
    assert run["samples"].values.tolist() == [4.0, 8.0, 12.0]
    assert run["act/rms/2"].values[0] == pytest.approx(
        math.sqrt(found[0]["size"] / found[0]["elements"]), rel=1e-6
    )
    assert {run[n].spec.formula for n in run.names()} == {""}


def test_shards_over_some_of_the_ranks_are_left_out_in_words(done: Done) -> None:
    run = open_run(done["some"][0] / "a.tw")
    assert "grad/norm" not in run
    assert any("some of the ranks" in e.details["text"] for e in run.events("not recorded"))
