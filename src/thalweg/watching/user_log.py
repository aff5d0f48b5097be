"""What the user logs: names put in order, tensors copied at once, nothing waited for."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from torch import Tensor

from thalweg.record.roles import guess_role
from thalweg.watching.journal import Entry
from thalweg.watching.track import Track

_EVALUATION = ("evaluation loss", "evaluation metric")


class UserLog:
    """Turns calls of ``watch.log`` into entries.

    Args:
        reserved: names that instruments write; a user's own of that name goes to ``user/``.
    """

    def __init__(self, reserved: frozenset[str]) -> None:
        self._reserved = reserved
        self._names: dict[tuple[str, str], tuple[str, bool]] = {}
        self._complaints: list[str] = []
        self._complained: set[str] = set()

    def name(self, name: str, prefix: str = "") -> str:
        """The name a signal is recorded under."""
        return self._resolve(name, prefix)[0]

    def entries(
        self,
        values: Mapping[str, Any] | None,
        named: Mapping[str, Any],
        tokens: float | None,
        prefix: str,
        step: int | None,
        track: Track,
    ) -> list[Entry]:
        """One entry for training values, one for evaluation values, one for each that is not a scalar."""
        found: list[Entry] = []
        groups: dict[bool, tuple[list[str], list[float | None], list[Tensor]]] = {}
        for mapping in (values, named, {"tokens": tokens} if tokens is not None else None):
            for name, value in (mapping or {}).items():
                full, evaluation = self._resolve(
                    name, prefix if name != "tokens" or mapping is not None else ""
                )
                number = _scalar(value)
                if number is None and not isinstance(value, Tensor):
                    array = _array(value)
                    if array is None:
                        self._complain(full, value)
                        continue
                    found.append(self._entry(track, evaluation, ("vector", full, array, step), []))
                    continue
                if isinstance(value, Tensor) and number is None and value.numel() != 1:
                    found.append(
                        self._entry(track, evaluation, ("vector", full, None, step), [value.detach().clone()])
                    )
                    continue
                names, numbers, tensors = groups.setdefault(evaluation, ([], [], []))
                names.append(full)
                numbers.append(number)
                if number is None:
                    tensors.append(cast(Tensor, value).detach().clone())
        for evaluation, (names, numbers, tensors) in groups.items():
            found.append(
                Entry("log", track.writer, track.step_for(evaluation), (tuple(names), numbers, step), tensors)
            )
        return found

    def complaints(self) -> list[str]:
        """What could not be recorded since the last call, in words."""
        told, self._complaints = self._complaints, []
        return told

    def _entry(self, track: Track, evaluation: bool, payload: Any, tensors: list[Tensor]) -> Entry:
        return Entry("vector", track.writer, track.step_for(evaluation), payload[1:], tensors)

    def _resolve(self, name: str, prefix: str) -> tuple[str, bool]:
        known = self._names.get((name, prefix))
        if known is None:
            full = f"{prefix.rstrip('/')}/{name}" if prefix else name
            if full in self._reserved:
                full = f"user/{full}"
            known = self._names[(name, prefix)] = (full, guess_role(full) in _EVALUATION)
        return known

    def _complain(self, name: str, value: Any) -> None:
        if name not in self._complained:
            self._complained.add(name)
            self._complaints.append(
                f"{name!r} is {type(value).__name__}, which is no number; it is not recorded"
            )


def _scalar(value: Any) -> float | None:
    """The number, where the host has it already; None for tensors elsewhere and for what is no scalar."""
    if isinstance(value, (float, int)):
        return float(value)
    if isinstance(value, Tensor):
        return (
            float(value.item())
            if value.device.type == "cpu" and value.numel() == 1 and not value.is_complex()
            else None
        )
    if isinstance(value, np.generic):
        return float(value)
    return None


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array.copy() if array.size else None
