r"""The output softmax: largest logit, log-partition, and rows that have collapsed.

.. math:: \log Z = \log \sum_c e^{z_c}, \qquad \text{collapsed: } \log \sum_c e^{z_c - \max_k z_k} = 0 \text{ in the working type}

A drifting log Z foretells the divergence of output logits (Wortsman et al., "Small-scale proxies for large-scale
Transformer training instabilities", 2023). In a collapsed row the cross-entropy of the largest class is exactly 0
and its gradient with it: learning stops without regularization (Prieto et al., "Grokking at the Edge of Numerical
Stability", 2025).

What counts as logits: in the model's output the field ``logits``; else the output itself, or the first of a tuple. It
is a floating tensor [rows, classes] or [batch, length, classes], and unless it bears the name, the autograd graph
must not say that it came out of a function whose values are no logits any more (`SQUASHES`: the pixels of an
autoencoder, probabilities, log-probabilities, whose log Z is 0); if so, nothing is recorded, and an event says why. The
outputs of a regression with two or more targets can't be told from logits: leave the instrument out there
(``probes=``). At most `ROWS` rows are looked at, evenly spread.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, NotSeenError, OfSums, StepView, When

CARD = Card(
    name="output-logits",
    kind="instrument",
    summary="Largest output logit, mean log-partition, share of softmax rows collapsed in the working type.",
    papers=(14, 220),
    formula="log Z = log sum_c exp(z_c);  collapsed: log sum_c exp(z_c - max_k z_k) = 0 in the working type",
    symbols={"z": "output logits of one row"},
    needs="eager mode; a model whose output is logits: called so, or no output of a sigmoid, softmax or the like",
    cost="one pass over at most 1,024 rows of the output",
    signals=("logits/largest", "logits/log_partition", "logits/collapsed"),
)

ROWS = 1024

SQUASHES = (
    "LogSoftmax",
    "Softmax",
    "Sigmoid",
    "LogSigmoid",
    "Tanh",
    "Relu",
    "Softplus",
    "Hardtanh",
    "Hardsigmoid",
    "Exp",
)
"""Functions, as autograd calls them, whose values are no logits: through a softmax nobody sends them again."""

_VIEWS = (
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Transpose",
    "T",
    "Permute",
    "Squeeze",
    "Unsqueeze",
    "ToCopy",
    "Clone",
)


class OutputLogits(OfSums):
    """Largest logit, log-partition and collapsed share of the model's output."""

    card = CARD
    needs = Needs(forward=True, shortest=5)
    when = When.FORWARD
    emits = (
        Emits(name="logits/largest", reduce="max"),
        Emits(name="logits/log_partition", formula="ratio", estimator="mean over rows"),
        Emits(name="logits/collapsed", formula="ratio"),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Look at the output when the forward ends."""
        examples = float(view.examples or 1)
        view.forward.at_end(lambda output: _look(output, examples))
        return None

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """Means over rows, weighted with the examples: other ranks have others."""
        n = facts["examples"]
        means = {f"logits/{k}": np.stack([n * raw[k], n], -1) for k in ("log_partition", "collapsed")}
        return {"logits/largest": raw["largest"], **means}


def find_logits(output: Any) -> Tensor | None:
    """The logits in a model's output; None if it has none.

    Raises:
        NotSeenError: what would be the logits came out of a function after which they are none.
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    found = (
        named if named is not None else output[0] if isinstance(output, (tuple, list)) and output else output
    )
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.dim() not in (2, 3):
        return None
    if found.shape[-1] < 2 or not found.numel():
        return None
    if named is None and (function := last_function(found)) in SQUASHES:
        raise NotSeenError(
            f"The model's output comes out of {function.lower()}, so that it is no logits. Where there are logits before "
            "it, return them from the forward, alone, first in a tuple, or in a field called logits."
        )
    return found


def last_function(output: Tensor) -> str:
    """Autograd's name of the function that made a tensor, looking through views and casts; "" without a graph.

    >>> last_function(torch.ones(2, 3, requires_grad=True).sigmoid().view(3, 2).double())
    'Sigmoid'
    """
    node: Any = output.grad_fn
    name = ""
    while node is not None:
        name = str(node.name()).partition("Backward")[0]
        if name not in _VIEWS or not node.next_functions:
            return name
        node = node.next_functions[0][0]
    return name


def _look(output: Any, examples: float) -> Measured | None:
    logits = find_logits(output)
    if logits is None:
        return None
    rows = logits.detach().reshape(-1, logits.shape[-1])
    rows = rows[:: -(-len(rows) // ROWS)]
    largest = rows.amax(1)
    margin = torch.logsumexp(
        rows - largest[:, None], 1
    )  # added to the maximum it would be rounded away too early
    exact = margin if rows.dtype is torch.float32 else torch.logsumexp(rows.float(), 1) - largest.float()
    return Measured(
        {
            "largest": largest.max(),
            "log_partition": (largest.float() + exact).mean(),
            "collapsed": (margin == 0).float().mean(),
        },
        (),
        {"examples": examples},
    )
