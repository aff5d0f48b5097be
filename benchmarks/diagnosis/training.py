"""An ordinary training loop, watched, with a place for each mistake that a person can make in it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg as tw
from benchmarks.diagnosis.networks import Batch, Examples, examples_of, model_of, shuffled
from thalweg.watching import Watch

RATES = {
    ("mlp", "sgd"): 0.1,
    ("mlp", "momentum"): 0.02,
    ("mlp", "adam"): 2e-3,
    ("mlp", "adamw"): 2e-3,
    ("cnn", "sgd"): 0.1,
    ("cnn", "momentum"): 0.02,
    ("cnn", "adam"): 4e-3,
    ("cnn", "adamw"): 4e-3,
    ("gpt", "sgd"): 0.5,
    ("gpt", "momentum"): 0.1,
    ("gpt", "adam"): 3e-3,
    ("gpt", "adamw"): 3e-3,
}
"""Rates that work: what somebody would choose who has trained such a network before."""

BATCHES = {"mlp": 32, "cnn": 32, "gpt": 12}
EVERY_TENTH = {"cadence": 10}
"""How runs are watched: every instrument at every tenth step. A run of a few hundred steps then holds as many
measurements as one of some thousand steps does by default, and the same ones however busy the machine is."""

CLOSELY = {"budget": 0.3}
"""... and where single steps matter: norms at every step, the cadence chosen by what it costs."""


@dataclass
class Training:
    """One training: sensible unless somebody spoils it.

    Attributes:
        network: see `model_of`.
        optimizer: "sgd", "momentum", "adam" or "adamw".
        seed: of weights and order.
        steps: updates.
        batch: examples of a batch.
        rate: peak learning rate.
        warmup: steps of linear warm-up.
        schedule: step -> share of the peak rate, after warm-up; by default a cosine to a hundredth.
        scheduler_steps: how often the scheduler steps after an update.
        options: of the optimizer.
        clip: bound on the gradient norm; None for no clipping.
        accumulate: micro-batches of an update.
        averaged: whether their losses are divided by their number.
        zeroed: whether gradients are zeroed after an update.
        stateful: whether a resumed run loads the states of optimizer and scheduler.
        resume_at: step at which the run is stopped and resumed; None for never.
        scaler: a GradScaler for float16.
        autocast: the context of the forward.
        trainable: the parameters given to the optimizer; by default all.
        criterion: (logits, targets) -> loss.
        before: called before each step with its number.
        extra: what the loop logs beside the loss: step -> numbers.
        evaluate_every: steps between evaluations; 0 for never.
        measure: model -> what the loop logs of an evaluation; by default loss and accuracy.
        said: settings that the user wrote into config=.
        watching: further arguments of `tw.watch`.
    """

    network: str
    optimizer: str
    seed: int
    steps: int = 400
    batch: int = 0
    rate: float = 0.0
    warmup: int = 20
    schedule: Callable[[int], float] | None = None
    scheduler_steps: Callable[[int], int] = lambda step: 1
    options: dict[str, Any] = field(default_factory=dict)
    clip: float | None = None
    accumulate: int = 1
    averaged: bool = True
    zeroed: bool = True
    stateful: bool = True
    resume_at: int | None = None
    scaler: Any = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    trainable: Callable[[nn.Module], Any] = lambda model: model.parameters()
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    before: Callable[[int], None] = lambda step: None
    extra: Callable[[int], dict[str, float]] = lambda step: {}
    evaluate_every: int = 25
    measure: Callable[[nn.Module], dict[str, float]] | None = None
    said: dict[str, Any] = field(default_factory=dict)
    watching: dict[str, Any] = field(default_factory=lambda: EVERY_TENTH)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        kind = self.network[:3]
        self.batch = self.batch or BATCHES[kind]
        self.rate = self.rate or RATES[kind, self.optimizer]
        self.model = model_of(self.network)
        self.examples: Examples = examples_of(self.network)
        self.batches: Callable[[int], Iterator[Batch]] = lambda step: shuffled(
            self.examples, self.batch, self.seed + 1000 * step
        )

    def share(self, step: int) -> float:
        """Share of the peak rate at a step: what `LambdaLR` calls."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return (self.schedule or self.cosine)(step)

    def cosine(self, step: int, floor: float = 0.01) -> float:
        """Half a cosine from one to ``floor`` at the last step."""
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))

    def make_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """The optimizer over the parameters that it is given, and its scheduler."""
        given = [p for p in self.trainable(self.model) if p.requires_grad]
        options = {"lr": self.rate} | self.options
        if self.optimizer == "momentum":
            options["momentum"] = 0.9
        kinds = {"sgd": torch.optim.SGD, "momentum": torch.optim.SGD, "adam": torch.optim.Adam}
        optimizer: Any = kinds.get(self.optimizer, torch.optim.AdamW)(given, **options)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self.share)

    @property
    def config(self) -> dict[str, Any]:
        """What the user wrote down of the run."""
        usual = {
            "network": self.network,
            "optimizer": self.optimizer,
            "lr": self.rate,
            "batch_size": self.batch,
            "steps": self.steps,
            "warmup_steps": self.warmup,
            "seed": self.seed,
        }
        if self.accumulate > 1:
            usual["gradient_accumulation_steps"] = self.accumulate
        return usual | self.said

    def run(self, out: Path) -> Path:
        """Train, watched, into a run file; a resumed run has two segments."""
        torch.set_num_threads(1)
        torch.manual_seed(self.seed)
        optimizer, rate = self.make_optimizer()
        first, state = 0, None
        for last in (self.resume_at, self.steps):
            if last is None:
                continue
            watch = tw.watch(
                self.model,
                optimizer,
                out=out,
                config=self.config,
                scaler=self.scaler,
                resume=state is not None,
                **self.watching,
            )
            if state is not None:
                watch.load_state_dict(state)
            self._steps(first, last, optimizer, rate, watch)
            first, state = last, watch.state_dict()
            watch.close()
            if last == self.resume_at and not self.stateful:
                optimizer, rate = self.make_optimizer()
        return out

    def _steps(self, first: int, last: int, optimizer: Any, rate: Any, watch: Watch) -> None:
        batches = self.batches(first)
        for step in range(first, last):
            self.before(step)
            for _ in range(self.accumulate):
                self._forward_backward(*next(batches), watch)
            self._update(optimizer, watch)
            if extra := self.extra(step):
                watch.log(extra)
            for _ in range(self.scheduler_steps(step)):
                rate.step()
            if self.evaluate_every and ((step + 1) % self.evaluate_every == 0 or step + 1 == self.steps):
                watch.log((self.measure or self.evaluate)(self.model))

    def _forward_backward(self, x: Tensor, y: Tensor, watch: Watch) -> None:
        with self.autocast():
            logits = self.model(x)
            loss = self.criterion(logits, y)
        part = loss / self.accumulate if self.averaged else loss
        (part if self.scaler is None else self.scaler.scale(part)).backward()
        watch.log(loss=loss)

    def _update(self, optimizer: Any, watch: Watch) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if self.clip is not None:
            watch.clip_grad_norm_(self.clip)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        if self.zeroed:
            optimizer.zero_grad()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss on the examples held out, and accuracy where they have a class."""
        model.eval()
        with torch.no_grad():
            logits = model(self.examples.x_test)
            out = {"eval/loss": F.cross_entropy(logits, self.examples.y_test).item()}
            if logits.dim() == 2:
                out["eval/accuracy"] = (logits.argmax(1) == self.examples.y_test).float().mean().item()
        model.train()
        return out
