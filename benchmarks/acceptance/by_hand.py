"""Every default signal of one run, recomputed in float64 by plain code that shares nothing with the watch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acceptance.cells import BATCH, MICRO_BATCHES
from acceptance.training import CLIP, Observer, Setup

Values = dict[str, dict[int, float]]
READERS = ("conv1", "conv2", "fc1", "fc2")
LOGITS = ("logits/largest", "logits/log_partition", "logits/collapsed", "units/dormant", "units/dead")
TAU = 0.1
OF_ALL_BATCHES: Mapping[str, Callable[[np.ndarray[Any, Any]], float]] = {
    "samples": lambda x: float(x.sum()),
    "act/rms/": lambda x: math.sqrt(float((x**2).mean())),
    "units/": lambda x: float(x.mean()),
    "logits/largest": lambda x: float(x.max()),
    "logits/": lambda x: float(x.mean()),
}
"""How signals of equal batches are those of all batches together."""


class ByHand(Observer):
    """Watches an unwatched run with copies and sums; `values` has name -> step -> value.

    A value of a try that was skipped stands at the step of the try that follows, which then replaces it.
    Gradients and parameters are whole, whatever a rank holds of them. What belongs to the batch (loss, activations,
    examples) is this rank's, until `take_all` takes in that of the others.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.values: Values = {}
        self.after_skip: set[int] = set()
        self._losses: dict[int, list[float]] = {}
        self._step = self._skips = self._examples = 0
        self._noise: list[tuple[float, float]] = []
        self._previous: dict[str, np.ndarray[Any, Any]] | None = None
        self._seen: dict[str, Tensor] | None = None
        self._first_micro: dict[str, np.ndarray[Any, Any]] | None = None
        self._initial = self._parameters()
        absent = [f"{q}/{m}" for m in READERS for q in ("act/rms", "units/dormant", "units/dead")]
        self.values |= {name: {} for name in (*absent, *LOGITS) if setup.cell.mode == "compiled"}
        if setup.cell.mode == "eager":
            for name, module in setup.network.named_modules():
                if name in READERS:
                    module.register_forward_pre_hook(lambda m, args, name=name: self._see(name, args[0]))

    def take_all(self, everyone: Sequence[Values]) -> None:
        """Batches of one size on all ranks: what is measured of them, of all of them together."""
        for name in self.values:
            how = next((h for start, h in OF_ALL_BATCHES.items() if name.startswith(start)), None)
            if how is not None:
                steps = self.values[name]
                self.values[name] = {s: how(np.array([v[name][s] for v in everyone])) for s in steps}

    # -- the moments ---------------------------------------------------------------------------------------

    def forward(self, micro: int) -> None:
        self._seen = {} if micro == 0 and self.setup.cell.mode == "eager" else None
        if self.setup.scaler is not None:
            self._put("amp/scale", self.setup.scaler.get_scale())
            self._put("amp/skipped", self._skips)

    def backward(self, micro: int, logits: Tensor, loss: Tensor) -> None:
        self._losses.setdefault(self._step, []).append(loss.item())
        self._put("loss", math.fsum(self._losses[self._step]) / len(self._losses[self._step]))
        self._examples += len(logits)
        if self._seen is not None:
            self._activity(self._seen)
            self._logits(logits)
            self._seen = None
        if micro == 0 and self.setup.cell.technique == "accumulation":
            self._first_micro = self._gradients(scaled=True)

    def clipped(self, total: Tensor) -> None:
        norm = float(getattr(total, "full_tensor", lambda: total)().double())
        self._put("grad/norm_raw", norm)
        self._put("grad/clipped", float(norm > CLIP[self.setup.cell.technique]))

    def gradient(self) -> None:
        self._grads = self._gradients(scaled=not self.setup.clips)
        self._before = self._parameters()

    def updated(self) -> None:
        grads, after = self._grads, self._parameters()
        bad = {n: int((~np.isfinite(g)).sum()) for n, g in grads.items()}
        if self.setup.cell.precision == "fp16" and any(bad.values()):
            if self.setup.cell.kernel == "fused":
                self._layers("grad/nonfinite", bad)
                self._put("grad/nonfinite", sum(bad.values()))
                self.after_skip.add(self._step)
            self._skips += 1
            self._first_micro = None
            return
        self._gradient_signals(grads)
        self._update_signals(after)
        self._settings()
        self._momentum(grads)
        self._noise_scale(grads)
        self._put("samples", self._examples)
        self._previous = grads
        self._step += 1

    # -- the signals ---------------------------------------------------------------------------------------

    def _gradient_signals(self, grads: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._total("grad/norm", {n: _squares(g) for n, g in grads.items()})
        zeros = {n: int((g == 0).sum()) for n, g in grads.items()}
        self._layers("grad/zero_share", {n: zeros[n] / g.size for n, g in grads.items()})
        self._put("grad/zero_share", sum(zeros.values()) / sum(g.size for g in grads.values()))
        if self._adam():
            size = {n: math.sqrt(_squares(g) / g.size) / 1e-8 for n, g in grads.items()}
            self._layers("grad/rms_to_epsilon", size)
            self._put("grad/rms_to_epsilon", min(size.values()))
        if self._previous is not None:
            before = self._previous
            for name in grads:
                self._put(f"grad/cosine/{name}", _cosine(grads[name], before[name]))
                self._put(f"grad/change/{name}", _change(grads[name], before[name]))
            now, then = (np.concatenate([g[n].ravel() for n in grads]) for g in (grads, before))
            self._put("grad/cosine", _cosine(now, then))
            self._put("grad/change", _change(now, then))

    def _update_signals(self, after: Mapping[str, np.ndarray[Any, Any]]) -> None:
        before = self._before
        updates = {n: _squares(after[n] - before[n]) for n in after}
        weights = {n: _squares(before[n]) for n in before}
        self._total("update/norm", updates)
        self._total("weight/norm", weights)
        self._layers("update/ratio", {n: _root_ratio(updates[n], weights[n]) for n in updates})
        self._put("update/ratio", _root_ratio(sum(updates.values()), sum(weights.values())))
        self._total("weight/distance", {n: _squares(before[n] - self._initial[n]) for n in before})
        norm = math.sqrt(weights["conv1.weight"])
        rate = self.setup.optimizer.param_groups[0]["lr"]
        self._put("rate/effective/conv1.weight", rate / norm if self._adam() else rate / norm**2)

    def _settings(self) -> None:
        groups = self.setup.optimizer.param_groups
        self._put("lr", groups[0]["lr"])
        for i, group in enumerate(groups):
            self._put(f"lr/group{i}", group["lr"])
            self._put(f"hyper/weight_decay/group{i}", group["weight_decay"])
            if self._adam():
                self._put(f"hyper/beta1/group{i}", 0.9)
                self._put(f"hyper/beta2/group{i}", 0.999)
                self._put(f"hyper/eps/group{i}", 1e-8)
            else:
                self._put(f"hyper/momentum/group{i}", 0.9)
                self._put(f"hyper/dampening/group{i}", 0.0)

    def _momentum(self, grads: Mapping[str, np.ndarray[Any, Any]]) -> None:
        key = "exp_avg" if self._adam() else "momentum_buffer"
        same = counted = 0
        for name, parameter in self.setup.network.named_parameters():
            momentum = _whole(self.setup.optimizer.state[parameter][key])
            product = np.sign(grads[name]) * np.sign(momentum)
            ours, all_of_them = int((product > 0).sum()), int((product != 0).sum())
            self._put(f"momentum/sign_agreement/{name}", ours / all_of_them if all_of_them else math.nan)
            same, counted = same + ours, counted + all_of_them
        self._put("momentum/sign_agreement", same / counted)

    def _noise_scale(self, grads: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """From means over batches; the constant 1 / micro-batches of the loss stays in trace and square."""
        if self._first_micro is None:
            return
        ranks, k = self.setup.cell.world, MICRO_BATCHES
        big_examples = k * BATCH * ranks
        examples = BATCH * (
            ranks if self.setup.cell.ranks == "fsdp2" else 1
        )  # DDP's no_sync: this rank's own
        small = sum(_squares(g) for g in self._first_micro.values())
        big = sum(_squares(g / k) for g in grads.values())
        squared = (big_examples * big - examples * small) / (big_examples - examples)
        trace = (small - big) / (1 / examples - 1 / big_examples)
        self._put("noise/trace", trace)
        self._put("noise/gradient_squared", squared)
        self._noise.append((trace, squared))
        weights = [0.95 ** (len(self._noise) - 1 - i) for i in range(len(self._noise))]
        s = sum(w * t for w, (t, _) in zip(weights, self._noise, strict=True))
        g = sum(w * q for w, (_, q) in zip(weights, self._noise, strict=True))
        self._put("noise/scale", s / g if g > 0 else math.inf)
        self._first_micro = None

    def _activity(self, seen: Mapping[str, Tensor]) -> None:
        units = dormant = dead = 0
        for name, x in seen.items():
            values = x.double().numpy()
            self._put(f"act/rms/{name}", math.sqrt(float((values**2).mean())))
            if name == "conv1":
                continue
            size = [abs(np.take(values, u, axis=1)).mean() for u in range(values.shape[1])]
            mean = sum(size) / len(size)
            asleep, silent = sum(s <= TAU * mean for s in size), sum(s == 0 for s in size)
            self._put(f"units/dormant/{name}", asleep / len(size))
            self._put(f"units/dead/{name}", silent / len(size))
            units, dormant, dead = units + len(size), dormant + asleep, dead + silent
        self._put("units/dormant", dormant / units)
        self._put("units/dead", dead / units)

    def _logits(self, logits: Tensor) -> None:
        rows = logits.detach().double().numpy()
        self._put("logits/largest", rows.max())
        partition = np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1)) + rows.max(1)
        self._put("logits/log_partition", partition.mean())
        stored = torch.from_numpy(np.exp(partition - rows.max(1))).to(logits.dtype)
        self._put("logits/collapsed", (stored == 1).double().mean().item())

    # -- helpers -------------------------------------------------------------------------------------------

    def _put(self, name: str, value: float) -> None:
        self.values.setdefault(name, {})[self._step] = float(value)

    def _layers(self, name: str, values: Mapping[str, float]) -> None:
        for layer, value in values.items():
            self._put(f"{name}/{layer}", value)

    def _total(self, name: str, squares: Mapping[str, float]) -> None:
        """Norms of each layer and of all together."""
        self._layers(name, {n: math.sqrt(s) for n, s in squares.items()})
        self._put(name, math.sqrt(math.fsum(squares.values())) if _finite(squares) else math.nan)

    def _adam(self) -> bool:
        return isinstance(self.setup.optimizer, torch.optim.AdamW)

    def _parameters(self) -> dict[str, np.ndarray[Any, Any]]:
        return {n: _whole(p) for n, p in self.setup.network.named_parameters()}

    def _gradients(self, *, scaled: bool) -> dict[str, np.ndarray[Any, Any]]:
        """The gradients without the loss scale, where that is still in them."""
        scaler = self.setup.scaler
        scale = scaler.get_scale() if scaler is not None and scaled else 1.0
        return {n: _whole(p.grad) / scale for n, p in self.setup.network.named_parameters()}

    def _see(self, name: str, x: Tensor) -> None:
        if self._seen is not None and name not in self._seen:
            self._seen[name] = x.detach().clone()


def _whole(tensor: Any) -> np.ndarray[Any, Any]:
    """A float64 copy of the whole tensor, also of one that is sharded (a collective)."""
    tensor = tensor.detach()
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return np.array(whole.double().numpy(), copy=True)


def _squares(values: np.ndarray[Any, Any]) -> float:
    return float((values.astype(np.float64) ** 2).sum())


def _finite(squares: Mapping[str, float]) -> bool:
    return all(math.isfinite(s) for s in squares.values())


def _root_ratio(above: float, below: float) -> float:
    if below == 0:
        return math.inf if above else math.nan
    return math.sqrt(above / below)


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    norms = math.sqrt(_squares(a) * _squares(b))
    return float((a * b).sum()) / norms if norms else math.nan


def _change(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    below = math.sqrt(_squares(b))
    return math.sqrt(_squares(a - b)) / below if below else math.nan
