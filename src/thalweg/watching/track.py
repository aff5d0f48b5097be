"""One optimizer and its model in a watched run: counts, stamps, and calls the instruments that are due.

A *try* is one step of the optimizer as its hooks see it; an *update* is a try that was not skipped. Here only tries
are counted, since on an accelerator nobody knows yet whether an update was skipped; the thread that writes the
record turns tries into updates.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import proxy, ref

import torch
from torch import Tensor, nn

from thalweg.tensor.hooks import Hooks
from thalweg.tensor.table import ParamTable, build_table, fingerprint
from thalweg.tensor.unwrapping import inner_model, is_compiled
from thalweg.watching.contracts import HeldBatch, Instrument, Measured, NotSeenError, Quantity, When
from thalweg.watching.cost import CostMeter
from thalweg.watching.finishing import AFTER_SPIKE, TrackWriter
from thalweg.watching.forward_scope import ModuleList, RootForward
from thalweg.watching.governor import Governor, Planned, StepPlan
from thalweg.watching.held_look import can_look, look
from thalweg.watching.instruments.effective_rate import scale_invariant_weights
from thalweg.watching.journal import Entry, Journal
from thalweg.watching.step_view import TableView

_FAILURES_ALLOWED = 3
ACCOUNT_EVERY = 25
"""Steps whose times are handed on together."""

_now = time.perf_counter
_ALL_FLOAT = {float}


class Track:
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
        shards: whether rows of which this rank has a part are looked at.
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
        shards: bool = False,
        on_first: Callable[[], None],
    ) -> None:
        self.journal, self.writer = journal, writer
        self.tries = 0
        self.stamp = self.evaluation_stamp = 0
        self.forwards_seen = False
        self._copied = False
        self.repeating = False  # whether a closure is being evaluated again within one step
        self.cost = CostMeter()
        self.owner: Any = None
        self._model, self._optimizer = ref(model), None if optimizer is None else ref(optimizer)
        self._scaler, self._memory, self._shards = scaler, memory, shards
        self._on_first: Callable[[], None] | None = on_first
        self._unseen, self._said = 0, False
        self._training_mode = False
        self._asked = scaler is not None
        self._trained = self._marked = False  # a stamp is known; it is of this step
        self.spent = 0.0
        self._last = 0.0
        self._found_inf: Tensor | None = None
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
        self.governor = Governor(looks, budget, cadence)
        self._plan = self._next = self.governor.plan(0)
        self._accounts: list[tuple[float, float, float]] = []
        self.view = self._new_view(model, optimizer)
        self.hooks = Hooks()
        self.hooks.forward_pre(model, self._forward_begins)
        if optimizer is not None:
            self.hooks.step(optimizer, self._before_step, self._after_step)

    # -- what the hooks call; none of it may raise --------------------------------------------------------

    def _forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        start = _now()
        try:
            self._training_mode = self._training_mode or module.training
            if not torch.is_grad_enabled() or module.training is not self._training_mode:
                self.evaluation_stamp = self.tries
            elif _is_of_the_loop():
                self._training_forward(module, args, kwargs)
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
            self._end_step(optimizer.param_groups, start)
        except Exception as error:
            self.tries, self._next = done, self.governor.plan(done)  # counted all the same
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
        self._look_ahead()

    # -- forwards -----------------------------------------------------------------------------------------

    def mark(self) -> None:
        """What a training forward does to the step that logs belong to: for loops whose forwards are not seen."""
        self.stamp = self.tries
        self._trained = self._marked = True

    def step_for(self, evaluation: bool) -> int:
        """The try that a log made now belongs to."""
        if evaluation:
            return max(self.stamp, self.evaluation_stamp) if self._trained else self.tries
        return self.stamp if self._trained else self.tries

    def _training_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._on_first is not None:
            self._first()
        self.stamp = self.evaluation_stamp = self.tries
        self.forwards_seen = self._trained = self._marked = True
        if self.repeating:  # the same batch, for another evaluation of a closure
            return
        view, plan = self.view, self._next
        if self._scaler is not None:
            self._look_at_scaler()
        if self._reducing is not None and view.micro_batches == 0:
            view.unreduced = not getattr(self._reducing, "require_backward_grad_sync", True)
        if plan.micro_batch and view.micro_batches and self._gradients_are_new():
            view.begin(self.tries)
            self._call(When.MICRO_BATCH, plan.micro_batch)
        view.micro_batches += 1
        view.examples += _batch_size(args, kwargs)
        if plan.forward and view.micro_batches == 1:
            self._look_at_forward(module, plan.forward)

    def _look_at_scaler(self) -> None:
        """Record the loss scale; forget the micro-batches of an update that was skipped without a call of the hooks."""
        scaler, view = self._scaler, self.view
        states = getattr(scaler, "_per_optimizer_states", None)  # a new one at each scaler.update()
        if states is None or not scaler.is_enabled():
            return
        if self._scaler_states is not states:
            self._scaler_states = states
            self._skipped_examples += view.examples
            view.micro_batches = view.examples = 0
        scale = scaler._scale  # made at the first scaler.scale(loss)
        self._loss_scale = torch.tensor(scaler.get_scale()) if scale is None else scale.detach().clone()
        self._put("scale", None, [self._loss_scale])

    def _look_at_forward(self, module: nn.Module, due: Sequence[Planned]) -> None:
        scope = RootForward(inner_model(module) if self.compiled else module, self._modules, self._deliver)
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
                return id(row.parameter.grad), row.parameter.grad._version
        return None

    # -- the step -----------------------------------------------------------------------------------------

    def _begin_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._on_first is not None:
            self._first()
        view, tick = self.view, self.tries
        plan = self._plan = self._next
        if not self._asked:
            self._ask_for_scaler()
        if fingerprint(optimizer.param_groups) != view.table.fingerprint:
            view = self._parameters_changed(optimizer)
        found = self._found_inf = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._put("skip", None, [found.detach().clone()])
        if not plan.idle:
            view.begin(tick)
            if plan.copies:
                self._keep_parameters(plan)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0] is the optimizer itself
        if closure is not None:
            return self._wrap(closure, args, kwargs)
        if not plan.idle:
            self._look_at_gradient()
        return None

    def _look_at_gradient(self) -> None:
        plan = self._plan
        due = plan.gradient
        if (
            due and self._optimizer is None
        ):  # the update is done: what reads parameters alone was asked before it
            due = tuple(p for p in due if not _reads_parameters_alone(p))
        if due:
            self._call(When.GRADIENT, due)
        if plan.keep_gradient:  # now, since an optimizer may change gradients in place
            try:
                with torch.no_grad():
                    self.view.gather_gradient()
            except Exception as error:
                self.journal.failed("gradient sample", error)

    def _look_ahead(self) -> None:
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
            self.repeating = ran
            try:
                result = closure()
            finally:
                self.repeating = False
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
        view, plan = self.view, self._plan
        if not plan.idle:
            if plan.update:
                self._call(When.UPDATE, plan.update)
            if plan.keep_gradient:
                view.keep_gradient_sample()
            view.finish_update()
        took = start - self._last if self._last else float("nan")
        self._last = start
        self._loop_row(groups, took)
        if view.micro_batches != 1 or plan.micro_batch:
            self._grad_mark = self._mark_of_gradients()
            self._unseen = 0 if view.micro_batches else self._unseen + 1
        else:
            self._unseen = 0
        view.micro_batches = view.examples = 0
        view.unclipped = None
        self._trained, self._marked = self._marked, False
        self.tries += 1
        if self._unseen == 3 and not self._said:
            self._said = True
            self._say_no_forwards()
        self.journal.ship(start)
        while self.writer.broken:
            self._failed(*self.writer.broken.popleft())
        if self.writer.triggered is not None:
            self._look_closely(self.writer.triggered)
        self._next = self.governor.plan(self.tries)
        base = spent = self.spent + (_now() - start)
        self.spent = 0.0
        for planned in plan.due:
            base -= planned.spent
            planned.settle()
        if took == took:
            self._accounts.append((took, spent, base))
            if len(self._accounts) >= ACCOUNT_EVERY:
                self._review()

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
        self._next = self.governor.plan(self.tries)
        if changed is not None:
            step = self.writer.step_of(self.tries)
            self.journal.event("cadence", step=step, periods=dict(changed), allowance=self.governor.allowance)

    def _loop_row(self, groups: Sequence[dict[str, Any]], took: float) -> None:
        rates: tuple[Any, ...] = tuple([group.get("lr") for group in groups])
        examples, self._skipped_examples = self.view.examples + self._skipped_examples, 0
        if self._found_inf is None and _ALL_FLOAT.issuperset(map(type, rates)):
            if self.journal.has_room(self.writer.rows):
                self.writer.rows.append((self.tries, time.time(), took, examples, rates))
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
        self._next = self.governor.plan(self.tries)
        kind = "burst" if under_way else "trigger"
        self.journal.event(kind, step=trigger[1], signal=self.writer.key + trigger[0])

    # -- instruments --------------------------------------------------------------------------------------

    def _call(self, when: When, due: Sequence[Planned]) -> None:
        self.view.moment = when
        graded = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # torch.no_grad() takes ten times as long inside a loop
        try:
            for planned in due:
                self._ask(planned)
        finally:
            torch._C._set_grad_enabled(graded)

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
            self._put("measured", payload, [measured.values[k] for k in keys])

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
            if self._scaler is None and _autocast_to_half():
                text = "The loop runs in float16 and no scaler= was given: loss scale and skipped updates are not recorded."
                self.journal.event("not recorded", text=text)

    def begin(self, tries: int, initial: dict[str, Tensor] | None) -> None:
        """Start counting from ``tries``; distances from ``initial`` where a checkpoint has it."""
        self.tries = self.stamp = self.evaluation_stamp = tries
        self._next = self.governor.plan(tries)
        if (model := self._model()) is not None:  # again: a normalization may have been frozen since
            self.view.scale_invariant = scale_invariant_weights(inner_model(model))
        self._keep_initial(initial)
        self._look_ahead()

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
        visible = table.rows if self._shards else tuple(r for r in table.rows if not r.sharded)
        view = TableView(
            ParamTable(visible, table.frozen, table.outside, table.fingerprint),
            optimizer_of(self._optimizer),
            self._memory,
        )
        view.scaler = self._scaler
        view.ranks = 1 if self._reducing is None else self._reducing.process_group.size()
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

    def _ask_for_scaler(self) -> None:
        """At the first step: is it made by a GradScaler that nobody told the watch of?"""
        self._asked = True
        frame = sys._getframe()
        while (outer := frame.f_back) is not None:
            frame = outer
            if frame.f_code.co_filename.endswith("grad_scaler.py"):
                text = (
                    "A GradScaler makes these steps: the loss scale, and updates that it skips, are not recorded, "
                    "nor is the noise scale. Pass it as tw.watch(..., scaler=scaler)."
                )
                self.journal.event(
                    "not recorded", signals=["amp/scale", "amp/skipped", "noise/scale"], text=text
                )
                return

    def _say_no_forwards(self) -> None:
        text = (
            "No forward of the watched model was seen in three steps: it was compiled after tw.watch(...), or by "
            "model.compile(), or the loop calls its parts. Losses are recorded at the update count of the moment "
            "they are logged, and activations, logits and examples a second are not recorded. Call tw.watch on the "
            "object that your loop calls, after torch.compile(model)."
        )
        self.journal.event("no forward seen", severity="warning", text=text)
        self.journal.warn(text)


def _reads_parameters_alone(planned: Planned) -> bool:
    quantities = planned.instrument.needs.quantities
    reads = quantities & {Quantity.PARAM, Quantity.PARAM_SAMPLE}
    return bool(reads) and not quantities & {Quantity.GRAD, Quantity.GRAD_SAMPLE}


def _is_of_the_loop() -> bool:
    """Whether a forward is neither recomputed inside a backward pass nor traced by a functional transform."""
    return torch._C._current_graph_task_id() == -1 and torch._C._functorch.peek_interpreter_stack() is None


def _autocast_to_half() -> bool:
    kinds = [kind for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)]
    return any(torch.get_autocast_dtype(kind) is torch.float16 for kind in kinds)


def optimizer_of(weak: Any) -> Any:
    """The optimizer behind a weak reference that may be None."""
    return None if weak is None else weak()


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    for value in args or kwargs.values():
        if isinstance(value, Tensor) and value.dim() > 0:
            return int(value.shape[0])
    return 0
