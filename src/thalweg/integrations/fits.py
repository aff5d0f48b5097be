"""One watch for each fit: what the integrations share.

A callback outlives a fit and may see several; each fit gets a watch of its own, and so a run file of its own, or
a new segment of the run that a checkpoint was of. From here on nothing raises into the user's loop.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast

import numpy as np
import torch
from torch import Tensor

from thalweg.core.errors import ThalwegWarning
from thalweg.integrations.options import WatchOptions, checked
from thalweg.record import open_run
from thalweg.watching import Watch, watch
from thalweg.watching.planning import path_of

STATE_FILE = "thalweg.pt"
"""What is put into a checkpoint's folder, so that a later process goes on with the same run."""

Method = TypeVar("Method", bound=Callable[..., Any])


class Fits:
    """Starts and ends watches with one set of options.

    Args:
        options: keywords of `thalweg.watch`.

    Attributes:
        watch: that of the present or last fit; None before the first.

    Raises:
        UsageError: a value that can't be used.
        TypeError: a keyword that `thalweg.watch` doesn't have.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = checked(options)
        self.watch: Watch | None = None
        self._live = False
        self._fits = 0
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Options only: a copy, or one sent to another process, has not watched anything yet."""
        return {"options": self.options}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["options"])  # type: ignore[misc]  # a copy begins as a new one does

    @property
    def live(self) -> Watch | None:
        """The watch of the fit under way, if it records anything."""
        return self.watch if self._live and self.watch is not None and self.watch.on else None

    def begin(
        self,
        model: Any,
        optimizer: Any,
        *,
        scaler: Any = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Watch a fit; one that is still under way ends.

        Args:
            model: see `thalweg.watch`.
            optimizer: see `thalweg.watch`.
            scaler: the GradScaler, unless the user named one.
            name: what to call the run, unless the user said so.
            config: settings to keep; the user's own come on top.
            state: ``watch.state_dict()`` from the checkpoint that the fit starts from.
        """
        self.end("watched anew")
        self._fits += 1
        options = {**self.options, "config": {**(config or {}), **(self.options.get("config") or {})}}
        options["name"] = options.get("name") or name
        options["scaler"] = options.get("scaler") if options.get("scaler") is not None else scaler
        state = self._find(state) if state else None
        if state is not None and Path(state["path"]).exists():
            options |= {"out": None, "resume": state["path"]}
        elif options.get("out") is not None and not options.get("resume"):
            options["out"] = self._free(path_of(options["out"]))
        self.watch = watch(model, optimizer, **options)
        self._live = True
        if state is not None:
            self.watch.load_state_dict(state)

    def end(self, reason: str = "closed") -> None:
        """End the fit's watch, if there is one."""
        if self._live and self.watch is not None:
            self._live = False
            self.watch.close(reason)

    def load_state(self, folder: str | Path) -> dict[str, Any] | None:
        """What `save_state` put into a checkpoint's folder; None if there is nothing that can be read."""
        path = Path(folder) / STATE_FILE
        try:
            state: dict[str, Any] | None = (
                torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
            )
        except Exception as error:
            self.failed(f"{path} can't be read, so a new run begins", error)
            return None
        return state

    def failed(self, where: str, error: Exception) -> None:
        """Show what went wrong, once; the loop goes on."""
        text = f"{where}: {type(error).__name__}: {error}"
        if text not in self._told:
            self._told.add(text)
            self.warn(f"Thalweg could not do its part and leaves the training alone. {text}")

    @staticmethod
    def warn(text: str) -> None:
        """Show a warning, even where warnings are errors."""
        with contextlib.suppress(Exception):
            warnings.warn(text, ThalwegWarning, stacklevel=4)

    def _find(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state, with the place where its run is now: files move, and checkpoints are copied."""
        out = self.options.get("out")
        if Path(state["path"]).exists() or out is None or not path_of(out).exists():
            return state
        here = path_of(out)
        return {**state, "path": str(here)} if open_run(here).id == state["run_id"] else state

    def _free(self, path: Path) -> Path:
        """The path, or if a run is there already, the next free one beside it."""
        free, n = path, 1
        while free.exists():
            n += 1
            free = path.with_name(f"{path.stem}-{n}{path.suffix}")
        if n > 1 and self._fits == 1:
            self.warn(
                f"{path} exists and nothing is overwritten: this run goes to {free.name} beside it. Choose another "
                "out=, or pass resume=True to continue the run that is there."
            )
        return free


class FitWatcher:
    """What the callbacks share: options, a watch for each fit, and copies that have not watched anything yet.

    A subclass names its library's base class after this one, and puts its own state into `_reset`.

    Args:
        **options: every keyword of `thalweg.watch`.

    Raises:
        UsageError: a value that can't be used.
        TypeError: a keyword that `thalweg.watch` doesn't have.
    """

    def __init__(self, **options: Unpack[WatchOptions]) -> None:
        self._fits = Fits(options)
        self._reset()
        super().__init__()

    @property
    def watch(self) -> Watch | None:
        """The `Watch` of the present or last fit; None before the first."""
        return self._fits.watch

    def __getstate__(self) -> dict[str, Any]:
        return {"_fits": self._fits}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._fits = state["_fits"]
        self._reset()

    def _reset(self) -> None:
        """Back to before the first fit."""


def guarded(method: Method) -> Method:
    """A method that shows its exceptions as warnings and returns None, so that none reaches the user's loop.

    For methods of a `FitWatcher`.
    """

    @functools.wraps(method)
    def quiet(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self._fits.failed(method.__name__, error)
            return None

    return cast(Method, quiet)


def numbers_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that are one number: Python's, NumPy's, or tensors."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float, np.number)) or (isinstance(value, Tensor) and value.numel() == 1)
    }


def state_of(watched: Watch) -> dict[str, Any]:
    """The watch's state, of types that ``torch.load(weights_only=True)`` takes; empty if the watch is off.

    Raises:
        TypeError: an instrument's state holds something else.
    """
    state: dict[str, Any] = _plain(watched.state_dict())
    return state


def save_state(watched: Watch, folder: str | Path) -> None:
    """Put the watch's state into a checkpoint's folder, if that exists and the watch records."""
    state = state_of(watched)
    if state and Path(folder).is_dir():
        torch.save(state, Path(folder) / STATE_FILE)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if value is None or isinstance(value, (Tensor, str, bool, int, float)):
        return value
    raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")
