"""The loops of the demonstration: ordinary PyTorch, with the lines that watch them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thalweg import data
from thalweg.demo.networks import DigitNet, SmallGPT
from thalweg.watching import Watch, watch

Tell = Callable[[Watch, int, float, float], None]
"""Called after each step with the watch, the step, the loss and the rate."""


@dataclass(frozen=True)
class Lesson:
    """One training: its name, number of steps, examples a step, and the function that does it."""

    name: str
    title: str
    steps: int
    batch: int
    train: Callable[["Lesson", Path, Tell], Path]


def warm_up_then_cosine(step: int, total: int, warmup: int) -> float:
    """Share of the peak rate at a step: linear up, then half a cosine down to a tenth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def train_digits(lesson: Lesson, out: Path, tell: Tell) -> Path:
    """A small convolutional network on 4,000 of MNIST's digits, tested on 1,000 others."""
    torch.manual_seed(0)
    digits = data.mnist_5k()
    x, y = (torch.from_numpy(a) for a in (digits.x_train, digits.y_train))
    x_test, y_test = (torch.from_numpy(a) for a in (digits.x_test, digits.y_test))
    model = DigitNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def loss_of(indices: Tensor) -> Tensor:
        return F.cross_entropy(model(pixels(x[indices])), y[indices])

    def evaluate() -> dict[str, float]:
        logits = model(pixels(x_test))
        right = (logits.argmax(1) == y_test).float().mean()
        return {"eval/loss": F.cross_entropy(logits, y_test).item(), "eval/accuracy": right.item()}

    def share(step: int) -> float:
        return warm_up_then_cosine(step, lesson.steps, lesson.steps // 20)

    return _train(lesson, out, tell, model, optimizer, share, loss_of, evaluate, len(x), tokens=0)


def train_plays(lesson: Lesson, out: Path, tell: Tell) -> Path:
    """A small GPT on the characters of Shakespeare's plays, tested on the last tenth."""
    return _train_plays(
        lesson, out, tell, 2e-3, lambda s: warm_up_then_cosine(s, lesson.steps, lesson.steps // 20)
    )


def train_plays_wrongly(lesson: Lesson, out: Path, tell: Tell) -> Path:
    """The same with two mistakes: a rate 15 times as high without warm-up, and a block that the optimizer isn't given."""
    return _train_plays(lesson, out, tell, 3e-2, lambda s: 1.0, forgotten="blocks.1.")


def _train_plays(
    lesson: Lesson, out: Path, tell: Tell, peak: float, share: Callable[[int], float], forgotten: str = "\0"
) -> Path:
    torch.manual_seed(0)
    plays = data.shakespeare()
    codes = torch.from_numpy(plays.tokens().astype("int64"))
    length, held = 96, len(codes) // 10
    train, test = codes[:-held], codes[-held:]
    model = SmallGPT(len(plays.symbols), length=length)
    given = [p for name, p in model.named_parameters() if not name.startswith(forgotten)]
    optimizer = torch.optim.AdamW(given, lr=peak, weight_decay=0.1)

    def loss_at(source: Tensor, starts: Tensor) -> Tensor:
        text = torch.stack([source[s : s + length + 1] for s in starts.tolist()])
        logits = model(text[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())

    def evaluate() -> dict[str, float]:
        starts = torch.linspace(0, len(test) - length - 2, 64).long()
        return {"eval/loss": loss_at(test, starts).item()}

    def loss_of(starts: Tensor) -> Tensor:
        return loss_at(train, starts)

    last, tokens = len(train) - length - 1, lesson.batch * length
    return _train(lesson, out, tell, model, optimizer, share, loss_of, evaluate, last, tokens=tokens)


def pixels(images: Tensor) -> Tensor:
    """uint8 [n, 28, 28, 1] to float [n, 1, 28, 28] between -1 and 1."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _train(
    lesson: Lesson,
    out: Path,
    tell: Tell,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    share: Callable[[int], float],
    loss_of: Callable[[Tensor], Tensor],
    evaluate: Callable[[], dict[str, float]],
    examples: int,
    *,
    tokens: int,
) -> Path:
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    config = {"steps": lesson.steps, "batch": lesson.batch, "optimizer": type(optimizer).__name__}
    with watch(model, optimizer, out=out, name=lesson.name, config=config) as watched:
        for step in range(lesson.steps):
            loss = loss_of(torch.randint(examples, (lesson.batch,)))
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            watched.log(loss=loss, tokens=tokens or None)
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
            if (step + 1) % 100 == 0 or step + 1 == lesson.steps:
                model.eval()
                with torch.no_grad():
                    watched.log(evaluate())
                model.train()
            tell(watched, step + 1, loss.item(), float(rate.get_last_lr()[0]))
    return watched.path or out


LESSONS = (
    Lesson("digits-cnn", "CNN, digits", 800, 64, train_digits),
    Lesson("plays-gpt", "GPT, plays", 350, 16, train_plays),
    Lesson("wrong-gpt", "GPT, wrongly", 120, 16, train_plays_wrongly),
)
"""The last one goes wrong on purpose."""
