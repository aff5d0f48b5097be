"""One optimizer and its model in a watched run: counts, stamps, and calls the instruments that are due.

A *try* is one step of the optimizer as its hooks see it; an *update* is a try that was not skipped. Here only tries
are counted, since on an accelerator nobody knows yet whether an update was skipped; the thread that writes the
record turns tries into updates.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import proxy, ref

import torch
from torch import Tensor, nn

from thalweg.tensor.hooks import Handle, Hooks
from thalweg.tensor.ranks import data_ranks
from thalweg.tensor.table import ParamTable, build_table, fingerprint
from thalweg.tensor.unwrapping import inner_model, is_compiled
from thalweg.watching.contracts import HeldBatch, Instrument, Measured, NotSeenError, Quantity, When
from thalweg.watching.cost import CostMeter
from thalweg.watching.finishing import TrackWriter
from thalweg.watching.forward_scope import ModuleList, RootForward
from thalweg.watching.governor import Governor, Planned, StepPlan
from thalweg.watching.held_look import can_look, look
from thalweg.watching.instruments.effective_rate import scale_invariant_weights
from thalweg.watching.journal import Entry, Journal
from thalweg.watching.notices import (
    HALF_WITHOUT_SCALER,
    NO_FORWARDS,
    UNKNOWN_SCALER,
    autocast_to_half,
    made_by_grad_scaler,
)
from thalweg.watching.sharing import readable, sharing_of
from thalweg.watching.spikes import AFTER_SPIKE
from thalweg.watching.step_counts import StepCounts
from thalweg.watching.step_view import TableView

_FAILURES_ALLOWED = 3
ACCOUNT_EVERY = 25
"""Steps whose times are handed on together."""

FINGERPRINT_EVERY = 10
"""Steps after which, also where nothing is due, the optimizer is asked whether it still holds the same parameters."""

# Inside a loop all is cold, and each look-up in torch's large namespaces costs a microsecond.
_now, _clock = time.perf_counter, time.time
_is_grad_enabled = torch.is_grad_enabled
_is_tracing = torch._C._is_tracing
_graph_task = torch._C._current_graph_task_id
_functional_transform = torch._C._functorch.peek_interpreter_stack
_NOT_A_NUMBER = float("nan")


class Track(StepCounts):
    """Watches the steps of one optimizer.

    Args:
        model: the module the user calls: compiled, wrapped, or plain.
        optimizer: the one whose steps are counted; None where the user calls `step`.
        instruments: in order of priority.
        journal: where everything goes.
        writer: how this track's entries are written.
        budget: share of the step that watching may take.
        cadence: see `Governor`.
        memory: bytes that copies may take.
        scaler: the user's GradScaler.
        held: batch for a look at activations where the model is compiled.
        rank, world: this rank among those that write apart; of one that writes alone no part of a row is looked at.
        agree: see `Governor`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        instruments: Sequence[Instrument],
        journal: Journal,
        writer: TrackWriter,
        *,
        budget: float,
        cadence: str | int,
        memory: int,
        scaler: Any = None,
        held: HeldBatch | None = None,
        rank: int = 0,
        world: int = 1,
        agree: Callable[[str, str], str] | None = None,
        on_first: Callable[[], None],
    ) -> None:
        super().__init__(writer.rows)
        self.journal, self.writer = journal, writer
        self._accelerated, self._room = journal.accelerated, journal.room
        self._copied = False
        self.cost = CostMeter()
        self.owner: Any = None
        self._model, self._optimizer = ref(model), None if optimizer is None else ref(optimizer)
        self._scaler, self._memory, self._ranks = scaler, memory, (rank, world)
        self._on_first: Callable[[], None] | None = on_first
        self._unseen, self._unseen_at, self._said = 0, 0, False
        self._asked = scaler is not None
        self._scaler_states: Any = None
        self._loss_scale: Tensor | None = None
        self._skipped_examples = 0
        wrapped = model._modules.get("_orig_mod", model)
        ddp = isinstance(wrapped, nn.parallel.DistributedDataParallel)
        self._reducing = proxy(wrapped) if ddp else None
        self._grad_mark: tuple[int, int] | None = None
        self._failures: dict[str, int] = {}
        self._reasons: set[str] = set()
        self.compiled = is_compiled(model)
        self._modules = ModuleList(model)
        self._held = held if self.compiled and can_look(model) else None
        looks = [i for i in instruments if not (i.needs.forward and self.compiled and self._held is None)]
        self.left_out = [i.card.name for i in instruments if i not in looks]
        self.governor = Governor(looks, budget, cadence, agree)
        self._plan = self._next = self.governor.plan(0)
        self.view = self._new_view(model, optimizer)
        self.hooks = Hooks()
        self.hooks.forward_pre(model, self._forward_begins)
        self._before: Handle | None = None
        if optimizer is not None:
            self._before = self.hooks.step(optimizer, self._before_step, self._after_step)

    # -- what the hooks call; none of it may raise --------------------------------------------------------

    def _forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        start = _now()
        try:
            training = module.training
            if training:
                self._training_mode = True
            if not _is_grad_enabled() or training is not self._training_mode:
                self.evaluation_stamp = self.tries
            elif _graph_task() == -1 and not _is_tracing() and _functional_transform() is None:
                if self._special:  # it is of the loop: neither recomputed nor traced
                    self._special_forward(module, args, kwargs)
                else:
                    self.stamp = self.tries
                    self.micro_batches += 1
                    first = args[0] if args else None
                    if type(first) is Tensor and first.ndim:
                        self.examples += first.shape[0]
                    else:
                        self.examples += _batch_size(args, kwargs)
        except Exception as error:
            self.journal.failed("forward", error)
        self.spent += _now() - start

    def _before_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        start = _now()
        changed = None
        try:
            changed = self._begin_step(optimizer, args, kwargs)
        except Exception as error:
            self.journal.failed("before the step", error)
        self.spent += _now() - start
        return changed

    def _after_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        start = _now()
        done = self.tries + 1
        try:
            if self._resting:
                self._needed_after_all(optimizer, args, kwargs)
            self._end_step(optimizer.param_groups, start)
        except Exception as error:
            self.tries = done  # counted all the same
            self._look_ahead()
            self.journal.failed("after the step", error)

    def step(self) -> None:
        """An update was done by something without hooks: look at it, then count it."""
        start = _now()
        copied = self._copied  # before the update, or there is none
        self._first()
        if not copied:
            self.view.finish_update()
        self._plan = self._next
        self.view.begin(self.tries)
        self._look_at_gradient()
        self._end_step((), start)
        self._look_before_update()

    # -- forwards -----------------------------------------------------------------------------------------

    def _special_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A training forward that is more than counted."""
        if self._on_first is not None:
            self._first()
        self.stamp = self.tries
        if self.journal.muted:  # the same batch, for another evaluation of a closure
            return
        view, plan = self.view, self._next
        if self._scaler is not None:
            self._look_at_scaler()
        if self._reducing is not None and self.micro_batches == 0:
            view.unreduced = not getattr(self._reducing, "require_backward_grad_sync", True)
        if plan.micro_batch and self.micro_batches and self._gradients_are_new():
            view.begin(self.tries)
            self._call(When.MICRO_BATCH, plan.micro_batch)
        self.micro_batches += 1
        self.examples += _batch_size(args, kwargs)
        if plan.forward and self.micro_batches == 1:
            self._look_at_forward(module, plan.forward)

    def _look_at_scaler(self) -> None:
        """Record the loss scale; forget the micro-batches of an update that was skipped without a call of the hooks."""
        scaler = self._scaler
        states = getattr(scaler, "_per_optimizer_states", None)  # a new one at each scaler.update()
        if states is None or not scaler.is_enabled():
            return
        if self._scaler_states is not states:
            self._scaler_states = states
            self._skipped_examples += self.examples
            self.micro_batches = self.examples = 0
        scale = scaler._scale  # made at the first scaler.scale(loss)
        self._loss_scale = torch.tensor(scaler.get_scale()) if scale is None else scale.detach().clone()
        self._put("scale", None, [self._loss_scale])

    def _look_at_forward(self, module: nn.Module, due: Sequence[Planned]) -> None:
        scope = RootForward(inner_model(module) if self.compiled else module, self._modules, self._deliver)
        self._tell_counts()
        self.view.enter(scope)
        for planned in due:
            scope.owner = planned
            self._ask(planned)
        self.view.enter(None)
        if self.compiled and self._held is not None:
            began = _now()
            try:
                look(module, self._held)
            except Exception as error:
                self._held = None
                self.journal.failed("held batch", error)
            finally:
                scope.close()
            due[0].spent += _now() - began

    def _deliver(self, planned: Planned, look: Callable[[], Measured | None]) -> None:
        start = _now()
        try:
            with torch.no_grad():
                self._keep(planned, look())
        except NotSeenError as reason:
            self._say_not_seen(planned, str(reason))
        except Exception as error:
            self._failed(planned.name, error)
        took = _now() - start
        planned.spent += took
        self.spent += took

    def _gradients_are_new(self) -> bool:
        """Whether gradients were written since the last step, so that they are this update's first ones."""
        return self._mark_of_gradients() not in (None, self._grad_mark)

    def _mark_of_gradients(self) -> tuple[int, int] | None:
        for row in self.view.table.rows:
            if row.parameter.grad is not None:
                written = getattr(
                    row.parameter.grad, "_local_tensor", row.parameter.grad
                )  # a DTensor's has no count
                return id(written), written._version
        return None

    # -- the step -----------------------------------------------------------------------------------------

    def _begin_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._on_first is not None:
            self._first()
        view, tick = self.view, self.tries
        plan = self._plan = self._next
        if not self._asked:
            self._asked = True
            if made_by_grad_scaler():
                self.journal.event("not recorded", **UNKNOWN_SCALER)
        if fingerprint(optimizer.param_groups) != view.table.fingerprint:
            view = self._parameters_changed(optimizer)
        self._find_inf(optimizer)
        if not plan.idle:
            view.begin(tick)
            if plan.copies:
                self._keep_parameters(plan)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0] is the optimizer itself
        if closure is not None:
            self._closures = True
            return self._wrap(closure, args, kwargs)
        if not plan.idle:
            self._look_at_gradient()
        return None

    def _find_inf(self, optimizer: Any) -> None:
        """Leave word of whether this update is skipped, where the optimizer itself is told so (a fused one)."""
        found = self._found_inf = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._put("skip", None, [found.detach().clone()])

    def _needed_after_all(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The hook before the step rested: may it go on doing so?"""
        self._closures = len(args) > 1 or bool(kwargs)
        if hasattr(optimizer, "found_inf"):
            self._find_inf(optimizer)
        if self._closures or self._found_inf is not None:
            self._rest_until = 0.0

    def _look_at_gradient(self) -> None:
        plan = self._plan
        due = plan.gradient
        if due and self._optimizer is None:  # it is done: what reads parameters alone was asked before it
            due = tuple(p for p in due if not _reads_parameters_alone(p))
        if due:
            self._call(When.GRADIENT, due)
        if plan.keep_gradient:  # now, since an optimizer may change gradients in place
            try:
                with torch.no_grad():
                    self.view.gather_gradient()
            except Exception as error:
                self.journal.failed("gradient sample", error)

    def _look_before_update(self) -> None:
        """Where no hook tells when an update begins, look at the parameters and copy them already now."""
        if self._optimizer is not None:
            return
        began = _now()
        due = tuple(p for p in self._next.gradient if _reads_parameters_alone(p))
        if due:
            self.view.begin(self.tries)
            self._call(When.GRADIENT, due)
        self._copied = bool(self._next.copies)
        if self._copied:
            self._keep_parameters(self._next)
        self.spent += _now() - began

    def _keep_parameters(self, plan: StepPlan) -> None:
        began = _now()
        with torch.no_grad():
            self.view.keep_parameters(self.tries // plan.copies[0].period)
        plan.copies[0].spent += _now() - began

    def _wrap(self, closure: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The closure, followed at its first evaluation by the look at the gradient."""
        ran = False

        def watched() -> Any:
            nonlocal ran
            self.journal.muted = ran
            try:
                result = closure()
            finally:
                self.journal.muted = False
            if not ran:
                ran = True
                began = _now()
                self.view.begin(self.tries)  # a micro-batch may have been looked at inside the closure
                self._look_at_gradient()
                self.spent += _now() - began
            return result

        if len(args) > 1:
            return (args[0], watched, *args[2:]), kwargs
        return args, {**kwargs, "closure": watched}

    def _end_step(self, groups: Sequence[dict[str, Any]], start: float) -> None:
        plan = self._plan
        if not plan.idle:
            self._look_at_update(plan)
        took = start - self._last if self._last else _NOT_A_NUMBER
        self._last = start
        self._loop_row(groups, took)
        if self.micro_batches != 1 or plan.micro_batch:
            self._grad_mark = self._mark_of_gradients()
            self._count_unseen()
        self.micro_batches = self.examples = 0
        self.tries += 1
        if self.tries >= self._rest_until:
            self._heed_writer()
            self._look_ahead()
        if self._accelerated:
            self.journal.ship(start)
        base = spent = self.spent + (_now() - start)
        self.spent = 0.0
        for planned in plan.due:
            base -= planned.spent
            planned.settle()
        if took == took:
            self._accounts.append((took, spent, base))
            if len(self._accounts) >= ACCOUNT_EVERY:
                self._review()

    def _look_at_update(self, plan: StepPlan) -> None:
        if plan.update:
            self._call(When.UPDATE, plan.update)
        if plan.keep_gradient:
            self.view.keep_gradient_sample()
        self.view.finish_update()

    def _look_ahead(self, *, anew: bool = False) -> None:
        """Plan the next try; until something is due, the hook before the step rests, unless somebody needs it."""
        if anew:
            self._rest_until = 0.0
        self.view.unclipped = None
        tries, before = self.tries, self._before
        plan = self._next = self.governor.plan(tries)
        needed = self._closures or self._found_inf is not None or self._on_first is not None
        self._special = (
            self._on_first is not None
            or self._closures
            or self._scaler is not None
            or self._reducing is not None
            or bool(plan.forward or plan.micro_batch)
        )
        self._resting = before is not None and plan.idle and tries % FINGERPRINT_EVERY != 0 and not needed
        if self._resting:
            self._plan = plan
            next_check = tries + FINGERPRINT_EVERY - tries % FINGERPRINT_EVERY
            self._rest_until = min(self.governor.idle_until(tries), next_check)
        if before is not None:
            before.target = None if self._resting else self._before_step

    def _heed_writer(self) -> None:
        """What the thread that writes the record has left word of: instruments that failed, a signal that leapt."""
        while self.writer.broken:
            self._failed(*self.writer.broken.popleft())
        if self.writer.triggered is not None:
            self._look_closely(self.writer.triggered)

    def _count_unseen(self) -> None:
        follows = self._unseen_at == self.tries - 1
        self._unseen = 0 if self.micro_batches else self._unseen + 1 if follows else 1
        self._unseen_at = self.tries
        if self._unseen == 3 and not self._said:
            self._said = True
            self.journal.event("no forward seen", severity="warning", text=NO_FORWARDS)
            self.journal.warn(NO_FORWARDS)

    def _review(self) -> None:
        """Hand the last steps' times to the meter and the governor, which may change its plan."""
        took, spent, base = zip(*self._accounts, strict=True)
        self._accounts.clear()
        self.cost.add(sum(took), sum(spent), len(took))
        self.governor.steps_took(took, spent, base)
        changed = self.governor.review()
        while self.governor.too_slow:
            text = "even at the longest period it takes more than the whole budget"
            name = self.governor.too_slow.pop()
            self.journal.event("switched off", severity="warning", instrument=name, text=text)
        self._look_ahead(anew=True)
        if changed is not None:
            step = self.writer.step_of(self.tries)
            self.journal.event("cadence", step=step, periods=dict(changed), allowance=self.governor.allowance)

    def _loop_row(self, groups: Sequence[dict[str, Any]], took: float) -> None:
        rates: tuple[Any, ...] = (
            (groups[0].get("lr"),) if len(groups) == 1 else tuple([group.get("lr") for group in groups])
        )
        examples = self.examples
        if self._skipped_examples:
            examples, self._skipped_examples = examples + self._skipped_examples, 0
        if self._found_inf is None:
            for rate in rates:
                if type(rate) is not float:
                    break
            else:
                if len(self._rows) < self._room:
                    self._rows.append((self.tries, _clock(), took, examples, rates))
                else:
                    self.journal.dropped += 1
                return
        tensors = [rate.detach().clone() for rate in rates if isinstance(rate, Tensor)]
        known = tuple(
            None if isinstance(r, Tensor) else float("nan") if r is None else float(r) for r in rates
        )
        self._put("loop", (took, examples, known), tensors)

    def _look_closely(self, trigger: tuple[str, int]) -> None:
        """A signal leapt: look more often for a while (the writer stores the flight recorder's memory)."""
        self.writer.triggered = None
        self.view.alarmed = self.writer.nonfinite
        under_way = self.governor.burst(AFTER_SPIKE)
        self._look_ahead(anew=True)
        kind = "burst" if under_way else "trigger"
        self.journal.event(kind, step=trigger[1], signal=self.writer.key + trigger[0])

    # -- instruments --------------------------------------------------------------------------------------

    def _call(self, when: When, due: Sequence[Planned]) -> None:
        self.view.moment = when
        self._tell_counts()
        graded = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # torch.no_grad() takes ten times as long inside a loop
        try:
            for planned in due:
                self._ask(planned)
        finally:
            torch._C._set_grad_enabled(graded)

    def _tell_counts(self) -> None:
        self.view.micro_batches, self.view.examples = self.micro_batches, self.examples

    def _ask(self, planned: Planned) -> None:
        began = _now()
        try:
            self._keep(planned, planned.instrument.measure(self.view))
        except NotSeenError as reason:
            self._say_not_seen(planned, str(reason))
        except Exception as error:
            self._failed(planned.name, error)
        planned.spent += _now() - began

    def _keep(self, planned: Planned, measured: Measured | None) -> None:
        if measured is not None:
            keys = tuple(measured.values)
            payload = (planned.instrument, keys, measured.layers, measured.facts)
            values = [measured.values[k] for k in keys]
            self._put("measured", payload, values if self._accelerated else [_on_host(v) for v in values])

    def _say_not_seen(self, planned: Planned, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            signals = [self.writer.key + name for name in planned.instrument.card.signals]
            self.journal.event(
                "not recorded", step=self.writer.step_of(self.tries), signals=signals, text=reason
            )

    def _failed(self, name: str, error: Exception) -> None:
        self._failures[name] = self._failures.get(name, 0) + 1
        self.journal.failed(f"instrument {name}", error)
        if self._failures[name] >= _FAILURES_ALLOWED and self.governor.switch_off(name):
            self.journal.event(
                "switched off", severity="warning", instrument=name, failures=self._failures[name]
            )

    def _put(self, kind: str, payload: Any, tensors: Sequence[Tensor | list[float]]) -> None:
        self.journal.put(Entry(kind, self.writer, self.tries, payload, tensors))

    # -- the table ----------------------------------------------------------------------------------------

    def _first(self) -> None:
        if self._on_first is not None:
            begin, self._on_first = self._on_first, None
            begin()
            if self._scaler is None and autocast_to_half():
                self.journal.event("not recorded", text=HALF_WITHOUT_SCALER)

    def begin(self, tries: int, initial: dict[str, Tensor] | None) -> None:
        """Start counting from ``tries``; distances from ``initial`` where a checkpoint has it."""
        self.start_at(tries)
        self._look_ahead(anew=True)
        if (model := self._model()) is not None:  # again: a normalization may have been frozen since
            self.view.scale_invariant = scale_invariant_weights(inner_model(model))
        self._keep_initial(initial)
        self._look_before_update()

    def finish(self) -> None:
        """The record ends: whether a GradScaler skipped the last update is known only now."""
        try:
            if self._loss_scale is not None and self._scaler.get_scale() < self._loss_scale.item():
                self._look_at_scaler()
        except Exception as error:
            self.journal.failed("loss scale", error)

    def initial_state(self) -> dict[str, Tensor]:
        """Name -> kept sample of the initial parameters."""
        kept = self.view.initial
        return {} if kept is None else {n: kept[i].clone() for i, n in enumerate(self.view.table.names)}

    def _keep_initial(self, initial: dict[str, Tensor] | None) -> None:
        self.view.keep_initial()
        kept = self.view.initial
        for i, name in enumerate(self.view.table.names if kept is not None else ()):
            saved = (initial or {}).get(name)
            if saved is not None and kept is not None and saved.shape == kept[i].shape:
                kept[i] = saved.to(kept)

    def _new_view(self, model: nn.Module, optimizer: Any) -> TableView:
        table = build_table(model, optimizer)
        self.table = table
        visible = tuple(r for r in table.rows if readable(r, self._ranks[1]))
        seen = ParamTable(visible, table.frozen, table.outside, table.fingerprint)
        view = TableView(seen, optimizer_of(self._optimizer), self._memory)
        view.scaler = self._scaler
        view.ranks = data_ranks(model)
        self.writer.signals.sharing = sharing_of(seen, *self._ranks, view.ranks)
        view.scale_invariant = scale_invariant_weights(inner_model(model))
        return view

    def _parameters_changed(self, optimizer: Any) -> TableView:
        initial, model = self.initial_state(), self._model()
        before = set(self.table.names)
        if model is not None:
            self.view = self._new_view(model, optimizer)
            with torch.no_grad():
                self._keep_initial(initial)
            added = [n for n in self.table.names if n not in before]
            self.journal.event("parameters changed", step=self.writer.step_of(self.tries), added=added)
        return self.view


def _on_host(value: Any) -> Any:
    """The numbers themselves: small tensors that wait between large temporary ones would keep the heap in pieces."""
    try:
        return value.tolist() if isinstance(value, Tensor) else value
    except (RuntimeError, NotImplementedError):  # one without data; whoever finishes it says so
        return value


def _reads_parameters_alone(planned: Planned) -> bool:
    quantities = planned.instrument.needs.quantities
    reads = quantities & {Quantity.PARAM, Quantity.PARAM_SAMPLE}
    return bool(reads) and not quantities & {Quantity.GRAD, Quantity.GRAD_SAMPLE}


def optimizer_of(weak: Any) -> Any:
    """The optimizer behind a weak reference that may be None."""
    return None if weak is None else weak()


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    for value in args or kwargs.values():
        if isinstance(value, Tensor) and value.dim() > 0:
            return int(value.shape[0])
    return 0
