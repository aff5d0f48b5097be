"""Joining what several processes wrote of a signal: ranks by its declared reduction, segments by replacement."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.record.codecs import Ints
from thalweg.record.signals import Reduce, SignalSpec
from thalweg.record.sources import Segment, Source

Pair = tuple[Ints, NDArray[Any]]
Parts = Sequence[tuple[Source, Segment]]


def tidy(steps: Ints, values: NDArray[Any], *, keep: str = "last") -> Pair:
    """Rows in the order of their steps, one for each step: the last (or first) one written."""
    if len(steps) < 2 or bool((steps[1:] > steps[:-1]).all()):
        return steps, values
    order = np.argsort(steps, kind="stable")
    steps = steps[order]
    differs = steps[1:] != steps[:-1]
    chosen = np.append(differs, True) if keep == "last" else np.insert(differs, 0, True)
    return steps[chosen], values[order[chosen]]


def join(spec: SignalSpec, parts: Parts, *, timed: bool, warn: Callable[[str], None]) -> Pair:
    """A signal's steps and values (or, where `timed`, wall times in microseconds) over all its parts.

    Ranks of one segment are joined at the steps that all of them wrote, and only if the files of all ranks are there:
    part of a sum is not passed off as the sum. A segment replaces earlier ones from its first step on; on another
    clock than "updates", from the lowest step that it wrote there.
    """
    pieces: list[Pair] = []
    for number in sorted({part.id for _, part in parts}):
        mine = [(source, part) for source, part in parts if part.id == number]
        cut = cut_of(spec.clock, mine)
        if cut is not None:
            pieces = [(s[: (n := int(np.searchsorted(s, cut)))], v[:n]) for s, v in pieces]
        piece = _join_ranks(spec, mine, timed, warn)
        if piece is not None:
            pieces.append(piece)
    if not pieces:
        return np.empty(0, np.int64), np.empty(
            (0,) if timed else (0, *spec.shape), np.int64 if timed else spec.dtype
        )
    if len(pieces) == 1:
        return pieces[0]
    return tidy(np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces]))


def cut_of(clock: str, parts: Parts) -> int | None:
    """The step of a clock from which a segment replaces earlier ones; None if it wrote nothing on that clock."""
    if clock == "updates":
        return min(part.first_step for _, part in parts)
    firsts = [source.first_on(clock, part) for source, part in parts]
    return min((f for f in firsts if f is not None), default=None)


def _join_ranks(spec: SignalSpec, parts: Parts, timed: bool, warn: Callable[[str], None]) -> Pair | None:
    ranks = sorted((p for p in parts if p[0].wrote(spec.name, p[1])), key=lambda p: p[1].rank)
    if not ranks:
        return None
    world = max(part.world for _, part in parts)
    read = [_rows(spec, source, part, timed and i == 0) for i, (source, part) in enumerate(ranks)]
    if spec.reduce == "none" or world == 1:
        return read[0]
    missing = sorted(set(range(world)) - {part.rank for _, part in ranks})
    if missing:
        which = ", ".join(map(str, missing[:8]))
        warn(
            f"{spec.name}: nothing from rank(s) {which} of {world}, so its {spec.reduce} over ranks is left out"
        )
        return None
    steps = read[0][0]
    for other, _ in read[1:]:
        steps = np.intersect1d(steps, other, assume_unique=True)
    columns = [values[np.searchsorted(at, steps)] for at, values in (read[:1] if timed else read)]
    return steps, columns[0] if timed else reduce_ranks(spec.reduce, columns)


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
        if kind.kind != "f" and how == "sum":
            return np.asarray(np.sum(np.stack(columns), axis=0).astype(kind))
        wide = np.stack([c.astype(np.float64) for c in columns])
        if how == "norm":
            top = np.abs(wide).max(axis=0)  # divided out, so that no finite value overflows when squared
            scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
            out = scale * np.sqrt(((wide / scale) ** 2).sum(axis=0))
        else:
            out = wide.sum(axis=0) if how == "sum" else wide.mean(axis=0)
        return np.asarray(out).astype(kind)
