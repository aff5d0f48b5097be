"""What is said of a run, in words: when, how long, how it ended, what the watch cost. Imports nothing heavy."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_ENDINGS = {
    "closed": "closed",
    "exit": "ended with its process",
    "killed": "killed: no end was written",
    "imported": "not known: imported from another tool's log",
}


def how_it_ended(live: bool, reason: str) -> str:
    """Say how a run ended: still running, closed, with its process, killed, or by which exception."""
    return "still running" if live else _ENDINGS.get(reason, f"by {reason}" if reason else "unknown")


def cost_in_words(cost: object) -> str:
    """Write the measured cost of a watch as a share of the step with its interval; empty if it is not known.

    ``cost`` is what the watch put into the record: a mapping with ``share``, a fraction of the time that the step
    takes without the watch, and where measured ``low``, ``high`` and ``microseconds_per_step``.
    """
    if not isinstance(cost, Mapping) or not _is_number(cost.get("share")):
        return ""
    interval = each = ""
    if _is_number(cost.get("low")) and _is_number(cost.get("high")):
        interval = f" ({100 * cost['low']:.2f} to {100 * cost['high']:.2f} %)"
    if _is_number(cost.get("microseconds_per_step")):
        each = f", {cost['microseconds_per_step']:.0f} µs each"
    return f"{100 * cost['share']:.2f} % of the step{interval}{each}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def moment(seconds: float | None) -> str:
    """Write a unix time as "2026-07-31 10:22:05 UTC"; empty for none, or for one no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""
    except (ValueError, OverflowError, OSError):
        return ""


def duration(seconds: float) -> str:
    """Write a duration in its two largest units: "2 h 5 min", "41 s", "0.31 s"; empty if it is not finite."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    units = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
    size, name, smaller, rest = next(unit for unit in units if seconds >= unit[0])
    return f"{int(seconds // size)} {name} {int(seconds % size // smaller)} {rest}"


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level with dotted names: ``{"optimizer.lr": 0.1}``."""
    pairs: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs |= flat(value, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs
