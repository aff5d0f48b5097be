"""What the user logs: names put in order, tensors copied at once, nothing waited for."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from thalweg.record.roles import guess_role
from thalweg.record.signals import Role
from thalweg.watching.journal import Entry, Journal
from thalweg.watching.track import Track

_EVALUATION = ("evaluation loss", "evaluation metric")


class UserLog:
    """Turns calls of ``watch.log`` into entries.

    Args:
        reserved: names that instruments write; a user's own of that name goes to ``user/``.
    """

    def __init__(self, reserved: frozenset[str], accelerated: bool) -> None:
        self._reserved, self._accelerated = reserved, accelerated
        self._orders: dict[tuple[str, ...], tuple[tuple[str, ...], bool | None]] = {}
        self._names: dict[tuple[str, str], tuple[str, bool]] = {}

    def declared(self, name: str, role: Role) -> str:
        """The name a signal with this role is recorded under."""
        full, evaluation = self._resolve(name, "")
        self._names[(name, "")] = (full, is_evaluation(full, role) if role else evaluation)
        self._orders.clear()
        return full

    def put(
        self, given: Mapping[str, Any], prefix: str, step: int | None, track: Track, journal: Journal
    ) -> None:
        """Leave the values for the record: scalars of training and of evaluation, and each that is no scalar."""
        key = (prefix, *given)
        known = self._orders.get(key)
        if known is None:
            known = self._orders[key] = self._order(given, prefix)
        names, evaluation = known
        if evaluation is not None and not self._accelerated:
            try:
                numbers = [float(v.item()) if type(v) is Tensor else _number(v) for v in given.values()]
            except (TypeError, ValueError, RuntimeError):  # something that is no plain number
                self._put_slowly(given, prefix, step, track, journal)
            else:
                if journal.has_room(track.writer.logs):
                    track.writer.logs.append((track.step_for(evaluation), time.time(), names, numbers, step))
        else:
            self._put_slowly(given, prefix, step, track, journal)

    def _order(self, given: Mapping[str, Any], prefix: str) -> tuple[tuple[str, ...], bool | None]:
        """Full names, and whether all are of evaluation; None where they are mixed."""
        resolved = [self._resolve(name, prefix) for name in given]
        kinds = {evaluation for _, evaluation in resolved}
        return tuple(n for n, _ in resolved), kinds.pop() if len(kinds) == 1 else None

    def _put_slowly(
        self, given: Mapping[str, Any], prefix: str, step: int | None, track: Track, journal: Journal
    ) -> None:
        groups: dict[bool, tuple[list[str], list[float | None], list[Tensor]]] = {}
        for name, value in given.items():
            full, evaluation = self._resolve(name, prefix)
            number = _scalar(value)
            if number is None and not _is_scalar_elsewhere(value):
                for entry in self._not_scalar(full, value, step, track, evaluation, journal):
                    journal.put(entry)
                continue
            names, numbers, tensors = groups.setdefault(evaluation, ([], [], []))
            names.append(full)
            numbers.append(number)
            if number is None:
                tensors.append(value.detach().clone())
        for evaluation, (names, numbers, tensors) in groups.items():
            payload = (tuple(names), numbers, step)
            journal.put(Entry("log", track.writer, track.step_for(evaluation), payload, tensors))

    def _not_scalar(
        self, name: str, value: Any, step: int | None, track: Track, evaluation: bool, journal: Journal
    ) -> list[Entry]:
        tick = track.step_for(evaluation)
        if isinstance(value, Tensor) and value.numel() and not value.is_complex():
            return [Entry("vector", track.writer, tick, (name, None, step), [value.detach().clone()])]
        array = None if isinstance(value, (Tensor, str)) else _array(value)
        if array is not None:
            return [Entry("vector", track.writer, tick, (name, array, step), [])]
        journal.failed(
            "log", TypeError(f"{name!r} is {type(value).__name__}, which is no number; not recorded")
        )
        return []

    def _resolve(self, name: str, prefix: str) -> tuple[str, bool]:
        known = self._names.get((name, prefix))
        if known is None:
            full = f"{prefix.rstrip('/')}/{name}" if prefix and name != "tokens" else name
            if full in self._reserved or any(full.startswith(r) for r in self._reserved if r.endswith("/")):
                full = f"user/{full}"
            known = self._names[(name, prefix)] = (full, is_evaluation(full))
        return known


def is_evaluation(name: str, role: Role = "") -> bool:
    """Whether a signal is of evaluation: by its role, else by a word such as eval in its name, whatever was measured."""
    return (role or guess_role(f"{name}/loss")) in _EVALUATION


def _number(value: Any) -> float:
    """The value as a float; a TypeError for text and for what has several elements."""
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(value.detach() if isinstance(value, Tensor) else value)


def _scalar(value: Any) -> float | None:
    """The number, where the host has it already; None for tensors elsewhere and for what is no scalar."""
    if isinstance(value, (float, int)):
        return float(value)
    if isinstance(value, Tensor):
        here = value.device.type == "cpu" and value.numel() == 1 and not value.is_complex()
        return float(value.item()) if here else None
    return float(value) if isinstance(value, (np.floating, np.integer, np.bool_)) else None


def _is_scalar_elsewhere(value: Any) -> bool:
    """Whether it is a number that an accelerator has."""
    return isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    if value is None or isinstance(value, (str, bytes)):
        return None
    try:
        array = np.asarray(value)
        return None if array.dtype.kind in "SUc" or not array.size else array.astype(np.float64)
    except Exception:  # whatever a stranger's object raises when it is asked for its numbers
        return None
