"""What the user logs: names put in order, tensors copied at once, nothing waited for."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from thalweg.record.roles import guess_role
from thalweg.record.signals import Role
from thalweg.watching.journal import Entry
from thalweg.watching.track import Track

_clock = time.time
_EVALUATION = ("evaluation loss", "evaluation metric")


class UserLog:
    """Turns calls of ``watch.log`` into entries.

    Args:
        reserved: names that instruments write; a user's own of that name goes to ``user/``.
        track: whose steps they belong to.
    """

    __slots__ = ("_names", "_orders", "_plain", "_reserved", "_room", "_rows", "_track")

    def __init__(self, reserved: frozenset[str], track: Track) -> None:
        self._track, self._rows, self._room = track, track.writer.logs, track.journal.room
        self._plain = not track.journal.accelerated  # whether reading a tensor's number costs no waiting
        self._reserved = reserved
        self._orders: dict[tuple[str, ...], tuple[tuple[str, ...], bool | None]] = {}
        self._names: dict[str, tuple[str, bool]] = {}

    def declared(self, name: str, role: Role) -> str:
        """The name a signal with this role is recorded under."""
        full, evaluation = self._resolve(name)
        self._names[name] = (full, is_evaluation(full, role) if role else evaluation)
        self._orders.clear()
        return full

    def put(self, given: Mapping[str, Any], prefix: str, step: int | None) -> None:
        """Leave the values for the record: scalars of training and of evaluation, and each that is no scalar."""
        if prefix:
            given = {_joined(prefix, name): value for name, value in given.items()}
        order = tuple(given)
        known = self._orders.get(order)
        if known is None:
            known = self._orders[order] = self._order(order)
        names, evaluation = known
        if evaluation is None or not self._plain:
            self._put_slowly(given, step)
            return
        numbers = []
        try:
            for value in given.values():
                numbers.append(float(value.item()) if type(value) is Tensor else _number(value))
        except (TypeError, ValueError, RuntimeError):  # something that is no plain number
            self._put_slowly(given, step)
            return
        if len(self._rows) < self._room:
            self._rows.append((self._track.step_for(evaluation), _clock(), names, numbers, step))
        else:
            self._track.journal.dropped += 1

    def _order(self, given: Sequence[str]) -> tuple[tuple[str, ...], bool | None]:
        """Full names, and whether all are of evaluation; None where they are mixed."""
        resolved = [self._resolve(name) for name in given]
        kinds = {evaluation for _, evaluation in resolved}
        return tuple(n for n, _ in resolved), kinds.pop() if len(kinds) == 1 else None

    def _put_slowly(self, given: Mapping[str, Any], step: int | None) -> None:
        track = self._track
        groups: dict[bool, tuple[list[str], list[float | None], list[Tensor]]] = {}
        for name, value in given.items():
            full, evaluation = self._resolve(name)
            number = _scalar(value)
            if number is None and not _is_scalar_elsewhere(value):
                for entry in self._not_scalar(full, value, step, evaluation):
                    track.journal.put(entry)
                continue
            names, numbers, tensors = groups.setdefault(evaluation, ([], [], []))
            names.append(full)
            numbers.append(number)
            if number is None:
                tensors.append(value.detach().clone())
        for evaluation, (names, numbers, tensors) in groups.items():
            payload = (tuple(names), numbers, step)
            track.journal.put(Entry("log", track.writer, track.step_for(evaluation), payload, tensors))

    def _not_scalar(self, name: str, value: Any, step: int | None, evaluation: bool) -> list[Entry]:
        track = self._track
        tick = track.step_for(evaluation)
        if isinstance(value, Tensor) and value.numel() and not value.is_complex():
            return [Entry("vector", track.writer, tick, (name, None, step), [value.detach().clone()])]
        array = None if isinstance(value, (Tensor, str)) else _array(value)
        if array is not None:
            return [Entry("vector", track.writer, tick, (name, array, step), [])]
        track.journal.failed(
            "log", TypeError(f"{name!r} is {type(value).__name__}, which is no number; not recorded")
        )
        return []

    def _resolve(self, name: str) -> tuple[str, bool]:
        """The name it is recorded under, and whether it is of an evaluation."""
        known = self._names.get(name)
        if known is None:
            taken = name in self._reserved or any(
                name.startswith(r) for r in self._reserved if r.endswith("/")
            )
            full = f"user/{name}" if taken else name
            known = self._names[name] = (full, is_evaluation(full))
        return known


def is_evaluation(name: str, role: Role = "") -> bool:
    """Whether a signal is of evaluation: by its role, else by a word such as eval in its name, whatever was measured."""
    return (role or guess_role(f"{name}/loss")) in _EVALUATION


def _joined(prefix: str, name: str) -> str:
    """The name with its prefix; tokens are counted together, whatever they are logged with."""
    return name if name == "tokens" else f"{prefix.rstrip('/')}/{name}"


def _number(value: Any) -> float:
    """The value as a float; a TypeError for text and for what has several elements."""
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(value.item() if isinstance(value, Tensor) else value)  # float(parameter) warns


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
