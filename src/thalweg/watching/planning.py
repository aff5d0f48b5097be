"""What a call of ``tw.watch`` asks for, checked and put in order before anything is attached."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thalweg.core.errors import UsageError
from thalweg.record.naming import SUFFIX, default_path
from thalweg.tensor.unwrapping import inner_optimizer
from thalweg.watching.contracts import HeldBatch, Instrument
from thalweg.watching.instruments import DEFAULT

SMALLEST_MEMORY = 64 << 20
"""Default bytes for copies: 64 MB, or 1 % of the parameters' bytes where that is more."""

RANKS = ("zero", "all")


@dataclass(frozen=True)
class Target:
    """One optimizer to watch (or none), with its model and the key of its signals."""

    key: str
    model: nn.Module
    optimizer: torch.optim.Optimizer | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a call of ``tw.watch`` asked for; the fields mean what its arguments mean.

    Attributes:
        instruments: of each target, in order of priority.
        rank: which of the files of the run this process writes; 0 where it is the only one.
        world: how many files there are.
        on: whether anything is recorded.
    """

    targets: Sequence[Target]
    instruments: Sequence[Sequence[Instrument]]
    out: str | os.PathLike[str] | None
    name: str | None
    config: Mapping[str, Any] | None
    tags: Sequence[str]
    scaler: Any
    budget: float
    memory: int | None
    cadence: str | int
    rank: int
    world: int
    resume: bool
    held: HeldBatch | None
    on: bool

    def without_targets(self) -> "Asked":
        """The same, holding no model and no optimizer."""
        return replace(self, targets=(), instruments=())


def targets_of(model: Any, optimizer: Any) -> list[Target]:
    """Pair models with optimizers.

    Raises:
        UsageError: something is no module or optimizer, keys don't match, or an optimizer has no hooks.
    """
    if isinstance(model, Mapping):
        given = optimizer if optimizer is not None else dict.fromkeys(model)
        if not isinstance(given, Mapping) or set(given) != set(model):
            raise UsageError(
                f"With several models, optimizers are a dictionary with the same keys: models have {sorted(model)}, "
                f"optimizers {sorted(given) if isinstance(given, Mapping) else type(given).__name__}."
            )
        return [t for key in model for t in _targets(f"{key}:", model[key], given[key])]
    return _targets("", model, optimizer)


def _targets(key: str, model: Any, optimizer: Any) -> list[Target]:
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"tw.watch takes an nn.Module (or a dictionary of them), not {type(model).__name__}."
        )
    if isinstance(optimizer, Mapping):
        return [Target(f"{key}{name}:", model, _usable(o)) for name, o in optimizer.items()]
    if isinstance(optimizer, (list, tuple)):
        return [Target(f"{key}{i}:", model, _usable(o)) for i, o in enumerate(optimizer)]
    return [Target(key, model, None if optimizer is None else _usable(optimizer))]


def _usable(optimizer: Any) -> torch.optim.Optimizer:
    inner = inner_optimizer(optimizer)
    if not hasattr(inner, "param_groups") or not callable(getattr(inner, "step", None)):
        raise UsageError(
            f"{type(optimizer).__name__} is no optimizer: it has no param_groups or no step. Pass optimizer=None and "
            "call watch.step() after each update."
        )
    patched = getattr(getattr(type(inner), "step", None), "hooked", None)
    if (
        not isinstance(inner, torch.optim.Optimizer)
        or not patched
        or not hasattr(inner, "_optimizer_step_pre_hooks")
    ):
        raise UsageError(
            f"{type(inner).__name__} never called torch.optim.Optimizer.__init__, so its steps can't be seen. Call "
            "super().__init__(params, defaults) in it, or pass optimizer=None and call watch.step() after each update."
        )
    return inner


def instruments_of(probes: str | Instrument | Iterable[Any]) -> list[Instrument]:
    """Fresh instruments for ``probes``: "cheap" (all defaults), "none", names, instrument objects, or a mixture.

    Raises:
        UsageError: a name that no instrument has.
    """
    defaults = [kind() for kind in DEFAULT]
    by_name = {i.card.name: i for i in defaults}
    chosen: list[Instrument] = []
    for probe in _listed(probes):
        if probe == "cheap":
            chosen += defaults
        elif isinstance(probe, str) and probe in by_name:
            chosen.append(by_name[probe])
        elif not isinstance(probe, str) and all(
            hasattr(probe, a) for a in ("card", "needs", "when", "emits", "measure")
        ):
            chosen.append(probe)
        elif probe != "none":
            raise UsageError(
                f"probes= has {probe!r}, which is neither a preset (cheap, none), nor an instrument "
                f"({', '.join(sorted(by_name))}), nor an object with card, needs, when, emits, measure and finish."
            )
    unique = {i.card.name: i for i in chosen}
    order = {name: n for n, name in enumerate(by_name)}
    return sorted(unique.values(), key=lambda i: order.get(i.card.name, len(order)))


def _listed(probes: str | Instrument | Iterable[Any]) -> list[Any]:
    if isinstance(probes, str) or not isinstance(probes, Iterable):
        return [probes]
    return list(probes)


def check_budget(budget: float, memory: int | None, cadence: str | int, ranks: str) -> None:
    """Raise `UsageError` for values that can't be used."""
    if not 0 <= budget <= 1:
        raise UsageError(
            f"budget= is a share of the step's time between 0 and 1 (0.03 is 3 %), not {budget!r}."
        )
    if memory is not None and memory < 1 << 16:
        raise UsageError(f"memory= is in bytes and at least 65,536, not {memory!r}.")
    if cadence not in ("auto", "fixed") and not (isinstance(cadence, int) and cadence >= 1):
        raise UsageError(f'cadence= is "auto", "fixed" or a number of steps, not {cadence!r}.')
    if ranks not in RANKS:
        raise UsageError(f"ranks= is one of {', '.join(RANKS)}, not {ranks!r}.")


def memory_for(model: nn.Module) -> int:
    """The default bound on copies."""
    return max(SMALLEST_MEMORY, sum(p.numel() * p.element_size() for p in model.parameters()) // 100)


def path_of(out: str | os.PathLike[str] | None) -> Path:
    """Where the run file goes: ``out`` with the suffix ``.tw``, by default a fresh name in ``runs/``."""
    if out is None:
        return default_path(Path("runs")).absolute()
    path = Path(out)
    if path.is_dir():
        return default_path(path).absolute()
    return (path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)).absolute()


def reserved_names(asked: Asked) -> frozenset[str]:
    """Names, and prefixes that end in a slash, that belong to the watch; the user's own go to ``user/``."""
    own = {
        "time/step",
        "samples",
        "throughput/examples",
        "throughput/tokens",
        "amp/scale",
        "amp/skipped",
        "grad/norm_raw",
        "grad/clipped",
    }
    if any(target.optimizer is not None for target in asked.targets):
        own |= {"lr", *(f"lr/group{i}" for i in range(64))}
    emits = [e for chosen in asked.instruments for i in chosen for e in i.emits]
    return frozenset(own | {e.name + "/" * e.per_layer for e in emits} | {e.name for e in emits})
