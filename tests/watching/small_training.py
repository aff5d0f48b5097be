"""Small networks, batches and loops that the tests of the watch share."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg as tw
from thalweg.record import Run

Batch = tuple[Tensor, Tensor]


def mlp() -> nn.Module:
    """Ten inputs, a BatchNorm, four classes."""
    return nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def cnn() -> nn.Module:
    """Images of 8 by 8, two normalizations, ReLU in place."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.GroupNorm(6, 6),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


class Transformer(nn.Module):
    """One block, tied embedding, sequences of at most 12 of 17 tokens; gives a tuple, the logits first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 8)
        self.place = nn.Parameter(torch.zeros(12, 8))
        self.norm = nn.LayerNorm(8)
        self.mixer = nn.Linear(8, 24, bias=False)
        self.out = nn.Linear(8, 8)
        self.feed = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        self.head = nn.Linear(8, 17, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(tokens) + self.place[: tokens.shape[1]]
        q, k, v = self.mixer(self.norm(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        x = x + self.feed(x)
        return self.head(x), x


def vectors(n: int, size: int = 12, seed: int = 0) -> list[Batch]:
    """Batches for `mlp`, with a ragged last one."""
    g = torch.Generator().manual_seed(seed)
    sizes = [size] * (n - 1) + [size - 5]
    return [(torch.randn(s, 10, generator=g), torch.randint(0, 4, (s,), generator=g)) for s in sizes]


def images(n: int, size: int = 6, seed: int = 0) -> list[Batch]:
    """Batches for `cnn`."""
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 1, 8, 8, generator=g), torch.randint(0, 4, (size,), generator=g)) for _ in range(n)
    ]


def sequences(n: int, size: int = 3, seed: int = 0) -> list[Batch]:
    """Batches for `Transformer`."""
    g = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(0, 17, (size, 13), generator=g) for _ in range(n)]
    return [(t[:, :-1], t[:, 1:]) for t in tokens]


def loss_of(output: Any, target: Tensor) -> Tensor:
    """Cross-entropy of logits, alone or first in a tuple."""
    logits = output[0] if isinstance(output, tuple) else output
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), target.reshape(-1))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    watch: Any = None,
    before_step: Callable[[], None] = lambda: None,
) -> list[float]:
    """The loop of the documentation; the losses."""
    losses = []
    for x, y in batches:
        loss = loss_of(model(x), y)
        loss.backward()
        losses.append(float(loss.detach()))
        if watch is not None:
            watch.log(loss=loss)
        before_step()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Plain SGD, unless told otherwise."""
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def record_of(watch: Any) -> Run:
    """Close the watch and read what it wrote."""
    watch.close()
    return tw.open_run(watch.path)


def troubles(run: Run) -> list[tuple[str, Any]]:
    """Events that say that something failed."""
    return [
        (e.kind, e.details)
        for e in run.events()
        if e.kind in ("failure", "switched off", "refused", "shape", "clock", "thinned", "dropped")
    ]


def steps_of(run: Run, name: str) -> dict[int, float]:
    """step -> value."""
    series = run[name]
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def entries(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Named parameters, each once."""
    yield from model.named_parameters()
