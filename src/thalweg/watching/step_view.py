"""What the instruments see of one step: tensors and sums, computed once however many ask."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from thalweg.core.errors import ThalwegError
from thalweg.tensor.local import largest_local, local
from thalweg.tensor.sumsq import host_sumsq, sumsq
from thalweg.tensor.table import ParamTable
from thalweg.watching.contracts import ForwardScope, Quantity, When
from thalweg.watching.sampling import CoordinateSample, rows_of

T = TypeVar("T")
_MOMENTUM_KEYS = ("exp_avg", "momentum_buffer")
_HALF = (torch.bfloat16, torch.float16)


class TableView:
    """The `StepView` of one optimizer's parameters.

    Args:
        table: the rows looked at.
        optimizer: whose gradients, state and hyper-parameters they have; None for a loop without one.
        memory: bytes that all copies kept here may take together.
    """

    def __init__(self, table: ParamTable, optimizer: Any, memory: int) -> None:
        self.table = table
        self.optimizer = optimizer
        self.step = 0
        self.micro_batches = 0
        self.examples = 0
        self.alarmed = False
        self.scaler: Any = None
        self.ranks = 1
        self.unreduced = False
        self.unclipped: Tensor | None = None
        self.scale_invariant: Sequence[str] = ()
        self.sample = CoordinateSample(table.parameters, memory // 16)
        self.rotation, self.sampled_rows = rotation_of(table, memory // 2, 4 * self.sample.width)
        self._parameters = table.parameters
        self._names = table.names
        self._cache: dict[Any, Any] = {}
        self._host_sums: dict[Quantity, list[float]] = {}
        self._forward: ForwardScope | None = None
        self.moment = When.GRADIENT
        self._before: tuple[list[int], list[Tensor], Tensor] | None = None
        self._previous: tuple[int, tuple[int, ...], Tensor] | None = None
        self._initial: Tensor | None = None

    # -- the life of a step ------------------------------------------------------------------------------

    def begin(self, step: int) -> None:
        """Forget what was cached; what is asked for from now on belongs to ``step``."""
        self.step = step
        self._cache.clear()
        self._host_sums.clear()

    def enter(self, forward: ForwardScope | None) -> None:
        """A forward begins (or, with None, is over)."""
        self._forward = forward

    def keep_initial(self, values: Tensor | None = None) -> None:
        """Keep the sample that distances are measured from: the present one, or one from a checkpoint."""
        present = self.sample.gather(self._parameters, range(len(self._parameters)))
        usable = values is not None and values.shape == present.shape
        self._initial = values.to(present) if usable and values is not None else present

    @property
    def initial(self) -> Tensor | None:
        """The kept sample of the initial parameters, [all rows, coordinates]."""
        return self._initial

    def keep_parameters(self, turn: int) -> None:
        """Copy the rows whose turn it is, so that their update can be measured after the step."""
        rows = self.rotation[turn % len(self.rotation)] if self.rotation else []
        copies = [self._copy(r) for r in rows]
        self._before = (rows, copies, self._scaled(rows, self._sums_of(Quantity.BEFORE, copies)))

    def _copy(self, row: int) -> Tensor:
        """A copy of a row's parameter, or of a sample of it where it is too large."""
        if row in self.sampled_rows:
            return self.sample.gather([self._parameters[row]], [row])[0]
        return local(self._parameters[row]).clone()

    def _scaled(self, rows: Sequence[int], sums: Tensor) -> Tensor:
        """Sums of rows of which only a sample was copied, scaled up to all elements."""
        if self.sampled_rows.isdisjoint(rows):
            return sums
        factors = self.sample.scale(rows)
        keep = [f if r in self.sampled_rows else 1.0 for r, f in zip(rows, factors, strict=True)]
        return sums * torch.tensor(keep, dtype=sums.dtype).to(sums.device, non_blocking=True)

    def gather_gradient(self) -> None:
        """Take the sample of the gradient now, for whoever asks for it later in the step."""
        if self._rows(Quantity.GRAD_SAMPLE):
            self._matrix(Quantity.GRAD_SAMPLE)

    def keep_gradient_sample(self) -> None:
        """Keep this step's gradient sample, taken before, as the previous one of the next step."""
        rows = self._rows(Quantity.GRAD_SAMPLE)
        if rows and ("matrix", Quantity.GRAD_SAMPLE) in self._cache:
            sample, skipped = self._matrix(Quantity.GRAD_SAMPLE), getattr(self.optimizer, "found_inf", None)
            if (
                skipped is not None
            ):  # on the device: the gradient before the skipped one, if it is known, stays
                known = self._previous is not None and self._previous[:2] == (self.step - 1, rows)
                before = self._previous[2] if known and self._previous is not None else sample * float("nan")
                sample = torch.where(local(skipped).to(sample.device) != 0, before, sample)
            self._previous = (self.step, rows, sample)

    def finish_update(self) -> None:
        """The step is over: drop the copies that were made for it."""
        self._before = None
        self._cache.clear()

    # -- what instruments ask ----------------------------------------------------------------------------

    @property
    def forward(self) -> ForwardScope:
        """The forward under way."""
        if self._forward is None:
            raise ThalwegError("view.forward was asked for outside the moment FORWARD.")
        return self._forward

    @property
    def inv_scale(self) -> Tensor | None:
        """1 / loss scale where gradients are still scaled, else None.

        They are between micro-batches under a GradScaler, and at the step of a fused optimizer.
        """
        scale = getattr(self.optimizer, "grad_scale", None)
        if scale is None and self.moment is When.MICRO_BATCH:
            scale = getattr(self.scaler, "_scale", None)
        return None if scale is None else scale.detach().reciprocal()

    def layers(self, q: Quantity) -> tuple[str, ...]:
        """See `StepView`."""
        rows = self._rows(q)
        if len(rows) == len(self._names):
            return self._names
        return self._once(("layers", q), lambda: tuple(self._names[r] for r in rows))

    def tensors(self, q: Quantity) -> list[Tensor]:
        """See `StepView`."""
        return self._once(("tensors", q), lambda: self._tensors(q))

    def sumsq(self, q: Quantity) -> Tensor:
        """See `StepView`."""
        return self._once(("sumsq", q), lambda: self._sumsq(q))

    def sums(self, q: Quantity) -> Tensor | list[float]:
        """See `StepView`."""
        if q is Quantity.GRAD and self.inv_scale is None and ("sumsq", q) not in self._cache:
            gradients = self.tensors(q)
            if gradients and gradients[0].device.type == "cpu":
                if q not in self._host_sums:
                    self._host_sums[q] = host_sumsq(gradients)
                return self._host_sums[q]
        return self.sumsq(q)

    def finite(self, q: Quantity) -> bool | None:
        """See `StepView`."""
        self.sums(q)
        sums = self._host_sums.get(q)
        return None if sums is None else math.isfinite(sum(sums))

    def elements(self, q: Quantity) -> list[int]:
        """See `StepView`."""
        return [self.sample.elements[r] for r in self._rows(q)]

    def scale_of_sample(self, q: Quantity) -> list[float]:
        """elements / sampled of each row that has this sample."""
        return self.sample.scale(self._rows(q))

    # -- how it is found ---------------------------------------------------------------------------------

    def _once(self, key: tuple[str, Quantity], make: Callable[[], T]) -> T:
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = make()
        return cast(T, found)

    def _rows(self, q: Quantity) -> tuple[int, ...]:
        return self._once(("rows", q), lambda: tuple(self._find_rows(q)))

    def _find_rows(self, q: Quantity) -> Sequence[int]:
        every = range(len(self._parameters))
        if q is Quantity.GRAD:
            return [i for i, g in enumerate(self._gradients()) if g is not None]
        if q is Quantity.GRAD_SAMPLE:
            gradients = self._gradients()
            return [r for r in self._rows(Quantity.GRAD) if _is_dense(gradients[r])]
        if q is Quantity.PREVIOUS_GRAD_SAMPLE:
            if self._previous is None or self._previous[0] != self.step - 1:
                return []
            had = set(self._previous[1])
            return [r for r in self._rows(Quantity.GRAD_SAMPLE) if r in had]
        if q in (Quantity.UPDATE, Quantity.BEFORE):
            return self._before[0] if self._before is not None else []
        if q is Quantity.INITIAL_SAMPLE:
            return every if self._initial is not None else []
        if q is Quantity.MOMENTUM_SAMPLE:
            return [r for r in every if self._momentum(r) is not None]
        return every

    def _gradients(self) -> list[Tensor | None]:
        """Every row's gradient, looked up once a step: each look-up makes a Python object."""
        return self._once(("gradients", Quantity.GRAD), lambda: [p.grad for p in self._parameters])

    def _tensors(self, q: Quantity) -> list[Tensor]:
        if q is Quantity.GRAD:
            return [g for g in self._gradients() if g is not None]
        if q is Quantity.PARAM:
            return list(self._parameters)
        if q is Quantity.UPDATE:
            rows, copies, _ = self._before or ([], [], None)
            return [self._difference(r, old) for r, old in zip(rows, copies, strict=True)]
        return list(self._matrix(q).unbind())

    def _sumsq(self, q: Quantity) -> Tensor:
        if q is Quantity.BEFORE and self._before is not None:
            return self._before[2]
        if q in (Quantity.GRAD, Quantity.PARAM, Quantity.UPDATE):
            sums = self._sums_of(q, self.tensors(q))
            if q is Quantity.UPDATE:
                sums = self._scaled(self._rows(q), sums)
            inverse = self.inv_scale if q is Quantity.GRAD else None
            return sums if inverse is None else sums * inverse.to(sums).square()
        return self._matrix(q).double().square().sum(1)

    def _difference(self, row: int, old: Tensor) -> Tensor:
        """What the update added to a row, or to the copied sample of it, in at least float32."""
        if row in self.sampled_rows:
            return self.sample.gather([self._parameters[row]], [row])[0] - old
        new = local(self._parameters[row])
        return new.float() - old.float() if new.dtype in _HALF else torch.sub(new, old, out=old)

    def _sums_of(self, q: Quantity, tensors: list[Tensor]) -> Tensor:
        """Sums of squares; on the CPU their values are kept on the host as well."""
        if not tensors or tensors[0].device.type != "cpu":
            return sumsq(tensors)
        if q not in self._host_sums:
            self._host_sums[q] = host_sumsq(tensors)
        return torch.tensor(self._host_sums[q], dtype=torch.float64)

    def matrix(self, q: Quantity) -> Tensor:
        """The sample of a quantity: [rows that have it, coordinates]."""
        return self._matrix(q)

    def _matrix(self, q: Quantity) -> Tensor:
        return self._once(("matrix", q), lambda: self._gather(q))

    def _gather(self, q: Quantity) -> Tensor:
        rows = self._rows(q)
        if q is Quantity.INITIAL_SAMPLE and self._initial is not None:
            return self._initial
        if q is Quantity.PREVIOUS_GRAD_SAMPLE and self._previous is not None:
            at = {r: i for i, r in enumerate(self._previous[1])}
            kept = self._previous[2]
            return kept if rows == self._previous[1] else rows_of(kept, [at[r] for r in rows])
        if q is Quantity.GRAD_SAMPLE:
            gradients = self._gradients()
            matrix = self.sample.gather([g for r in rows if (g := gradients[r]) is not None], rows)
            inverse = self.inv_scale
            return matrix if inverse is None else matrix * inverse.to(matrix)
        if q is Quantity.MOMENTUM_SAMPLE:
            return self.sample.gather([m for r in rows if (m := self._momentum(r)) is not None], rows)
        return self.sample.gather([self._parameters[r] for r in rows], rows)

    def _momentum(self, row: int) -> Tensor | None:
        if self.optimizer is None:
            return None
        state = self.optimizer.state.get(self._parameters[row], {})
        for key in _MOMENTUM_KEYS:
            found = state.get(key)
            if isinstance(found, Tensor) and _is_dense(found):
                return found
        return None


def _is_dense(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.layout is torch.strided


def rotation_of(table: ParamTable, budget: int, sample: int) -> tuple[list[list[int]], frozenset[int]]:
    """Rows in turns, each turn's copies within ``budget`` bytes; and the rows larger than that, which take ``sample``."""
    turns: list[list[int]] = []
    sampled: set[int] = set()
    room = 0
    for i, parameter in enumerate(table.parameters):
        size = largest_local(parameter) * max(4, parameter.element_size())  # the same turns on every rank
        if size > budget:
            sampled.add(i)
            size = sample
        if not turns or size > room:
            turns.append([])
            room = budget
        turns[-1].append(i)
        room -= size
    return turns, frozenset(sampled)
