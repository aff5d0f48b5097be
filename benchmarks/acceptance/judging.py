"""Is a cell right? The record against the sums by hand, the watched run against the unwatched, words for what is missing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from acceptance.by_hand import ByHand
from acceptance.cells import Cell, impossible
from acceptance.verdicts import ABSOLUTE, RELATIVE
from thalweg.watching.instruments import DEFAULT

NOT_COMPARED = ("time/step", "throughput/examples", "memory/peak", "memory/device_peak")
"""Different at every run: only that they are there and positive."""

OF_PARAMETERS = ("grad", "update", "weight", "momentum", "rate", "noise")


def known_limit(cell: Cell, error: Exception) -> str:
    """Why torch itself can't do this, if that is known and the unwatched run said so; else empty."""
    text = str(error)
    if impossible(cell) and "Closure use is not currently" in text:
        return "GradScaler.step takes no closure (torch raises)"
    return ""


def compare(run: Any, hand: ByHand, words: Sequence[str]) -> tuple[list[str], set[str], int]:
    """(what is wrong, signals that are refused in words, values compared) of one record."""
    wrong: list[str] = []
    refused: set[str] = set()
    compared = 0
    recorded = {n: dict(zip(run[n].steps.tolist(), run[n].values.tolist(), strict=True)) for n in run.names()}
    for name, expected in hand.values.items():
        found = recorded.pop(name, None)
        if not found:
            (refused.add(name) if _in_words(name, words) else wrong.append(f"{name} is missing"))
            continue
        wrong += _check(name, found, expected, hand)
        compared += len(found)
    for name in NOT_COMPARED:
        values = recorded.pop(name, {})
        wrong += [f"{name} is {v} at {s}" for s, v in values.items() if s > 0 and not v > 0][:1]
    return wrong + [f"{name} is recorded and shouldn't be" for name in recorded], refused, compared


def _check(name: str, found: Mapping[int, float], expected: Mapping[int, float], hand: ByHand) -> list[str]:
    """Every recorded value equals its expectation, and every expected one is there."""
    missing = sorted(set(expected) - set(found))
    if name.startswith("grad/norm/"):  # the flight recorder stores every tenth step, and all around a spike
        missing = [s for s in missing if s % 10 == 0]
    if missing:
        return [f"{name} is missing at {missing}"]
    for step, value in found.items():
        if step not in expected:
            return [f"{name} is recorded at {step}, where it shouldn't be"]
        unknown = (
            np.isnan(value) and step in hand.after_skip and name.startswith(("grad/cosine", "grad/change"))
        )
        if not unknown and not np.isclose(value, expected[step], RELATIVE, ABSOLUTE, equal_nan=True):
            return [f"{name} at {step} is {value:.7g}, by hand {expected[step]:.7g}"]
    return []


def words_of(run: Any) -> list[str]:
    """What the record says of what it doesn't hold: each event with its details, as text."""
    kinds = ("not recorded", "failure", "no forward seen")
    return [
        json.dumps({"kind": e.kind, "source": e.source} | e.details) for e in run.events() if e.kind in kinds
    ]


def _in_words(name: str, words: Iterable[str]) -> bool:
    """Whether an event names the signal, or its instrument, or says that nothing of the parameters is recorded."""
    sources = {_source_of(name), f'"{name}"', f'"{_general(name)}"'}
    return any(
        any(s and s in text for s in sources)
        or ("nothing of them is recorded" in text and name.split("/")[0] in OF_PARAMETERS)
        or ('"source": "clipping"' in text and name in ("grad/norm_raw", "grad/clipped"))
        for text in words
    )


def _general(name: str) -> str:
    """``grad/cosine/*`` of ``grad/cosine/fc1.weight``; a total is its own."""
    return "/".join([*name.split("/")[:2], "*"]) if name.count("/") > 1 else name


def _source_of(name: str) -> str:
    """The instrument that writes a signal, in quotes; empty for what the watch writes itself."""
    start = "/".join(name.split("/")[:2])
    for kind in DEFAULT:
        if any(s.removesuffix("/*") == start for s in kind.card.signals):
            return f'"{kind.card.name}"'
    return ""


def groups_of(names: Iterable[str]) -> list[str]:
    """Signals without their layers, sorted."""
    return sorted({_general(n) for n in names})
