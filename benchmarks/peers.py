"""The loops that take turns in the benchmark of `tw.watch`: a plain one, and those of other monitors.

Each arm has a model and an optimizer of its own, built from the same seed, and its step is written out as a user of
that tool writes it. A tool that is not installed, or that can't take the model, raises; the benchmark then lists it
with the reason.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        name: short name.
        title: what it is, in words.
        build: makes the model, the same one at each call.
        batches: (inputs, targets), taken in turn.
        block: steps that an arm makes at its turn.
        rounds: turns that are counted; with ``block``, five whole cadence cycles of 200 steps or more.
        every: steps within which per-layer gradient norms must have been measured.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    batches: Sequence[tuple[Tensor, Tensor]]
    block: int
    rounds: int
    every: int


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


class Arm(ABC):
    """One way of training: the loop's body, and what is still to be done when its turn ends."""

    name: str
    covers: str

    def __init__(self, job: Job, folder: Path) -> None:
        torch.manual_seed(0)
        self.model = job.build()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)
        self.steps = 0

    @abstractmethod
    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of the loop."""

    def resume(self) -> None:  # noqa: B027  # most arms have nothing to do at a turn or at the end
        """Its turn begins."""

    def worked(self, seconds: float) -> None:  # noqa: B027
        """Its turn, of so many seconds, ends."""

    def threads(self) -> list[int]:
        """The system's numbers of the threads that work for it in the background."""
        return []

    def close(self) -> None:  # noqa: B027
        """All turns are over."""


class Plain(Arm):
    name = "plain"
    covers = "nothing: the loop alone"

    def step(self, x: Tensor, y: Tensor) -> None:
        loss = cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class PlainAgain(Plain):
    name = "plain, another copy"
    covers = (
        "nothing: the same once more; ratios are to the mean of both, and how far the two differ is the noise"
    )


class Histograms(Arm):
    """Our own small version of what ``wandb.watch(log="gradients")`` does at a step that it logs."""

    name = "histograms, every step"
    covers = (
        "a 64-bin histogram of each parameter's gradient, by hooks on the parameters; our own re-implementation in "
        "the style of wandb.watch, without sending or writing anything"
    )

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job, folder)
        self.seen: dict[str, tuple[list[float], float, float]] = {}
        for name, parameter in self.model.named_parameters():
            parameter.register_hook(lambda grad, name=name: self._look(name, grad))

    def _look(self, name: str, grad: Tensor) -> None:
        flat = grad.detach().reshape(-1)
        flat = flat[torch.isfinite(flat)]
        low, high = flat.min().item(), flat.max().item()
        self.seen[name] = (torch.histc(flat, 64, low, high).tolist(), low, high)

    step = Plain.step


class Traintools(Arm):
    name = "traintools gradient health"
    covers = (
        "at every step, each parameter's gradient norm, weight norm, their ratio times the rate, largest entry, share "
        "of zeros, non-finite entries; writes nothing"
    )

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job, folder)
        from traintools import GradientHealthMonitor

        self.monitor = GradientHealthMonitor()

    def step(self, x: Tensor, y: Tensor) -> None:
        loss = cross_entropy(self.model(x), y)
        loss.backward()
        self.monitor.inspect(self.model, step=self.steps, lr=3e-4)
        self.optimizer.step()
        self.optimizer.zero_grad()


class ModuleMonitor(Arm):
    name = "torch-module-monitor"
    covers = (
        "at every step, the mean of each module's output and the norms of each parameter and gradient, as in its "
        "README (which looks at every tenth step); keeps them in memory, writes nothing"
    )

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job, folder)
        from torch_module_monitor import ModuleMonitor as Monitor

        self.monitor = Monitor(monitor_step_fn=lambda step: True)
        self.monitor.set_module(self.model)
        self.monitor.add_activation_metric("mean", lambda x: x.mean())
        self.monitor.add_parameter_metric("norm", lambda x: x.norm())
        self.monitor.add_gradient_metric("norm", lambda x: x.norm())

    def step(self, x: Tensor, y: Tensor) -> None:
        monitor = self.monitor
        monitor.begin_step(self.steps)
        loss = cross_entropy(self.model(x), y)
        loss.backward()
        monitor.monitor_parameters()
        monitor.monitor_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        monitor.end_step()
        monitor.get_step_metrics()


class CockpitEconomy(Arm):
    name = "Cockpit, economy preset"
    covers = (
        "at every step, per-example gradients for gradient norm, noise tests (norm, inner product, orthogonality), a "
        "histogram of gradient entries, distance, update size and step length; keeps them in memory, writes nothing"
    )

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from backpack import extend
            from cockpit import Cockpit
            from cockpit.utils.configuration import configuration

            self.model = extend(self.model)
            self.criterion = extend(nn.CrossEntropyLoss())
            self.each: Any = nn.CrossEntropyLoss(reduction="none")
            self.cockpit = Cockpit(self.model.parameters(), quantities=configuration("economy"))

    def step(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        logits, y = self.model(x).flatten(0, -2), y.flatten()
        loss = self.criterion(logits, y)
        info = {
            "batch_size": len(x),
            "individual_losses": self.each(logits, y),
            "loss": loss,
            "optimizer": self.optimizer,
        }
        with self.cockpit(self.steps, info=info):
            loss.backward(create_graph=self.cockpit.create_graph(self.steps))
        self.optimizer.step()


PEERS: tuple[type[Arm], ...] = (Histograms, ModuleMonitor, Traintools, CockpitEconomy)
