"""Thalweg in an Accelerate loop: ``Accelerator(log_with=ThalwegTracker())``, or two lines without trackers.

The tracker hears what the ``Accelerator``'s ``backward`` is given (the loss of every micro-batch) and what its
``clip_grad_norm_`` returns (the norm before clipping); what goes to ``accelerator.log`` is recorded as well. The steps
are the updates that the watch counts itself: the ``step`` given to ``accelerator.log`` may count batches or epochs.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from thalweg.integrations.extras import explained

try:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker
except ImportError as error:
    raise explained(error, "accelerate", "accelerate") from error

from thalweg.core.errors import UsageError
from thalweg.integrations.fits import FitWatcher, guarded, numbers_of, save_state
from thalweg.integrations.overhearing import Overheard, caller
from thalweg.integrations.raw_norm import overhear_clipping
from thalweg.watching import Watch

_LARGEST_WAITING = 1000


class ThalwegTracker(FitWatcher, GeneralTracker):  # type: ignore[misc]  # accelerate is not followed: a base of type Any
    """Watches an Accelerate loop; takes every keyword of `thalweg.watch`.

    As a tracker: ``Accelerator(log_with=ThalwegTracker())``, then ``accelerator.init_trackers(...)`` as usual. Without
    trackers: ``ThalwegTracker().attach(accelerator)``. The watch begins there if model and optimizer are prepared
    already, else at the first backward. ``save_state`` puts a small file ``thalweg.pt`` into its folder, from
    which ``load_state`` continues the same run as a new segment.

    Raises:
        UsageError: a value that can't be used.
        TypeError: a keyword that `thalweg.watch` doesn't have.
    """

    name = "thalweg"
    requires_logging_directory = False
    main_process_only = False

    def _reset(self) -> None:
        self._accelerator: Any = None
        self._targets: tuple[Any, Any] = (None, None)
        self._config: dict[str, Any] = {}
        self._state: dict[str, Any] | None = None
        self._waiting: list[dict[str, Any]] = []
        self._removable: list[Any] = []
        self._refused = False

    @property
    def tracker(self) -> Watch | None:
        """`watch`, as Accelerate calls it: ``accelerator.get_tracker("thalweg", unwrap=True)``."""
        return self._fits.watch

    @guarded
    def attach(self, accelerator: Any, model: Any = None, optimizer: Any = None) -> None:
        """Follow a loop.

        Args:
            accelerator: the ``Accelerator`` of the loop.
            model: what the loop calls; by default the model that was prepared with the optimizer. Needed where
                several models have optimizers: see `thalweg.watch` for dictionaries.
            optimizer: by default all that were prepared.
        """
        self._detach("watched anew")
        self._accelerator, self._targets, self._refused = accelerator, (model, optimizer), False
        self._removable = [
            Overheard(accelerator, "backward", self._loss_heard),
            accelerator.register_save_state_pre_hook(self._saving),
            accelerator.register_load_state_pre_hook(self._loading),
        ]
        with contextlib.suppress(UsageError):  # prepared later, or told at the first backward
            self._targets = (model, optimizer) if model is not None else prepared(accelerator, optimizer)
            self._begin()

    # -- what Accelerate calls ----------------------------------------------------------------------------

    @guarded
    def start(self) -> None:
        """Called by ``accelerator.init_trackers``."""
        accelerator, _ = caller(Accelerator)
        if accelerator is None:
            self._fits.warn(
                "The Accelerator was not found: call ThalwegTracker.attach(accelerator) yourself."
            )
        elif accelerator is not self._accelerator:
            self.attach(accelerator)

    @guarded
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the settings given to ``init_trackers``."""
        self._config = dict(values)
        if watch := self._fits.live:
            watch.recorder.set_meta("config", {**self._config, **(self._fits.options.get("config") or {})})

    @guarded
    def log(self, values: Mapping[str, Any], step: int | None = None, **options: Any) -> None:
        """Record the numbers given to ``accelerator.log``, at the updates done; ``step`` is not used."""
        named = {("user/loss" if k == "loss" else k): v for k, v in numbers_of(values).items()}
        if watch := self._fits.live:
            watch.log(named)
        elif self._accelerator is not None and len(self._waiting) < _LARGEST_WAITING:
            self._waiting.append(named)

    @guarded
    def finish(self) -> None:
        """Close the run: called by ``accelerator.end_training()``."""
        self._detach("closed")

    # -- inside -------------------------------------------------------------------------------------------

    def _loss_heard(self, result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A micro-batch's loss, not yet divided by the accumulation: the watch takes the mean."""
        try:
            if not self._fits.live and not self._refused:
                self._begin()
            loss = args[0] if args else kwargs.get("loss")
            if (watch := self._fits.live) is not None and isinstance(loss, Tensor):
                watch.log({"loss": loss})
        except Exception as error:
            self._refused = True
            self._fits.failed("backward", error)

    def _begin(self) -> None:
        accelerator, (model, optimizer) = self._accelerator, self._targets
        if model is None:
            model, optimizer = prepared(accelerator, optimizer)
        state, self._state = self._state, None
        self._fits.begin(model, optimizer, scaler=accelerator.scaler, config=self._config, state=state)
        watch = self._fits.live
        self._refused = watch is None
        if watch is not None:
            self._removable.append(overhear_clipping(accelerator, watch, self._fits.failed))
            for values in self._waiting:
                watch.log(values)
        self._waiting = []

    @guarded
    def _saving(self, models: Any, weights: Any, folder: str) -> None:
        if (watch := self._fits.live) is not None and self._accelerator.is_main_process:
            save_state(watch, folder)

    @guarded
    def _loading(self, models: Any, folder: str) -> None:
        """A checkpoint is loaded: go on with its run, from the next backward on."""
        state = self._fits.load_state(folder)
        watch = self._fits.live
        if state is None:
            return
        if watch is not None and watch.updates == 0:
            watch.load_state_dict(state)
            return
        self._fits.end("resumed from a checkpoint")
        self._remove_clipping()
        self._state = state

    def _remove_clipping(self) -> None:
        for heard in [r for r in self._removable if getattr(r, "__name__", "") == "clip_grad_norm_"]:
            heard.remove()
            self._removable.remove(heard)

    def _detach(self, reason: str) -> None:
        for removable in self._removable:
            removable.remove()
        self._removable, self._accelerator, self._waiting = [], None, []
        self._fits.end(reason)


def prepared(accelerator: Any, optimizer: Any = None) -> tuple[Any, Any]:
    """The model and optimizer that ``accelerator.prepare`` was given.

    Raises:
        UsageError: none was prepared, or it is not clear which belong together.
    """
    optimizers = list(accelerator._optimizers) if optimizer is None else [optimizer]
    models = [m for m in accelerator._models if any(_share(m, o) for o in optimizers)]
    if len(models) != 1:
        raise UsageError(
            f"{len(accelerator._models)} models and {len(optimizers)} optimizers are prepared, and {len(models)} of the "
            "models have an optimizer: say what to watch, by ThalwegTracker().attach(accelerator, model, optimizer), "
            'or with dictionaries: attach(accelerator, {"G": g, "D": d}, {"G": og, "D": od}).'
        )
    return models[0], optimizers[0] if len(optimizers) == 1 else optimizers


def _share(model: Any, optimizer: Any) -> bool:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return any(id(p) in held for p in model.parameters())
