"""Small networks on real data that comes inside Python packages: each learns in a few seconds on one thread."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thalweg import data

Batch = tuple[Tensor, Tensor]
LENGTH = 24
"""Characters of one example of text."""

HELD = 400
"""Examples to evaluate on."""


class MLP(nn.Module):
    """Linear layers and one activation between them, on flattened images."""

    def __init__(
        self,
        inputs: int,
        width: int = 64,
        depth: int = 3,
        classes: int = 10,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        widths = [inputs, *[width] * (depth - 1), classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.acts = nn.ModuleList(activation() for _ in range(depth - 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ...] to [batch, classes]."""
        h = x.flatten(1)
        for layer, act in zip(self.layers, self.acts, strict=False):
            h = act(layer(h))
        logits: Tensor = self.layers[-1](h)
        return logits


class CNN(nn.Module):
    """Two convolutions with pooling and two Linear layers, on images of 14 x 14 pixels."""

    def __init__(self, norm: bool = True, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.act2 = nn.ReLU()
        self.hidden = nn.Linear(16 * 9, 32)
        self.act3 = nn.ReLU()
        self.out = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 14, 14] to [batch, classes]."""
        x = F.max_pool2d(self.act1(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(self.act2(self.norm2(self.conv2(x))), 2)
        logits: Tensor = self.out(self.act3(self.hidden(x.flatten(1))))
        return logits


class Block(nn.Module):
    """A transformer block with causal attention, normalized before its parts or after them."""

    def __init__(self, width: int, heads: int, post_norm: bool) -> None:
        super().__init__()
        self.heads, self.post_norm = heads, post_norm
        self.scale = (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        """Causal self-attention."""
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, t, c))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] to the same."""
        if self.post_norm:
            x = self.norm1(x + self.attend(x))
            out: Tensor = self.norm2(x + self.down(self.act(self.up(x))))
            return out
        x = x + self.attend(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))  # type: ignore[no-any-return]  # nn.Module's


class GPT(nn.Module):
    """A character-level GPT."""

    def __init__(
        self, symbols: int, width: int = 32, depth: int = 2, heads: int = 4, post_norm: bool = False
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(symbols, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads, post_norm) for _ in range(depth))
        self.norm = nn.Identity() if post_norm else nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length] of codes to [batch, symbols, length] of logits, as `cross_entropy` wants them."""
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h)).transpose(1, 2)  # type: ignore[no-any-return]  # nn.Module's


@dataclass
class Examples:
    """Inputs and targets, to train on and to evaluate on."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, places: Tensor) -> Batch:
        """The training examples at these places."""
        return self.x[places], self.y[places]

    def first(self, count: int) -> "Examples":
        """The same with fewer examples to train on."""
        return Examples(self.x[:count], self.y[:count], self.x_test, self.y_test)


def shuffled(examples: Examples, batch: int, seed: int) -> Iterator[Batch]:
    """Batches without end, in a new order each epoch, the ragged last one left out."""
    order = torch.Generator().manual_seed(seed)
    while True:
        for places in torch.randperm(len(examples), generator=order).split(batch):
            if len(places) == batch:
                yield examples.at(places)


@cache
def digits() -> Examples:
    """8 x 8 digits, scaled to about unit variance: 1,397 to train on, 400 of the same writers to evaluate on."""
    images = data.digits_8x8()
    pixels = torch.from_numpy(np.concatenate([images.x_train, images.x_test]))
    x = pixels.float().squeeze(-1).sub(5).div(6)
    y = torch.from_numpy(np.concatenate([images.y_train, images.y_test]))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[HELD:], order[:HELD]
    return Examples(x[train], y[train], x[test], y[test])


@cache
def mnist(size: int = 14) -> Examples:
    """MNIST's digits as [1, size, size], scaled to about unit variance: 4,000 to train on, 400 to evaluate on."""
    images = data.mnist_5k()

    def scaled(pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).float().div(255)
        return F.avg_pool2d(x, 28 // size).sub(0.13).div(0.3)

    x, x_test = (scaled(torch.from_numpy(a)) for a in (images.x_train, images.x_test[:HELD]))
    return Examples(x, torch.from_numpy(images.y_train), x_test, torch.from_numpy(images.y_test[:HELD]))


@cache
def plays() -> Examples:
    """Pieces of Shakespeare's plays, the next character for each: the first two thousand pages; a tenth is held out."""
    text = data.shakespeare()
    codes = torch.from_numpy(text.tokens()[:1_000_000].astype("int64"))
    pieces = codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    x, y, cut = pieces[:, :-1], pieces[:, 1:], len(pieces) * 9 // 10
    spread = torch.linspace(cut, len(pieces) - 1, 64).long()
    return Examples(x[:cut], y[:cut], x[spread], y[spread])


SYMBOLS = 84
"""Distinct characters of the plays."""


def examples_of(network: str) -> Examples:
    """What a kind of network learns from."""
    return {"mlp": digits, "mlpwide": mnist, "cnn": mnist, "cnnplain": mnist, "gpt": plays}[network]()


def model_of(network: str) -> nn.Module:
    """A fresh network of a kind: "mlp", "mlpwide", "cnn", "cnnplain" (without BatchNorm) or "gpt"."""
    if network in ("mlp", "mlpwide"):
        return MLP(64) if network == "mlp" else MLP(196, width=96)
    if network == "gpt":
        return GPT(SYMBOLS)
    return CNN(norm=network == "cnn")
