"""The keywords of `thalweg.watch` as an integration takes them: checked when it is made, used at each fit."""

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict

from thalweg.core.errors import UsageError
from thalweg.watching import HeldBatch, Instrument
from thalweg.watching.planning import check_budget, instruments_of


class WatchOptions(TypedDict, total=False):
    """Every keyword of `thalweg.watch`; see there. What the library knows itself (scaler, config) is found."""

    scaler: Any
    out: str | os.PathLike[str] | None
    name: str | None
    config: Mapping[str, Any] | None
    tags: Sequence[str]
    budget: float
    memory: int | None
    cadence: str | int
    probes: str | Instrument | Iterable[Any]
    held: HeldBatch | None
    controllers: Sequence[Any]
    ranks: str
    resume: bool | str | os.PathLike[str]
    enabled: bool


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, if they can be used: mistakes are told where the integration is made, not in the loop.

    Raises:
        UsageError: a value that can't be used.
        TypeError: a keyword that `thalweg.watch` doesn't have.
    """
    known = list(WatchOptions.__annotations__)
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f": tw.watch has {', '.join(known)}"
            raise TypeError(f"unexpected keyword argument {name!r}{hint}")
    check_budget(
        options.get("budget", 0.03),
        options.get("memory"),
        options.get("cadence", "auto"),
        options.get("ranks", "zero"),
    )
    if options.get("controllers"):
        raise UsageError("controllers= must be empty: this version has no controllers yet.")
    if options.get("resume") is True and options.get("out") is None:
        raise UsageError("resume=True needs out=, the run to continue; or pass its path as resume=.")
    chosen = dict(options)
    if (
        "probes" in chosen
        and not isinstance(chosen["probes"], str)
        and not hasattr(chosen["probes"], "measure")
    ):
        chosen["probes"] = list(chosen["probes"])
    instruments_of(chosen.get("probes", "cheap"))
    return chosen
