r"""The optimizer's hyper-parameters, one value a parameter group, as they are at the step.

Read by value at the step (a scheduler, a controller or the user may have changed them), also where they are
tensors. The learning rate is recorded at every step by the watch itself; here are the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, StepView, When

CARD = Card(
    name="hyper-parameters",
    kind="instrument",
    summary="Weight decay, momentum, betas and epsilon of each parameter group.",
    needs="an optimizer",
    cost="a few dictionary look-ups",
    signals=("hyper/*",),
)

_SCALARS = ("weight_decay", "momentum", "dampening", "eps", "alpha")


class HyperParameters:
    """Hyper-parameters of each group; group ``i`` is the layer ``group<i>``."""

    card = CARD
    needs = Needs(shortest=50)
    when = When.GRADIENT
    emits = (
        Emits(name="hyper/weight_decay", role="weight decay", per_layer=True, partial=True),
        Emits(name="hyper/momentum", role="momentum", per_layer=True, partial=True),
        Emits(name="hyper/beta1", role="momentum", per_layer=True, partial=True),
        *(
            Emits(name=f"hyper/{key}", per_layer=True, partial=True)
            for key in ("beta2", "dampening", "eps", "alpha")
        ),
    )

    def measure(self, view: StepView) -> Measured | None:
        """The values that the host can read without waiting; a tensor on an accelerator is left out."""
        if view.optimizer is None:
            return None
        groups = [_read(g) for g in view.optimizer.param_groups]
        keys = sorted(set().union(*groups))
        facts = {k: [g.get(k, float("nan")) for g in groups] for k in keys}
        return Measured({}, tuple(f"group{i}" for i in range(len(groups))), facts) if keys else None

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """As they are."""
        return {f"hyper/{key}/*": np.asarray(values) for key, values in facts.items()}


def _read(group: Mapping[str, object]) -> dict[str, float]:
    found = {k: v for k in _SCALARS if (v := _number(group.get(k))) is not None}
    betas = group.get("betas")
    if isinstance(betas, (tuple, list)):
        for i, beta in enumerate(betas[:2], start=1):
            if (value := _number(beta)) is not None:
                found[f"beta{i}"] = value
    return found


def _number(value: object) -> float | None:
    if isinstance(value, Tensor):
        return float(value) if value.device.type == "cpu" and value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
