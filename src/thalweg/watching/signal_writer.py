"""Writes what instruments finished: which signals, under which names, and how other ranks' parts will be joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.record.formulas import evaluate
from thalweg.record.recorder import Recorder
from thalweg.record.signals import Reduce, SignalSpec
from thalweg.watching.contracts import Array, Emits, Instrument, Steps
from thalweg.watching.sharing import Sharing

_JOINED_BY: Mapping[str, Reduce] = {"root": "norm", "sum": "sum"}
"""Formulas whose values can be joined themselves, so that the sums needn't be stored."""

Block = tuple[list[str], Array]
"""Names and their values [steps, names], or sums [steps, names, k]."""


@dataclass(frozen=True)
class Finished:
    """One signal of an instrument: values [steps] or [steps, layers], and the sums [..., k] if ranks join these."""

    emits: Emits
    values: Array
    sums: Array | None = None


@dataclass(frozen=True)
class _Columns:
    """Columns that are written in one way: full names, places among the layers, whether their sums are stored."""

    names: list[str]
    at: list[int]
    sums: bool


class SignalWriter:
    """Writes one track's measured signals under its names and clock.

    Args:
        key: "" or "G:" and the like, put before every name.
        clock: name of the track's clock.
    """

    def __init__(self, key: str, clock: str) -> None:
        self.key, self.clock = key, clock
        self.sharing = Sharing()
        self._declared: set[str] = set()
        self._columns: dict[tuple[str, bool, tuple[str, ...]], list[_Columns]] = {}

    def finish(
        self,
        instrument: Instrument,
        raw: Mapping[str, Array],
        facts: Mapping[str, Array],
        layers: tuple[str, ...],
        steps: int,
    ) -> dict[str, Finished]:
        """An instrument's signals from its sums: name (with ``/*`` if per layer) -> what is to be written."""
        specs = {e.name + "/*" * e.per_layer: e for e in instrument.emits}
        make, apart = instrument.finish, self.sharing.concerns(instrument)
        if apart:
            raw, make = self.sharing.counted(raw, layers), getattr(instrument, "sums", make)
        given = make(raw, facts, layers)
        out = {}
        for name, found in given.items():
            if name not in specs:
                raise ValueError(f"{instrument.card.name} gave {name!r}, which is not among its signals")
            formula = specs[name].formula if make != instrument.finish else ""
            values = evaluate(formula, found) if formula else found
            if values.shape != ((steps, len(layers)) if specs[name].per_layer else (steps,)):
                raise ValueError(f"{instrument.card.name} gave {name!r} with shape {values.shape}")
            keep_sums = formula and formula not in _JOINED_BY
            out[name] = Finished(specs[name], values, found if keep_sums else None)
        return out

    def write(
        self,
        recorder: Recorder,
        instrument: Instrument,
        signals: Sequence[Finished],
        layers: tuple[str, ...],
        steps: Steps,
        times: Array,
    ) -> None:
        """Record signals at these steps, together; one of which some rows are masked at its own."""
        blocks: list[Block] = []
        for one in signals:
            if isinstance(one.values, np.ma.MaskedArray):
                some, there = _unmasked(one)
                self._extend(
                    recorder, self._blocks(recorder, instrument, some, layers), steps[there], times[there]
                )
            else:
                blocks += self._blocks(recorder, instrument, one, layers)
        self._extend(recorder, blocks, steps, times)

    def _extend(self, recorder: Recorder, blocks: Sequence[Block], steps: Steps, times: Array) -> None:
        by_shape: dict[tuple[int, ...], list[Block]] = {}
        for block in blocks:
            by_shape.setdefault(block[1].shape[2:], []).append(block)
        for same in by_shape.values() if len(steps) else ():
            names = [name for block in same for name in block[0]]
            values = np.concatenate([block[1] for block in same], 1)
            if values.ndim > 2 and len(names) == 1:
                values = values[:, 0]
            recorder.extend(names, steps, values, times=times, clock=self.clock)

    def _blocks(
        self, recorder: Recorder, instrument: Instrument, one: Finished, layers: tuple[str, ...]
    ) -> list[Block]:
        """The columns of a signal, one a layer if it is per layer, in the ways they are written."""
        emits, values, sums = one.emits, one.values, one.sums
        if not emits.per_layer:
            values, sums = values[:, None], None if sums is None else sums[:, None]
        if emits.partial:
            there = np.flatnonzero(~np.isnan(values).all(0)).tolist()
            layers, values = tuple(layers[i] for i in there), values[:, there]
            sums = None if sums is None else sums[:, there]
        key = (emits.name, emits.per_layer, layers)
        if key not in self._columns:
            self._columns[key] = self._plan(recorder, instrument, one, layers)
        blocks = []
        for columns in self._columns[key]:
            taken = sums if columns.sums and sums is not None else values
            whole = len(columns.at) == taken.shape[1]
            blocks.append((columns.names, taken if whole else taken[:, columns.at]))
        return blocks

    def _plan(
        self, recorder: Recorder, instrument: Instrument, one: Finished, layers: tuple[str, ...]
    ) -> list[_Columns]:
        """Which of a signal's columns are written, and how; they are declared."""
        emits = one.emits
        own, joined = _Columns([], [], False), _Columns([], [], one.sums is not None)
        joinable = emits.reduce is not None or bool(emits.formula and hasattr(instrument, "sums"))
        of_parameters = bool(instrument.needs.quantities)
        for i, layer in enumerate(layers if emits.per_layer else ("",)):
            if of_parameters and not self.sharing.written_here(layer):
                continue
            parts = self.sharing.concerns(instrument, layer)
            if parts and not joinable and (of_parameters or instrument.needs.forward):
                self._leave_out(recorder, emits.name + "/*" * emits.per_layer)
                continue
            columns = joined if parts and joinable else own
            columns.names.append(self._declare(recorder, one, layer, joined=columns is joined))
            columns.at.append(i)
        return [columns for columns in (own, joined) if columns.at]

    def _declare(self, recorder: Recorder, one: Finished, layer: str, *, joined: bool) -> str:
        """Declare a signal once; its full name."""
        emits = one.emits
        name = f"{self.key}{emits.name}/{layer}" if emits.per_layer else self.key + emits.name
        if name in self._declared:
            return name
        self._declared.add(name)
        sums = one.sums if joined else None
        reduce: Reduce = "none"
        if joined:
            reduce = emits.reduce or _JOINED_BY.get(emits.formula, "sum")
        recorder.declare_spec(
            SignalSpec(
                name=name,
                role="" if emits.per_layer else emits.role,
                clock=self.clock,
                layer=layer,
                unit=emits.unit,
                stage=emits.stage,
                reduce=reduce,
                formula="" if sums is None else emits.formula,
                shape=() if sums is None else sums.shape[-1:],
                dtype="float32" if sums is None else "float64",
                estimator=emits.estimator,
            )
        )
        return name

    def _leave_out(self, recorder: Recorder, name: str) -> None:
        """Say once that a signal is not recorded."""
        if name not in self._declared:
            self._declared.add(name)
            text = "Every rank has a part, and what each rank sees of this can't be joined."
            recorder.event("not recorded", source="watch", signal=self.key + name, text=text)


def _unmasked(one: Finished) -> tuple[Finished, Any]:
    """The rows of a signal that are not masked, and which these are."""
    mask = np.ma.getmaskarray(one.values)
    there = ~(mask.all(1) if one.emits.per_layer else mask)
    sums = None if one.sums is None else np.asarray(one.sums)[there]
    return Finished(one.emits, np.asarray(one.values)[there], sums), there
