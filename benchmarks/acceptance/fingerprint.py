"""Everything that must be the same after a watched run as after an unwatched one, as digests to compare."""

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def digest(value: Any) -> str:
    """A short hash of a tensor's bits (this rank's shard), or of a value's text."""
    if isinstance(value, Tensor):
        value = getattr(value, "_local_tensor", value).detach().cpu().contiguous()
        head = f"{value.dtype}{tuple(value.shape)}".encode()
        return hashlib.sha256(head + value.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()[:16]
    return repr(value)


def gradients(network: nn.Module) -> str:
    """One hash of all gradients; a missing one counts as such."""
    return "/".join("none" if p.grad is None else digest(p.grad) for p in network.parameters())


def fingerprint(network: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any = None) -> dict[str, str]:
    """Name -> digest: weights, buffers, gradients, optimizer state and groups, modes, random states, flags."""
    found: dict[str, Any] = {}
    for name, parameter in network.named_parameters():
        found[f"weight {name}"] = parameter
        found[f"grad {name}"] = parameter.grad
        found[f"requires_grad {name}"] = parameter.requires_grad
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer state {key} of {name}"] = value
    found |= {f"buffer {name}": buffer for name, buffer in network.named_buffers()}
    found |= {f"mode {name}": module.training for name, module in network.named_modules()}
    for i, group in enumerate(optimizer.param_groups):
        found |= {f"group {i} {k}": v for k, v in group.items() if k != "params"}
    found["optimizer state count"] = len(optimizer.state)
    found |= {f"optimizer attribute {a}": hasattr(optimizer, a) for a in ("grad_scale", "found_inf")}
    if scaler is not None:
        found |= {f"scaler {k}": v for k, v in scaler.state_dict().items()}
    return {name: digest(value) for name, value in (found | randomness() | flags()).items()}


def hooks(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """How many hooks hang on each module and on the optimizer."""
    tables = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = {f"{name} {t}": len(getattr(m, t)) for name, m in network.named_modules() for t in tables}
    return found | {
        "step pre": len(optimizer._optimizer_step_pre_hooks),
        "step post": len(optimizer._optimizer_step_post_hooks),
    }


def randomness() -> dict[str, Any]:
    """The random states."""
    kind, keys, *rest = np.random.get_state()
    return {
        "random state of python": hashlib.sha256(repr(random.getstate()).encode()).hexdigest()[:16],
        "random state of numpy": (kind, digest(keys), *rest),
        "random state of torch": torch.get_rng_state(),
    }


def flags() -> dict[str, Any]:
    """Settings of torch and of the process that code may turn without saying so."""
    backends = torch.backends
    return {
        "flag deterministic": torch.are_deterministic_algorithms_enabled(),
        "flag matmul precision": torch.get_float32_matmul_precision(),
        "flag default dtype": torch.get_default_dtype(),
        "flag default device": torch.get_default_device(),
        "flag threads": torch.get_num_threads(),
        "flag grad": torch.is_grad_enabled(),
        "flag autocast": torch.is_autocast_enabled("cpu"),
        "flag anomaly": torch.is_anomaly_enabled(),
        "flag cudnn": (backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic),
        "flag tf32": (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32),
        "flag mkldnn": backends.mkldnn.enabled,
        "flag nnpack": backends.nnpack.enabled() if hasattr(backends.nnpack, "enabled") else None,
        "folder": Path.cwd(),
        "numpy errors": np.geterr(),
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in both."""
    return sorted(k for k in one.keys() | other.keys() if one.get(k, "absent") != other.get(k, "absent"))
