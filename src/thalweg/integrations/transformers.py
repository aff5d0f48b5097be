"""Thalweg in a Hugging Face ``Trainer``: ``Trainer(..., callbacks=[ThalwegCallback()])``.

What the Trainer tells its callbacks is little: losses are means over ``logging_steps``. So the callback looks up who
is calling it, and hears what ``Trainer.training_step`` and ``Accelerator.clip_grad_norm_`` return: the loss of every
update and the norm before clipping, with nothing computed twice. Both are plain methods again when training ends.

The Trainer's steps and the record's: a log at ``global_step`` s comes after update s, and its values are of the
updates before, so they are recorded at step s - 1, that of the last loss they hold; evaluations are of the model
after s updates, and are recorded at step s.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg.integrations.extras import explained

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise explained(error, "transformers", "transformers") from error

from thalweg.integrations.fits import FitWatcher, guarded, numbers_of, save_state
from thalweg.integrations.overhearing import Overheard, caller
from thalweg.integrations.raw_norm import overhear_clipping
from thalweg.watching import Watch

_OWN = {"loss": "train loss", "grad_norm": "gradient norm", "learning_rate": "rate"}
_COUNTED_ELSEWHERE = (
    "epoch",
    "step",
    "total_flos",
    "num_input_tokens_seen",
    "train_runtime",
    "train_tokens_per_second",
)


class ThalwegCallback(FitWatcher, TrainerCallback):  # type: ignore[misc]  # transformers is not followed: a base of type Any
    """Watches each ``trainer.train()``; takes every keyword of `thalweg.watch`.

    Recorded beside the default instruments: ``loss`` at every update, ``grad/norm_raw`` (before clipping) and
    ``grad/clipped`` where ``max_grad_norm`` is set, ``trainer/loss``, ``trainer/grad_norm`` and
    ``trainer/learning_rate`` as the Trainer logs them, ``eval/...`` for each ``eval_...``, ``epoch``, and ``tokens`` if
    the Trainer counts them. A checkpoint gets a small file ``thalweg.pt``, from which
    ``train(resume_from_checkpoint=...)`` continues the same run as a new segment.

    Raises:
        UsageError: a value that can't be used.
        TypeError: a keyword that `thalweg.watch` doesn't have.
    """

    _overheard: list[Overheard]
    _loss: Any
    _sets: tuple[str, ...]

    # -- what the Trainer calls ---------------------------------------------------------------------------

    @guarded
    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Start a watch, on the object that the Trainer's loop calls."""
        self._finish("watched anew")
        trainer, names = caller(Trainer)
        checkpoint = names.get("resume_from_checkpoint") or _checkpoint(args, state)
        optimizer = known.get("optimizer")
        self._fits.begin(
            known["model"] if trainer is None else trainer.model_wrapped,
            optimizer,
            scaler=getattr(optimizer, "scaler", None),
            name=getattr(args, "run_name", None),
            config=_config(args, known.get("model")),
            state=self._fits.load_state(checkpoint) if checkpoint else None,
        )
        watch = self._fits.live
        if watch is None:
            return
        self._logged_at, self._tokens_at = state.global_step, state.num_input_tokens_seen
        if trainer is None:
            self._fits.warn("The Trainer was not found: its loss is recorded at its logging steps only.")
            return
        sets = getattr(trainer, "eval_dataset", None)
        self._sets = tuple(sets) if isinstance(sets, dict) else ()
        self._overheard = [
            Overheard(trainer, "training_step", self._loss_heard, self._step_failed),
            overhear_clipping(trainer.accelerator, watch, self._fits.failed),
        ]

    @guarded
    def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Say where the next update's forwards begin."""
        self._loss = None
        if watch := self._fits.live:
            watch.stamp()

    @guarded
    def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Record the update's loss, and its tokens if the Trainer counts them."""
        if (watch := self._fits.live) is None:
            return
        seen, tokens = state.num_input_tokens_seen, None
        if seen != self._tokens_at:
            tokens, self._tokens_at = float(seen - self._tokens_at), seen
        watch.log({} if self._loss is None else {"loss": self._loss}, tokens=tokens)
        self._loss = None

    @guarded
    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **known: Any
    ) -> None:
        """Record what the Trainer logs: training values at the last update's step, evaluations after it."""
        if (watch := self._fits.live) is None or not logs:
            return
        values = numbers_of(logs)
        if "train_runtime" in values and "loss" not in values:
            watch.event("training finished", **values)
            return
        training, evaluation = split_names(values, self._sets)
        if training:
            watch.log(training)
            self._declare(watch, training, state.global_step)
        if "epoch" in values:
            evaluation["epoch"] = values["epoch"]
        watch.log(evaluation, step=watch.updates)

    @guarded
    def on_save(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Put the watch's state into the checkpoint."""
        if (watch := self._fits.live) is not None and state.is_world_process_zero:
            trainer, names = caller(Trainer)
            folder = trainer._get_output_dir(names.get("trial")) if trainer is not None else args.output_dir
            save_state(watch, Path(folder) / f"checkpoint-{state.global_step}")

    @guarded
    def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Close the run."""
        self._finish("closed")

    # -- inside -------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._overheard = []
        self._loss = None
        self._sets = ()
        self._logged_at = self._tokens_at = self._window = 0

    def _loss_heard(self, loss: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A micro-batch's part of the loss: the Trainer has divided it already, so the parts are added."""
        try:
            self._loss = loss if self._loss is None else self._loss + loss
        except Exception as error:
            self._fits.failed("training_step", error)

    def _step_failed(self, error: BaseException) -> None:
        """An exception leaves the training step, and with it the training: no callback is told of it."""
        try:
            self._finish(type(error).__name__)
        except Exception as another:
            self._fits.failed("closing", another)

    def _declare(self, watch: Watch, names: Mapping[str, Any], step: int) -> None:
        """Say over how many updates the Trainer's mean loss goes, which may change from log to log."""
        if "trainer/loss" in names and step - self._logged_at > self._window:
            self._window = step - self._logged_at
            words = "mean over the Trainer's logging interval"
            watch.recorder.declare("trainer/loss", role="train loss", window=self._window, estimator=words)
        if "trainer/loss" in names:
            self._logged_at = step
        if "trainer/grad_norm" in names:
            watch.recorder.declare("trainer/grad_norm", role="gradient norm", stage="raw")

    def _finish(self, reason: str) -> None:
        for overheard in self._overheard:
            overheard.remove()
        self._fits.end(reason)
        self._reset()


def split_names(
    values: Mapping[str, Any], sets: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Trainer's names as signals: those of training, and those of evaluation.

    Args:
        values: what was logged.
        sets: names of the evaluation sets, where there are several.

    >>> split_names({"loss": 2.0, "eval_loss": 3.0, "rewards/chosen": 1.0, "epoch": 0.5})
    ({'trainer/loss': 2.0, 'rewards/chosen': 1.0}, {'eval/loss': 3.0})
    >>> split_names({"eval_wiki_loss": 3.0}, ("wiki",))
    ({}, {'eval/wiki/loss': 3.0})
    """
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    for name, value in values.items():
        group, _, rest = name.partition("_")
        if group in ("eval", "test") and rest:
            of = next((s for s in sorted(sets, key=len, reverse=True) if rest.startswith(f"{s}_")), "")
            path = f"{of}/{rest.removeprefix(of + '_')}" if of else rest
            evaluation[f"{group}/{path}"] = value
        elif name not in _COUNTED_ELSEWHERE:
            training[f"trainer/{name}" if name in _OWN else name] = value
    return training, evaluation


def _checkpoint(args: Any, state: Any) -> str | None:
    """The folder of the checkpoint that training goes on from, where the Trainer doesn't say: the usual place."""
    return str(Path(args.output_dir) / f"checkpoint-{state.global_step}") if state.global_step else None


def _config(args: Any, model: Any) -> dict[str, Any]:
    config: dict[str, Any] = {**args.to_dict(), "train_batch_size": args.train_batch_size}
    own: Any = getattr(model, "config", None)
    if hasattr(own, "to_dict"):
        config["model"] = {k: v for k, v in own.to_dict().items() if k != "_name_or_path"}
    return {k: v for k, v in config.items() if not (isinstance(v, float) and math.isnan(v))}
