"""The signals of a recorder: which are declared, under which ids, and what may still be changed."""

from dataclasses import replace
from typing import get_args

from thalweg.core.errors import UsageError
from thalweg.record.codecs import DecodeError, size_of
from thalweg.record.formulas import FORMULAS
from thalweg.record.payloads import MAX_NAME, spec_from_dict, spec_to_dict
from thalweg.record.roles import guess_role
from thalweg.record.signals import Reduce, Role, SignalSpec, Stage

MAX_SIGNALS = 100_000
"""Signals of one run; a name with a counter in it would else fill the memory."""
_COUNTERS = ("tokens", "samples", "wall time")


class Registry:
    """Name -> declaration and id. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._specs: dict[str, SignalSpec] = {}
        self._ids: dict[str, int] = {}
        self._used: set[str] = set()
        self._news: dict[str, SignalSpec] = {}

    def get(self, name: str) -> SignalSpec | None:
        """The declaration of a name, if it has one."""
        return self._specs.get(name)

    def guess(self, name: str) -> Role:
        """The role for a declaration that gives none: the one it already has, or the one its name suggests."""
        known = self._specs.get(name)
        return known.role if known is not None else guess_role(name)

    def declare(self, spec: SignalSpec) -> SignalSpec:
        """Enter or update a declaration; raises UsageError (see `Recorder.declare`)."""
        known = self._specs.get(spec.name)
        if known == spec:
            return known
        _check(spec)
        if known is not None and spec.name in self._used:
            fixed = ("clock", "dtype", "shape", "formula")
            for key in fixed:
                if getattr(known, key) != getattr(spec, key):
                    raise UsageError(
                        f"{spec.name!r} was logged with {key} {getattr(known, key)!r} and can't be declared with "
                        f"{getattr(spec, key)!r} any more: declare it before the first log"
                    )
        return self._enter(spec)

    def first_sight(self, name: str, shape: tuple[int, ...], clock: str) -> SignalSpec:
        """Declare a name that was logged without a declaration. Running totals are kept as float64."""
        role = guess_role(name)
        spec = SignalSpec(name=name, role=role, clock=clock, shape=shape)
        if role in _COUNTERS:
            spec = replace(spec, dtype="float64")
        _check(spec)
        return self._enter(spec)

    def use(self, name: str) -> int:
        """The id of a name of which something is about to be recorded."""
        self._used.add(name)
        return self._ids[name]

    def news(self) -> list[tuple[int, SignalSpec]]:
        """Declarations made since the last call."""
        out = [(self._ids[name], spec) for name, spec in self._news.items()]
        self._news = {}
        return out

    def _enter(self, spec: SignalSpec) -> SignalSpec:
        if spec.name not in self._ids:
            if len(self._ids) >= MAX_SIGNALS:
                raise UsageError(
                    f"more than {MAX_SIGNALS} signals: is there a counter in the name {spec.name!r}?"
                )
            self._ids[spec.name] = len(self._ids)
        self._specs[spec.name] = self._news[spec.name] = spec
        return spec


def _check(spec: SignalSpec) -> None:
    try:
        spec_from_dict(spec_to_dict(spec))
    except DecodeError as error:
        raise UsageError(
            f"{error} (names have 1 to {MAX_NAME} characters, shapes sizes of at least 1)"
        ) from None
    for value, kind in ((spec.role, Role), (spec.stage, Stage), (spec.reduce, Reduce)):
        if value not in get_args(kind):
            raise UsageError(f"{spec.name!r}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
    if spec.formula and (spec.formula not in FORMULAS or len(spec.shape) != 1):
        raise UsageError(f"{spec.name!r}: a formula is one of {', '.join(FORMULAS)}, of a row of sums")
    try:
        spec.name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{spec.name!r} is no valid text") from None
    if size_of(spec.shape) * 8 > 1 << 25:
        raise UsageError(f"{spec.name!r}: one value of shape {spec.shape} is larger than 32 MB")
