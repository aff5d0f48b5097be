"""Joining what several processes wrote of a signal: ranks by its declared reduction, segments by replacement."""

from collections.abc import Callable, Sequence
from functools import reduce as fold
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import Ints
from thalweg.record.formulas import FORMULAS, evaluate
from thalweg.record.signals import Reduce, SignalSpec
from thalweg.record.sources import Segment, Source

Pair = tuple[Ints, NDArray[Any]]
Piece = tuple[SignalSpec, Ints, NDArray[Any]]
Parts = Sequence[tuple[Source, Segment]]
Warn = Callable[[str], None]


def tidy(steps: Ints, values: NDArray[Any], *, keep: str = "last") -> Pair:
    """Rows in the order of their steps, one for each step: the last (or first) one written."""
    if len(steps) < 2 or bool((steps[1:] > steps[:-1]).all()):
        return steps, values
    order = np.argsort(steps, kind="stable")
    steps = steps[order]
    differs = steps[1:] != steps[:-1]
    chosen = np.append(differs, True) if keep == "last" else np.insert(differs, 0, True)
    return steps[chosen], values[order[chosen]]


def join(spec: SignalSpec, parts: Parts, *, timed: bool, warn: Warn) -> Pair:
    """A signal's steps and values (or, where `timed`, wall times in microseconds) over all its parts.

    Ranks of one segment are joined at the steps that all of them wrote, and only if the files of all ranks are there:
    part of a sum is not passed off as the sum. A segment replaces earlier ones from its first step on; on another
    clock than "updates", from the lowest step that it wrote there. Formulas are evaluated last, of the joined sums.

    Args:
        spec: the declaration of what is read (`SignalSpec.finished`); each part knows how it stored it.
        parts: what may have written it.
        timed: whether the wall times are asked for.
        warn: told of what is left out.
    """
    pieces: list[Piece] = []
    for number in sorted({part.id for _, part in parts}):
        mine = [(source, part) for source, part in parts if part.id == number]
        cut = cut_of(spec.clock, mine)
        if cut is not None:
            pieces = [(f, s[: (n := int(np.searchsorted(s, cut)))], v[:n]) for f, s, v in pieces]
        piece = _join_ranks(spec, mine, timed, warn)
        if piece is not None:
            pieces.append(piece)
    read = [_finish(form, list(same), timed) for form, same in groupby(pieces, key=lambda p: p[0])]
    if not read:
        return np.empty(0, np.int64), np.empty(
            (0,) if timed else (0, *spec.shape), np.int64 if timed else spec.dtype
        )
    return read[0] if len(read) == 1 else _chain(read)


def cut_of(clock: str, parts: Parts) -> int | None:
    """The step of a clock from which a segment replaces earlier ones; None if it wrote nothing on that clock."""
    if clock == "updates":
        return min(part.first_step for _, part in parts)
    firsts = [source.first_on(clock, part) for source, part in parts]
    return min((f for f in firsts if f is not None), default=None)


def _finish(form: SignalSpec, pieces: Sequence[Piece], timed: bool) -> Pair:
    """Pieces stored in one way as one: their values, or what the formula makes of their sums."""
    steps, values = pieces[0][1:] if len(pieces) == 1 else _chain([p[1:] for p in pieces])
    if timed or not form.formula:
        return steps, values
    with np.errstate(all="ignore"):
        return steps, evaluate(form.formula, values).astype(form.finished().dtype)


def _chain(pairs: Sequence[Pair]) -> Pair:
    return tidy(np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]))


def _join_ranks(spec: SignalSpec, parts: Parts, timed: bool, warn: Warn) -> Piece | None:
    ranks = sorted((p for p in parts if p[0].wrote(spec.name, p[1])), key=lambda p: p[1].rank)
    if not ranks:
        return None
    forms = [source.spec(spec.name, part) for source, part in ranks]
    form = forms[0]
    if form.formula and form.formula not in FORMULAS:
        warn(f"{spec.name}: its formula {form.formula!r} is not known to this version, so it is left out")
        return None
    if form.finished().shape != spec.shape:
        warn(f"{spec.name}: values of shape {form.finished().shape} beside {spec.shape} are left out")
        return None
    world = max(part.world for _, part in parts)
    joined = form.reduce != "none" and world > 1
    if joined and any(
        (f.shape, f.reduce, f.formula) != (form.shape, form.reduce, form.formula) for f in forms
    ):
        warn(f"{spec.name}: the ranks stored it in different ways, so it is left out")
        return None
    counted = form.reduce == "count"
    missing = set(range(world)) - {part.rank for _, part in (parts if counted else ranks)}
    if joined and missing:
        which = ", ".join(map(str, sorted(missing)[:8]))
        warn(
            f"{spec.name}: nothing from rank(s) {which} of {world}, so its {form.reduce} over ranks is left out"
        )
        return None
    read = [_rows(spec, source, part, timed) for source, part in (ranks if joined else ranks[:1])]
    if not joined:
        return form, *read[0]
    steps = (
        _counted_steps(spec.clock, parts, read) if counted else fold(np.intersect1d, [at for at, _ in read])
    )
    columns = [_at(steps, pair, counted) for pair in read]
    if timed:
        return form, steps, np.max(columns, axis=0) if counted else columns[0]
    return form, steps, reduce_ranks(form.reduce, columns)


def _counted_steps(clock: str, parts: Parts, read: Sequence[Pair]) -> Ints:
    """The steps that any rank wrote, up to the last one that every rank has reached."""
    walls = [source.wall(clock, part)[0] for source, part in parts]
    reached = min((int(at.max()) if len(at) else -1) for at in walls)
    steps = fold(np.union1d, [at for at, _ in read])
    return steps[steps <= reached]


def _at(steps: Ints, pair: Pair, counted: bool) -> NDArray[Any]:
    """A rank's values at these steps; zeros where it has none, which only counts may lack."""
    at, values = pair
    if not counted:
        return values[np.searchsorted(at, steps)]
    out = np.zeros((len(steps), *values.shape[1:]), values.dtype)
    known = np.isin(at, steps)
    out[np.searchsorted(steps, at[known])] = values[known]
    return out


def _rows(spec: SignalSpec, source: Source, part: Segment, timed: bool) -> Pair:
    """A part's rows in the order of their steps; of several at one step the one with the latest time."""
    steps, values = source.times(spec.name, part) if timed else source.column(spec.name, part)
    if len(steps) < 2 or bool((steps[1:] > steps[:-1]).all()):
        return steps, values
    times = values if timed else source.times(spec.name, part)[1]
    if len(times) == len(steps):
        order = np.lexsort((times, steps))
        steps, values = steps[order], values[order]
    return tidy(steps, values)


def reduce_ranks(how: Reduce, columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Values of several ranks as one, computed in float64 and given back in the type they have."""
    kind = columns[0].dtype
    if how == "none":
        return columns[0]
    if how == "max":
        return np.asarray(np.maximum.reduce(list(columns)))
    with np.errstate(all="ignore"):
        if kind.kind != "f" and how in ("sum", "count"):
            return np.asarray(np.sum(np.stack(columns), axis=0).astype(kind))
        wide = np.stack([c.astype(np.float64) for c in columns])
        if how == "norm":
            top = np.abs(wide).max(axis=0)  # divided out, so that no finite value overflows when squared
            scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
            out = scale * np.sqrt(((wide / scale) ** 2).sum(axis=0))
        else:
            out = wide.mean(axis=0) if how == "mean" else wide.sum(axis=0)
        return np.asarray(out).astype(kind)
