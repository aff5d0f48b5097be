"""Each default signal of small networks against a float64 recomputation by straightforward code."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
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
from thalweg.record import Run

Table = dict[str, dict[int, float]]


class Oracle:
    """Keeps float64 copies of everything around each step, and computes the signals from their definitions."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.named = dict(model.named_parameters())
        self.group = {
            n: g
            for n, p in self.named.items()
            for g in optimizer.param_groups
            if any(p is q for q in g["params"])
        }
        self.start = self.copies()
        self.before: list[dict[str, Tensor]] = []
        self.after: list[dict[str, Tensor]] = []
        self.grads: list[dict[str, Tensor]] = []
        self.momenta: list[dict[str, Tensor]] = []
        self.rates: list[dict[str, float]] = []
        self.inputs: list[dict[str, Tensor]] = []
        self.learned: list[dict[str, bool]] = []
        self.logits: list[Tensor] = []

    def copies(self) -> dict[str, Tensor]:
        return {n: p.detach().double().clone() for n, p in self.named.items()}

    def train(self, batches: Any, watch: Any) -> None:
        readers = [
            (n, m) for n, m in self.model.named_modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))
        ]
        for x, y in batches:
            seen: dict[str, Tensor] = {}
            learned: dict[str, bool] = {}

            def look(
                name: str, seen: dict[str, Tensor] = seen, learned: dict[str, bool] = learned
            ) -> Callable[..., None]:
                def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                    if name not in seen:
                        seen[name] = args[0].detach().double().clone()
                        learned[name] = args[0].requires_grad

                return hook

            handles = [m.register_forward_pre_hook(look(n)) for n, m in readers]
            output = self.model(x)
            for handle in handles:
                handle.remove()
            logits = output[0] if isinstance(output, tuple) else output
            loss = loss_of(output, y)
            loss.backward()
            watch.log(loss=loss)
            self.inputs.append(seen)
            self.learned.append(learned)
            self.logits.append(logits.detach().clone())
            self.before.append(self.copies())
            self.grads.append(
                {n: p.grad.double().clone() for n, p in self.named.items() if p.grad is not None}
            )
            self.rates.append({n: float(g["lr"]) for n, g in self.group.items()})
            self.optimizer.step()
            self.after.append(self.copies())
            self.momenta.append(
                {
                    n: m.double().clone()
                    for n, p in self.named.items()
                    for k in ("exp_avg", "momentum_buffer")
                    if (m := self.optimizer.state.get(p, {}).get(k)) is not None
                }
            )
            self.optimizer.zero_grad()

    def expected(self, invariant: tuple[str, ...], power: int) -> Table:
        out: Table = {}

        def put(name: str, step: int, value: Any) -> None:
            out.setdefault(name, {})[step] = float(value)

        for t in range(len(self.grads)):
            g, w, after = self.grads[t], self.before[t], self.after[t]
            put("grad/norm", t, math.sqrt(sum(float((v**2).sum()) for v in g.values())))
            put(
                "grad/zero_share",
                t,
                sum(int((v == 0).sum()) for v in g.values()) / sum(v.numel() for v in g.values()),
            )
            for n, v in g.items():
                put(f"grad/norm/{n}", t, v.norm())
                put(f"grad/zero_share/{n}", t, (v == 0).double().mean())
                if "eps" in self.group[n]:
                    put(f"grad/rms_to_epsilon/{n}", t, (v**2).mean().sqrt() / self.group[n]["eps"])
            if all("eps" in self.group[n] for n in g):
                put("grad/rms_to_epsilon", t, min(out[f"grad/rms_to_epsilon/{n}"][t] for n in g))
            if t:
                then = self.grads[t - 1]
                now, old = (torch.cat([v[n].reshape(-1) for n in g]) for v in (g, then))
                put("grad/cosine", t, now @ old / now.norm() / old.norm())
                put("grad/change", t, (now - old).norm() / old.norm())
                for n in g:
                    a, b = g[n].reshape(-1), then[n].reshape(-1)
                    put(f"grad/cosine/{n}", t, a @ b / a.norm() / b.norm())
                    put(f"grad/change/{n}", t, (a - b).norm() / b.norm())
            step = {n: after[n] - w[n] for n in w}
            norm = lambda tensors: math.sqrt(sum(float((v**2).sum()) for v in tensors.values()))  # noqa: E731
            put("update/norm", t, norm(step))
            put("weight/norm", t, norm(w))
            put("update/ratio", t, norm(step) / norm(w))
            put("weight/distance", t, norm({n: w[n] - self.start[n] for n in w}))
            for n in w:
                put(f"update/norm/{n}", t, step[n].norm())
                put(f"weight/norm/{n}", t, w[n].norm())
                put(f"update/ratio/{n}", t, step[n].norm() / w[n].norm())
                put(f"weight/distance/{n}", t, (w[n] - self.start[n]).norm())
            same = counted = 0
            for n, m in self.momenta[t].items():
                products = g[n].sign() * m.sign()
                same, counted = same + int((products > 0).sum()), counted + int((products != 0).sum())
                put(
                    f"momentum/sign_agreement/{n}",
                    t,
                    (products > 0).sum() / (products != 0).sum() if (products != 0).any() else math.nan,
                )
            if self.momenta[t]:
                put("momentum/sign_agreement", t, same / counted)
            for n in invariant:
                put(f"rate/effective/{n}", t, self.rates[t][n] / w[n].norm() ** power)
            self.activity(t, put)
            rows = self.logits[t].double().reshape(-1, self.logits[t].shape[-1])
            put("logits/largest", t, rows.max())
            put("logits/log_partition", t, rows.logsumexp(1).mean())
        return out

    def activity(self, t: int, put: Callable[[str, int, Any], None]) -> None:
        dormant = dead = units = 0
        for n, x in self.inputs[t].items():
            put(f"act/rms/{n}", t, (x**2).mean().sqrt())
            if not self.learned[t][n]:
                continue
            module = self.model.get_submodule(n)
            h = (
                x.reshape(-1, x.shape[-1])
                if isinstance(module, nn.Linear)
                else x.transpose(0, 1).flatten(1).T
            )
            size = [float(h[:, i].abs().mean()) for i in range(h.shape[1])]
            mean = sum(size) / len(size)
            asleep = sum(s <= 0.1 * mean for s in size)
            gone = sum(s == 0 for s in size)
            dormant, dead, units = dormant + asleep, dead + gone, units + len(size)
            put(f"units/dormant/{n}", t, asleep / len(size))
            put(f"units/dead/{n}", t, gone / len(size))
        if units:
            put("units/dormant", t, dormant / units)
            put("units/dead", t, dead / units)


LOOP = ("loss", "lr", "time/", "samples", "throughput/", "hyper/", "memory/", "logits/collapsed", "amp/")


def compare(run: Run, expected: Table) -> None:
    assert troubles(run) == []
    found = {n for n in run.names() if not n.startswith(LOOP)}
    assert found == set(expected)
    for name, values in expected.items():
        seen = steps_of(run, name)
        if name.startswith("grad/norm/"):
            values = {s: v for s, v in values.items() if s in seen}
            assert 0 in seen
        assert sorted(seen) == sorted(values), name
        loose = 1e-6 if name.startswith(("grad/cosine", "grad/change")) else 1e-12
        np.testing.assert_allclose(
            [seen[s] for s in values], list(values.values()), rtol=1e-5, atol=loose, err_msg=name
        )


CASES: dict[str, tuple[Any, Any, Any, tuple[str, ...], int]] = {
    "mlp, SGD": (mlp, vectors, lambda m: sgd(m), ("0.weight",), 2),
    "mlp, Nesterov": (
        mlp,
        vectors,
        lambda m: sgd(m, momentum=0.9, nesterov=True, weight_decay=0.01),
        ("0.weight",),
        2,
    ),
    "mlp, AdamW in two groups": (
        mlp,
        vectors,
        lambda m: torch.optim.AdamW(
            [
                {"params": m[0].parameters(), "lr": 3e-2},
                {"params": [*m[1].parameters(), *m[3].parameters()]},
            ],
            lr=1e-2,
        ),
        ("0.weight",),
        1,
    ),
    "cnn, fused AdamW": (
        cnn,
        images,
        lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2, fused=True),
        ("0.weight", "3.weight"),
        1,
    ),
    "cnn, channels last": (
        lambda: cnn().to(memory_format=torch.channels_last),
        lambda n: [(x.contiguous(memory_format=torch.channels_last), y) for x, y in images(n)],
        lambda m: sgd(m, momentum=0.9),
        ("0.weight", "3.weight"),
        2,
    ),
    "transformer, Adam": (
        Transformer,
        sequences,
        lambda m: torch.optim.Adam(m.parameters(), lr=1e-2, foreach=False),
        (),
        1,
    ),
    "mlp, float64": (
        lambda: mlp().double(),
        lambda n: [(x.double(), y) for x, y in vectors(n)],
        lambda m: sgd(m, momentum=0.5),
        ("0.weight",),
        2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_signal_is_what_its_definition_says(case: str) -> None:
    make, batches, optimizer_of, invariant, power = CASES[case]
    torch.manual_seed(1)
    model = make()
    optimizer = optimizer_of(model)
    oracle = Oracle(model, optimizer)
    watch = tw.watch(model, optimizer, cadence=1)
    oracle.train(batches(5), watch)
    compare(record_of(watch), oracle.expected(invariant, power))


def test_gradient_change_is_of_the_gradient_before_nesterov_overwrites_it() -> None:
    """At a longer cadence nobody has asked for the earlier gradient by the time the optimizer changes it."""
    torch.manual_seed(1)
    model = mlp()
    optimizer = sgd(model, momentum=0.9, nesterov=True, foreach=True)
    oracle = Oracle(model, optimizer)
    watch = tw.watch(model, optimizer, cadence=5, probes="gradient-change")
    oracle.train(vectors(12), watch)
    run, expected = record_of(watch), oracle.expected((), 2)
    seen = steps_of(run, "grad/cosine")
    assert set(seen) >= {5, 10}
    for step, value in seen.items():
        assert value == pytest.approx(expected["grad/cosine"][step], abs=1e-5)


def test_a_sample_of_coordinates_estimates_the_whole() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(10, 3000), nn.ReLU(), nn.Linear(3000, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    oracle = Oracle(model, optimizer)
    watch = tw.watch(model, optimizer, cadence=1)
    oracle.train(vectors(4), watch)
    run, expected = record_of(watch), oracle.expected((), 1)
    for name, tolerance in (("weight/distance", 0.05), ("momentum/sign_agreement", 0.03)):
        for step, value in steps_of(run, name).items():
            assert value == pytest.approx(expected[name][step], rel=tolerance, abs=1e-12)
    for step, value in steps_of(run, "grad/cosine").items():
        assert value == pytest.approx(expected["grad/cosine"][step], abs=0.06)
    assert run["weight/distance"].spec.estimator


def test_mixed_types_keep_their_precision() -> None:
    """A float64 parameter beside float32 ones, moved by a hundred-millionth of its size."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    optimizer = sgd(model, lr=1.0, foreach=False)
    watch = tw.watch(model, optimizer, cadence=1, probes="distance-from-start")
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.full_like(p, 1e-8)
        optimizer.step()
    assert steps_of(record_of(watch), "weight/distance/1.weight")[1] == pytest.approx(2e-8, rel=1e-5)


def test_updates_in_turns_are_joined_into_a_total() -> None:
    """Where copies of all parameters exceed the memory, each turn measures its own parameters."""
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(60, 60) for _ in range(6)))
    optimizer = sgd(model, lr=0.01)
    watch = tw.watch(model, optimizer, cadence=1, memory=1 << 16, probes="applied-update")
    truth: list[dict[str, float]] = []
    for _ in range(12):
        old = {n: p.detach().clone() for n, p in model.named_parameters()}
        model(torch.randn(4, 60)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        truth.append({n: float((p.detach() - old[n]).double().norm()) for n, p in model.named_parameters()})
    run = record_of(watch)
    assert troubles(run) == []
    names = run.names("update/norm/*")
    assert len(names) == 12
    for name in names:
        series = steps_of(run, name)
        assert 1 <= len(series) < 12
        for step, value in series.items():
            assert value == pytest.approx(truth[step][name.removeprefix("update/norm/")], rel=1e-5)
    assert np.isfinite(run["update/norm"].values).any()


# -- scale invariance ---------------------------------------------------------------------------------------


NORMALIZED: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "linear, batch norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), (5, 6)),
    "conv, batch norm": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)), (5, 2, 6, 6)),
    "conv, instance norm": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.InstanceNorm2d(8)), (5, 2, 6, 6)),
    "conv, group norm of one": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(8, 8)), (5, 2, 6, 6)),
    "conv, group norm of four": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8)), (5, 2, 6, 6)),
    "conv without bias, group norm of four": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.GroupNorm(2, 8)),
        (5, 2, 6, 6),
    ),
    "linear, layer norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)), (5, 6)),
    "linear without bias, layer norm": (
        lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.LayerNorm(8)),
        (5, 6),
    ),
    "linear, frozen batch norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8).eval()), (5, 6)),
    "linear, relu": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU()), (5, 6)),
    "grouped conv, batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3, groups=2), nn.BatchNorm2d(8)),
        (5, 2, 6, 6),
    ),
}


@pytest.mark.parametrize("case", NORMALIZED)
def test_effective_rates_are_of_weights_whose_scale_does_not_matter(case: str) -> None:
    """By the definition: the function is the same after the weight was multiplied by a thousand."""
    make, shape = NORMALIZED[case]
    torch.manual_seed(2)
    model = make().double()
    for p in model.parameters():
        nn.init.normal_(p)
    x = torch.randn(shape, dtype=torch.float64)
    for module in model:
        if hasattr(module, "eps"):
            module.eps = 1e-30
    plain = model(x)
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1, probes="effective-rate")
    with torch.no_grad():
        model[0].weight.mul_(1000.0)
    invariant = torch.allclose(model(x), plain, rtol=1e-6)
    with torch.no_grad():
        model[0].weight.div_(1000.0)
    model(x).sum().backward()
    optimizer.step()
    assert ("rate/effective/0.weight" in record_of(watch)) == invariant


def test_a_batch_norm_that_is_frozen_after_the_watch_began() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1, probes="effective-rate")
    model[1].eval()
    train(model, optimizer, vectors(2), watch)
    assert "rate/effective/0.weight" not in record_of(watch)


# -- hyper-parameters, memory, non-finite entries ----------------------------------------------------------


def test_hyper_parameters_are_read_at_the_step() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(
        [
            {"params": model[0].parameters(), "weight_decay": 0.5},
            {"params": [*model[1].parameters(), *model[3].parameters()], "betas": (0.8, 0.99)},
        ],
        lr=1e-2,
        eps=1e-6,
    )
    watch = tw.watch(model, optimizer, cadence=1, probes="hyper-parameters")

    def change() -> None:
        optimizer.param_groups[0]["weight_decay"] /= 2
        optimizer.param_groups[1]["lr"] += 1

    train(model, optimizer, vectors(3), watch, before_step=change)
    run = record_of(watch)
    assert list(steps_of(run, "hyper/weight_decay/group0").values()) == [0.25, 0.125, 0.0625]
    assert list(steps_of(run, "hyper/beta1/group1").values()) == pytest.approx([0.8] * 3)
    assert list(steps_of(run, "hyper/beta2/group0").values()) == pytest.approx([0.999] * 3)
    assert list(steps_of(run, "hyper/eps/group1").values()) == pytest.approx([1e-6] * 3)
    assert list(steps_of(run, "lr/group1").values()) == pytest.approx([1.01, 2.01, 3.01])
    assert list(steps_of(run, "lr").values()) == pytest.approx([0.01] * 3)


def test_a_rate_kept_as_a_tensor_is_read_by_value() -> None:
    model = mlp()
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, foreach=False)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(3), watch, before_step=lambda: optimizer.param_groups[0]["lr"].mul_(0.5))
    assert list(steps_of(record_of(watch), "lr").values()) == [0.25, 0.125, 0.0625]


def test_nonfinite_entries_are_counted_where_they_are() -> None:
    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    for step in range(3):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        if step == 1:
            model[0].weight.grad[0, :3] = float("nan")
            model[3].bias.grad[0] = float("-inf")
        optimizer.step()
    run = record_of(watch)
    assert steps_of(run, "grad/nonfinite") == {1: 4}
    assert steps_of(run, "grad/nonfinite/0.weight") == {1: 3}
    assert steps_of(run, "grad/nonfinite/3.bias") == {1: 1}
    assert steps_of(run, "grad/nonfinite/1.weight") == {1: 0}


def test_zero_share_of_sparse_gradients_counts_all_entries() -> None:
    model = nn.Embedding(10, 4, sparse=True)
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    model(torch.tensor([1, 1, 3])).sum().backward()
    optimizer.step()
    run = record_of(watch)
    assert steps_of(run, "grad/zero_share") == {0: pytest.approx(0.8)}
    assert steps_of(run, "grad/norm")[0] == pytest.approx(math.sqrt(4 * 4 + 4))


def test_peak_memory_is_in_bytes() -> None:
    import resource

    model = mlp()
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(2), watch)
    series = record_of(watch)["memory/peak"]
    assert series.spec.unit == "bytes"
    assert series.last == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, rel=0.05)


# -- logits -------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Gives the logits it holds, whatever comes in."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def logits_run(logits: Tensor) -> Run:
    model = Fixed(logits)
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1, probes="output-logits")
    model(torch.zeros(1)).float().sum().backward()
    optimizer.step()
    return record_of(watch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_collapsed_rows_are_those_of_the_working_type(dtype: torch.dtype) -> None:
    """A margin of 12 is lost in bfloat16, one of 20 in float32, and 30 is kept in float64 (near zero)."""
    rows = torch.tensor([[0.0, -2, -3], [5, -7, -8], [8.0, -12, -12], [2.0, -28, -28]]).to(dtype)
    partition = torch.logsumexp(rows.double(), 1)
    seen = steps_of(logits_run(rows), "logits/collapsed")[0]
    rounded = partition.to(dtype).double()
    assert seen == pytest.approx(float((rounded == rows.double().amax(1)).double().mean()))


def test_collapse_as_the_gradient_sees_it() -> None:
    """A row counts as collapsed exactly if the float32 cross-entropy of its largest class is 0."""
    torch.manual_seed(0)
    rows = torch.randn(200, 5) * 12
    losses = torch.nn.functional.cross_entropy(rows, rows.argmax(1), reduction="none")
    seen = steps_of(logits_run(rows), "logits/collapsed")[0]
    assert 0.05 < float((losses == 0).double().mean()) < 0.95
    assert seen == pytest.approx(float((losses == 0).double().mean()), abs=0.03)


def test_long_outputs_are_looked_at_in_evenly_spread_rows() -> None:
    from thalweg.watching.instruments.output_logits import ROWS

    n = 2 * ROWS - 1
    rows = torch.zeros(n, 3)
    rows[:, 0] = torch.arange(n)
    run = logits_run(rows.double())
    taken = rows[:: math.ceil(n / ROWS)].double()
    assert len(taken) <= ROWS
    assert run["logits/log_partition"].last == pytest.approx(float(taken.logsumexp(1).mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [((5, 3), True), ((2, 5, 3), True), ((5, 1), False), ((5,), False), ((2, 3, 4, 4), False)],
)
def test_which_outputs_count_as_logits(shape: tuple[int, ...], seen: bool) -> None:
    assert ("logits/largest" in logits_run(torch.randn(shape))) == seen


def test_logits_in_a_mapping_or_an_object() -> None:
    from types import SimpleNamespace

    from thalweg.watching.instruments.output_logits import find_logits

    rows = torch.randn(4, 3)
    assert find_logits({"loss": torch.tensor(1.0), "logits": rows}) is rows
    assert find_logits(SimpleNamespace(logits=rows)) is rows
    assert find_logits((rows, None)) is rows
    assert find_logits({"loss": torch.tensor(1.0)}) is None
    assert find_logits(()) is None
    assert find_logits(None) is None
    assert find_logits(torch.randint(0, 3, (4, 3))) is None


class Ends(nn.Module):
    """A Linear, and what its forward ends with."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.layer, self.end = nn.Linear(4, 6), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.layer(x))


ENDS: dict[str, tuple[Any, str]] = {
    "plain": (lambda z: z, ""),
    "reshaped and cast": (lambda z: z.view(-1, 3).double(), ""),
    "capped": (lambda z: 30 * torch.tanh(z / 30), ""),
    "log-probabilities": (lambda z: z.log_softmax(1), "logsoftmax"),
    "probabilities in a field of another name": (lambda z: (z.softmax(1), z), "softmax"),
    "pixels of an autoencoder": (lambda z: (z.sigmoid().view(-1, 2, 3), z, z), "sigmoid"),
    "named logits": (lambda z: {"logits": z.relu()}, ""),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_comes_out_of_a_squashing_function_is_no_logits(how: str) -> None:
    end, function = ENDS[how]
    model = Ends(end)
    optimizer = sgd(model)
    watch = tw.watch(model, optimizer, cadence=1, probes="output-logits")
    for _ in range(3):
        output = model(torch.randn(5, 4))
        first = (
            output["logits"]
            if isinstance(output, dict)
            else output[0]
            if isinstance(output, tuple)
            else output
        )
        first.square().mean().backward()
        optimizer.step()
    run = record_of(watch)
    assert troubles(run) == []
    assert ("logits/largest" in run) == (not function)
    said = [e.details for e in run.events("not recorded")]
    assert len(said) == bool(function)
    if function:
        assert said[0]["signals"] == ["logits/largest", "logits/log_partition", "logits/collapsed"]
        assert f"comes out of {function}," in said[0]["text"]


# -- units --------------------------------------------------------------------------------------------------


def test_dead_and_dormant_units_by_brute_force() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].bias[:2] = -100.0  # two dead
        model[0].weight[2] *= 1e-3  # one all but silent
        model[0].bias[2] = 0.0
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1)
    ((x, y),) = vectors(1)
    train(model, optimizer, [(x, y)], watch)
    run = record_of(watch)
    assert steps_of(run, "units/dead/2") == {0: pytest.approx(2 / 8)}
    h = torch.relu(x.double() @ model[0].weight.double().T + model[0].bias.double()).detach()
    score = h.abs().mean(0) / h.abs().mean()
    assert steps_of(run, "units/dormant/2")[0] == pytest.approx(float((score <= 0.1).double().mean()))
    assert float((score <= 0.1).sum()) >= 3
    assert "units/dead/0" not in run, "the network's input has no units"
    assert steps_of(run, "units/dead") == {0: pytest.approx(2 / 8)}


def test_a_layer_in_which_everything_is_zero_is_all_dead() -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].bias[:] = -100.0
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(1), watch)
    run = record_of(watch)
    assert steps_of(run, "units/dead/2") == {0: 1}
    assert steps_of(run, "units/dormant/2") == {0: 1}
    assert steps_of(run, "act/rms/2") == {0: 0}


def test_a_layer_used_twice_is_looked_at_once_and_an_unused_one_not_at_all() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.unused = nn.Linear(10, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            self.kept = h.detach()
            return self.again(self.again(h) * 100)

    model = Twice()
    optimizer = sgd(model, lr=0.0)
    watch = tw.watch(model, optimizer, cadence=1)
    train(model, optimizer, vectors(1), watch)
    run = record_of(watch)
    assert run.names("act/rms/*") == ["act/rms/again", "act/rms/first"]
    assert steps_of(run, "act/rms/again")[0] == pytest.approx(
        float(model.kept.square().mean().sqrt()), rel=1e-5
    )
