"""What an instrument is: the contract between an instrument and the step it looks at.

An instrument is asked at the steps it is due. It reads tensors through the `StepView`, makes a few small tensors
and returns at once; nothing in it may wait for the device. What it returned is finished later, on the host, in
float64 NumPy, by its ``finish``. What is measured must be *additive* over the elements of a parameter. An
instrument that says which sums its signals are formulas of (`OfSums`) is recorded also where each rank holds a part of
a parameter: the sums are stored, and whoever reads the run adds those of all ranks before the formula is applied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from thalweg.core.cards import Card
from thalweg.record.formulas import evaluate
from thalweg.record.signals import Reduce, Role, Stage
from thalweg.tensor.table import ParamTable

Array = np.ndarray[Any, np.dtype[np.float64]]
Steps = np.ndarray[Any, np.dtype[np.int64]]


class Quantity(Enum):
    """One tensor a parameter that a step view can give.

    Samples are the same coordinates of each parameter at every step, as a matrix [rows, coordinates] in which
    a parameter with fewer elements is filled up with zeros. Parameters are as they are when asked: before the
    update at the moment GRADIENT, after it at the moment UPDATE.
    """

    GRAD = auto()
    PARAM = auto()
    BEFORE = auto()
    """The parameter before the update; only its sum of squares, of the rows whose update is measured now."""
    UPDATE = auto()
    GRAD_SAMPLE = auto()
    PREVIOUS_GRAD_SAMPLE = auto()
    PARAM_SAMPLE = auto()
    INITIAL_SAMPLE = auto()
    MOMENTUM_SAMPLE = auto()


class When(Enum):
    """The moment of a step at which an instrument is called."""

    FORWARD = auto()
    """A training forward begins; the instrument may ask ``view.forward`` for hooks on it."""
    MICRO_BATCH = auto()
    """A further forward of the same update begins: gradients of the first backward passes are there."""
    GRADIENT = auto()
    """Gradients are final, parameters not yet updated."""
    UPDATE = auto()
    """The optimizer has updated the parameters."""


@dataclass(frozen=True)
class Needs:
    """What an instrument needs, so that the watch can plan it, and refuse it in words where it can't be had.

    Attributes:
        quantities: what it asks the view for.
        forward: it looks at activations or outputs, through module hooks in eager mode.
        shortest: the period, in steps, below which nobody wants it; the governor stays at or above it.
        rides: name of an instrument with which it is always due (it uses what that one computed).
    """

    quantities: frozenset[Quantity] = frozenset()
    forward: bool = False
    shortest: int = 1
    rides: str = ""


@dataclass(frozen=True, kw_only=True)
class Emits:
    """One signal an instrument writes; one a layer, named ``<name>/<layer>``, where ``per_layer``.

    The attributes mean what they mean in `thalweg.record.signals.SignalSpec`. Where ranks write apart and each has a
    part, a signal with a ``formula`` is joined by the sums of its instrument's ``sums``; one without by ``reduce``, from
    finished values; one that has neither is left out. ``partial``: only some layers have the signal, and a layer whose
    values are all NaN has not.
    """

    name: str
    role: Role = ""
    unit: str = ""
    stage: Stage = ""
    reduce: Reduce | None = None
    formula: str = ""
    per_layer: bool = False
    estimator: str = ""
    partial: bool = False


@dataclass(frozen=True)
class Measured:
    """What one instrument returned at one step, still on the device.

    Attributes:
        values: name -> tensor (or numbers the host has): [len(layers)] where it is per layer, else a scalar.
        layers: names of the rows, in order; empty where nothing is per layer.
        facts: name -> what the host knew already (a rate, a count): a number, or one a layer. The same on every
            rank, never added.
    """

    values: Mapping[str, Tensor | list[float]]
    layers: tuple[str, ...] = ()
    facts: Mapping[str, float | Sequence[float]] = field(default_factory=dict)


class NotSeenError(Exception):
    """What an instrument raises where there is nothing of what it measures: the record says why, once, as an event."""


class ForwardScope(Protocol):
    """The forward that is under way, at the moment FORWARD: hooks put in through it are taken out at its end."""

    def modules(self) -> Sequence[tuple[str, nn.Module]]:
        """(canonical name, module) of every module of the model."""

    def before(self, module: nn.Module, look: Any) -> None:
        """Call ``look(module, args)`` before the module's own forward."""

    def at_end(self, look: Any) -> None:
        """Call ``look(output) -> Measured | None`` at the end of the forward; what it returns is recorded."""


class StepView(Protocol):
    """What an instrument sees of a step. Everything is lazy, cached within the step, and on the device."""

    @property
    def step(self) -> int:
        """Updates tried so far, the present one not included."""

    @property
    def table(self) -> ParamTable:
        """The rows that are looked at."""

    @property
    def optimizer(self) -> Any:
        """The optimizer, or None."""

    @property
    def forward(self) -> ForwardScope:
        """The forward under way; only at the moment FORWARD."""

    @property
    def micro_batches(self) -> int:
        """Training forwards since the last update."""

    @property
    def examples(self) -> int:
        """Examples in the training forwards since the last update; 0 where they can't be told."""

    def layers(self, q: Quantity) -> tuple[str, ...]:
        """Names of the rows that have this quantity now, in the order of `tensors` and `sumsq`."""

    def tensors(self, q: Quantity) -> list[Tensor]:
        """One tensor a row that has it (this rank's part); for samples, the rows of the matrix."""

    def sumsq(self, q: Quantity) -> Tensor:
        """[rows that have it]: sum of squares; of gradients, unscaled under mixed precision."""

    def sums(self, q: Quantity) -> Tensor | list[float]:
        """`sumsq`, as plain numbers where the host has them already: cheaper for what is only handed on."""

    def elements(self, q: Quantity) -> list[int]:
        """How many elements each of those rows has on this rank."""

    def matrix(self, q: Quantity) -> Tensor:
        """The sample of a quantity, [rows that have it, coordinates]."""

    def scale_of_sample(self, q: Quantity) -> list[float]:
        """elements / sampled of each row of `matrix`: turns a sum over the sample into one over the parameter."""

    def finite(self, q: Quantity) -> bool | None:
        """Whether every `sumsq` is finite; None where only the device knows."""

    @property
    def ranks(self) -> int:
        """Over how many ranks the gradients at the step are means (DDP)."""

    @property
    def unreduced(self) -> bool:
        """Whether the first backward pass since the last update left this rank's own gradients (``no_sync``)."""

    @property
    def unclipped(self) -> Tensor | None:
        """Norm of the gradient before clipping, where the watch did the clipping in this step."""

    @property
    def moment(self) -> "When":
        """The moment at which the instrument is being called."""

    @property
    def alarmed(self) -> bool:
        """Whether the record has lately shown a norm that is not finite (known some steps late)."""

    @property
    def scale_invariant(self) -> Sequence[str]:
        """Names of the weights whose scale doesn't change the function, as far as the modules' order tells."""


class Instrument(Protocol):
    """One measurement: a card, what it needs, when it is called, what it writes, and two functions.

    One that keeps state across steps has ``state_dict()`` and ``load_state_dict()`` too.
    """

    @property
    def card(self) -> Card:
        """What it is, where it comes from."""

    @property
    def needs(self) -> Needs:
        """What it needs."""

    @property
    def when(self) -> When | tuple[When, ...]:
        """The moments at which it is called."""

    @property
    def emits(self) -> tuple[Emits, ...]:
        """The signals it writes."""

    def measure(self, view: StepView) -> Measured | None:
        """Look at the step; return small device tensors, or None where there is nothing to see. Never wait.

        Raises:
            NotSeenError: there is nothing to see, and the user should know why.
        """

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """From additive sums, [steps] or [steps, layers], to signals: name in ``emits`` -> [steps] or [steps, layers].

        A per-layer signal is keyed ``<name>/*``. A NaN is a value; where there is none, leave the key out.
        """


class OfSums:
    """An instrument whose signals are formulas of additive sums. What has its own ``finish`` may still have ``sums``."""

    emits: tuple[Emits, ...]

    def sums(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """The sums of each signal, named as `finish` names it: [steps, k], or [steps, layers, k] per layer.

        A signal without a formula: its values, as `finish` gives them. Where ranks hold parts, what is in ``raw`` of
        a row that is counted on another rank is zero.
        """
        raise NotImplementedError

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """See `Instrument`: the formulas of the sums."""
        formulas = {e.name + "/*" * e.per_layer: e.formula for e in self.emits}
        sums = self.sums(raw, facts, layers)
        return {name: evaluate(f, x) if (f := formulas[name]) else x for name, x in sums.items()}


def each_and_whole(name: str, *sums: Array) -> dict[str, Array]:
    """Sums [steps, layers] of a signal that has the same formula per layer and, of their totals, for the model."""
    each = np.stack(np.broadcast_arrays(*sums), -1)
    return {f"{name}/*": each, name: each.sum(1)}


class HeldBatch:
    """A batch kept aside, and how to run the model on it: what probes that run the model may use.

    Args:
        batch: anything the closure understands; ``(inputs, targets)`` with ``loss=``.
        loss: called as ``loss(model(inputs), targets)``.
        closure: called as ``closure(model, batch)``, returns the loss; exactly one of the two is given.

    Raises:
        UsageError: neither or both of ``loss`` and ``closure``.
    """

    def __init__(self, batch: Any, *, loss: Any = None, closure: Any = None) -> None:
        from thalweg.core.errors import UsageError

        if (loss is None) == (closure is None):
            raise UsageError(
                "HeldBatch takes exactly one of loss=criterion and closure=lambda model, batch: ...; "
                f"got {'neither' if loss is None else 'both'}."
            )
        self.batch = batch
        self._loss = loss
        self._closure = closure

    def __call__(self, model: nn.Module) -> Any:
        """The loss of the model on this batch, computed as the user computes it."""
        if self._closure is not None:
            return self._closure(model, self.batch)
        inputs, targets = self.batch
        return self._loss(model(inputs), targets)
