r"""Activity of units: size of activations, dormant and dead units of each layer.

.. math:: s_i = \frac{\mathbb{E}_x |h_i(x)|}{\frac1H \sum_k \mathbb{E}_x |h_k(x)|}, \qquad
          \text{dormant: } s_i \le \tau, \qquad \text{dead: } \mathbb{E}_x |h_i(x)| = 0

The score is that of Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning" (2023), with their
threshold tau = 0.1 for runs that go on learning; dead is the strict case. A unit is an *input* of the Linear (also
the transposed one of Hugging Face's GPT-2) or convolution that reads it (one channel for a convolution), so that whatever activation function stands before is
counted, in place or not. The network's own input has no units. Expectations are over the present training batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, OfSums, StepView, When, each_and_whole

CARD = Card(
    name="unit-activity",
    kind="instrument",
    summary="Root-mean-square activation, share of dormant and of dead units, per layer that reads them.",
    papers=(183,),
    formula="s_i = E|h_i| / mean_k E|h_k|;  dormant: s_i <= tau;  dead: E|h_i| = 0",
    symbols={"h_i": "activation of unit i", "tau": "0.1"},
    needs="eager mode and a forward through the watched model",
    cost="two passes over the inputs of each Linear and convolution",
    options={"tau": "threshold of dormancy, 0.1: the paper's for training that goes on"},
    signals=("act/rms/*", "units/dormant", "units/dormant/*", "units/dead", "units/dead/*"),
)

TAU = 0.1
_READERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class UnitActivity(OfSums):
    """Activation size, dormant and dead units, by hooks that live for one forward."""

    card = CARD
    needs = Needs(forward=True, shortest=50)
    when = When.FORWARD
    emits = (
        Emits(name="act/rms", role="activation", formula="root ratio", per_layer=True),
        Emits(name="units/dormant", formula="ratio", estimator="one batch"),
        Emits(name="units/dead", formula="ratio", estimator="one batch"),
        Emits(name="units/dormant", formula="ratio", estimator="one batch", per_layer=True, partial=True),
        Emits(name="units/dead", formula="ratio", estimator="one batch", per_layer=True, partial=True),
    )

    def __init__(self, tau: float = TAU) -> None:
        self.tau = tau

    def measure(self, view: StepView) -> Measured | None:
        """Put a look before every reader of this forward; hand over what they saw at its end."""
        seen: dict[str, tuple[Tensor, Tensor, Tensor, int]] = {}
        scope = view.forward
        for name, module in scope.modules():
            if isinstance(module, _READERS) or _is_linear_of_transformers(module):
                scope.before(module, _Look(name, module, seen, self.tau))
        examples = float(view.examples or 1)
        scope.at_end(lambda output: _measured(seen, examples))
        return None

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Mean squares and units per layer and of all together, weighted with the examples: other ranks have others."""
        n, units = facts["examples"][:, None], facts["units"]
        out = {"act/rms/*": np.stack(np.broadcast_arrays(n * raw["mean_square"], n), -1)}
        if units.any():
            for kind in ("dormant", "dead"):
                out |= each_and_whole(f"units/{kind}", n * raw[kind] * (units > 0), n * units)
        return out


class _Look:
    """What happens before one reader's forward: two reductions over its input."""

    def __init__(
        self, name: str, module: nn.Module, seen: dict[str, tuple[Tensor, Tensor, Tensor, int]], tau: float
    ) -> None:
        self.name, self.seen, self.tau = name, seen, tau
        kernel: tuple[int, ...] = getattr(module, "kernel_size", ())  # that of a convolution
        self.dimension = -len(kernel) - 1

    def __call__(self, module: nn.Module, args: Sequence[Any]) -> None:
        if (
            self.name in self.seen
            or not args
            or not isinstance(args[0], Tensor)
            or not args[0].is_floating_point()
        ):
            return
        x = args[0].detach()
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        around = [d for d in range(x.dim()) if d != x.dim() + self.dimension]
        size = torch.linalg.vector_norm(x, 1, dim=around) if around else x.abs()
        square = torch.linalg.vector_norm(x).square() / max(1, x.numel())
        units = size.numel() if args[0].requires_grad else 0
        dormant = (size <= self.tau * size.mean()).sum()
        self.seen[self.name] = (square, dormant, (size == 0).sum(), units)


def _is_linear_of_transformers(module: nn.Module) -> bool:
    """Whether it is the Linear with a transposed weight that Hugging Face's GPT-2 is made of, which they call Conv1D."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def _measured(seen: Mapping[str, tuple[Tensor, Tensor, Tensor, int]], examples: float) -> Measured | None:
    if not seen:
        return None
    squares, dormant, dead, units = zip(*seen.values(), strict=True)
    values = {
        "mean_square": torch.stack(squares),
        "dormant": torch.stack(dormant),
        "dead": torch.stack(dead),
    }
    return Measured(values, tuple(seen), {"units": [float(u) for u in units], "examples": examples})
