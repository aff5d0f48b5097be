"""Thalweg in a Lightning ``Trainer``: ``Trainer(..., callbacks=[ThalwegCallback()])``.

Lightning calls ``training_step`` and not the module itself, so the callback stamps each batch; the forward that is
looked at is that of the only child that holds parameters, where there is one, else of the module or of what the
strategy wraps around it. With automatic optimization the forward and the backward run inside ``optimizer.step``, as
its closure.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from thalweg.integrations.extras import explained

try:
    _ALONE = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    Callback = import_module("pytorch_lightning" if _ALONE else "lightning.pytorch").Callback
except ImportError as error:
    raise explained(error, "lightning", "lightning") from error

from thalweg.integrations.fits import FitWatcher, guarded, numbers_of, state_of
from thalweg.integrations.raw_norm import measure_norm
from thalweg.record import guess_role
from thalweg.watching import Watch

_SETTINGS = (
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
    "world_size",
    "num_nodes",
    "log_every_n_steps",
)


class ThalwegCallback(FitWatcher, Callback):  # type: ignore[misc,valid-type]  # one of two packages, chosen by what the user imports
    """Watches each ``trainer.fit()``; takes every keyword of `thalweg.watch`.

    Recorded beside the default instruments: ``loss`` at every update (what ``training_step`` returns; with manual
    optimization and one optimizer, what goes to ``manual_backward`` if it returns none), ``grad/norm_raw`` and
    ``grad/clipped`` where ``gradient_clip_val`` is set, and what the module logs by ``self.log``: training values at
    ``log_every_n_steps``, validation values after each validation. The checkpoint holds what
    ``trainer.fit(ckpt_path=...)`` needs to continue the same run as a new segment.

    Raises:
        UsageError: a value that can't be used.
        TypeError: a keyword that `thalweg.watch` doesn't have.
    """

    _state: dict[str, Any] | None
    _losses: list[Tensor]
    _seen: dict[str, Any]

    # -- what Lightning calls -----------------------------------------------------------------------------

    @guarded
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start a watch: the optimizers exist and a checkpoint is loaded."""
        state = self._state
        self._reset()
        optimizers = list(trainer.optimizers)
        self._fits.begin(
            root_of(pl_module, trainer.strategy.model),
            optimizers[0] if len(optimizers) == 1 else optimizers or None,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            config=_config(trainer, pl_module),
            state=state,
        )
        watch = self._fits.live
        if watch is not None and len(optimizers) > 1:
            words = "with several optimizers there is no one loss: log each by self.log"
            watch.event("not recorded", signal="loss", text=words)

    @guarded
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Say where a batch's forward begins."""
        self._losses = []
        if watch := self._fits.live:
            watch.stamp()

    @guarded
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Keep what is minimized, for modules whose ``training_step`` returns no loss."""
        if self._fits.live is not None and not pl_module.automatic_optimization:
            self._losses.append(loss.detach().clone())

    @guarded
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure the gradient norm before Lightning clips it, which tells nobody."""
        limit, by_value = trainer.gradient_clip_val, "value" in str(trainer.gradient_clip_algorithm).lower()
        if (watch := self._fits.live) is None or not limit or by_value:
            return
        for index, known in enumerate(trainer.optimizers):
            if known is optimizer:
                measure_norm(watch, optimizer, float(limit), index)

    @guarded
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the batch's loss; at Lightning's own cadence also what the module logged."""
        if (watch := self._fits.live) is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            watch.log({"loss": loss.detach() * parts if parts != 1 else loss})
        elif self._losses and len(trainer.optimizers) == 1:
            for part in self._losses:
                watch.log({"loss": part})
        self._losses = []
        self._batches += 1
        if self._batches % max(trainer.log_every_n_steps, 1) == 0:
            self._log_news(trainer, watch)

    @guarded
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember what training has logged, so as to tell it from what validation logs."""
        if self._fits.live is not None:
            self._seen = dict(trainer.callback_metrics)

    @guarded
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what validation logged, as values of the model after the updates so far."""
        if (watch := self._fits.live) is not None and not trainer.sanity_checking:
            self._log_news(trainer, watch, validation=True)

    @guarded
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record what Lightning reduced over the epoch before, once all ranks have it."""
        if (watch := self._fits.live) is not None:
            self._log_news(trainer, watch)

    @guarded
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what Lightning reduced over the last epoch."""
        if (watch := self._fits.live) is not None:
            self._log_news(trainer, watch)

    @guarded
    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the run."""
        self._fits.end("closed")

    @guarded
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the run with the exception's name."""
        self._fits.end(type(exception).__name__)

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint needs to go on with the run; empty if it can't be had."""
        return self._saved() or {}

    @guarded
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what the checkpoint holds until the fit begins."""
        self._state = dict(state_dict)

    # -- inside -------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._state = None
        self._losses = []
        self._seen = {}
        self._batches = 0

    @guarded
    def _saved(self) -> dict[str, Any] | None:
        return state_of(self.watch) if self.watch is not None else self._state

    def _log_news(self, trainer: Any, watch: Watch, *, validation: bool = False) -> None:
        """Record those of Lightning's metrics that are new since the last look."""
        now = dict(trainer.callback_metrics)
        news = {k: v for k, v in now.items() if v is not self._seen.get(k)}
        self._seen = now
        named = {signal_name(k, validation): v for k, v in numbers_of(without_twins(news)).items()}
        watch.log(named, step=watch.updates if validation else None)


def root_of(module: nn.Module, wrapped: nn.Module | None) -> nn.Module:
    """The object whose forward is one forward of the training: see the module's docstring."""
    holders = [c for c in module.children() if any(True for _ in c.parameters())]
    own = any(True for _ in module.parameters(recurse=False))
    if len(holders) == 1 and not own and not isinstance(holders[0], (nn.ModuleList, nn.ModuleDict)):
        return holders[0]
    return wrapped if isinstance(wrapped, nn.Module) else module


def without_twins(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without the plain name of one that Lightning also gives as ``_step`` or ``_epoch``.

    >>> without_twins({"a": 1, "a_step": 1, "b": 2})
    {'a_step': 1, 'b': 2}
    """
    return {k: v for k, v in metrics.items() if f"{k}_step" not in metrics and f"{k}_epoch" not in metrics}


def signal_name(name: str, validation: bool) -> str:
    """A logged name as a signal: what comes from validation always looks so, and ``loss`` stays ours.

    >>> signal_name("val_loss", True), signal_name("accuracy", True), signal_name("loss", False)
    ('val_loss', 'val/accuracy', 'user/loss')
    >>> signal_name("val_loss/dataloader_idx_1", True)
    'dataloader_1/val_loss'
    """
    plain, _, loader = name.partition("/dataloader_idx_")
    if validation and not guess_role(plain).startswith("evaluation"):
        plain = f"val/{plain}"
    elif plain == "loss":
        plain = "user/loss"
    return f"dataloader_{loader}/{plain}" if loader else plain


def _config(trainer: Any, module: Any) -> dict[str, Any]:
    settings = {k: getattr(trainer, k) for k in _SETTINGS if getattr(trainer, k, None) is not None}
    return {**dict(getattr(module, "hparams", None) or {}), "trainer": settings}
