"""Small pictures of signals as SVG text: one strip a signal over common steps, with marks; no script, no library.

For a notebook's output, the findings of a report, and the documentation. Colors are readable on a light and on a dark
page; where the page sets ``--text`` and ``--line`` they are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from thalweg.record.plotting import LIGHT, downsample, number, safe_text, wants_log

_WIDTH, _STRIP, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 96, 8, 8, 18, 22
_OVERLAY = 240  # height of a frame with several curves
_POINTS = 500
_INK, _QUIET, _MARK = "#2a85d0", "#7d8893", "#d9622b"


@dataclass(frozen=True)
class Strip:
    """One signal of a picture.

    Attributes:
        name: written above its strip.
        steps: [n] positions, increasing.
        values: [n]; NaN are gaps.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def sketch(strips: Sequence[Strip], *, marks: Mapping[str, float] | None = None, title: str = "") -> str:
    """Draw strips one above the other; marks are vertical lines through all, with their words on top.

    Args:
        strips: at least one; empty ones say "nothing recorded".
        marks: word -> step.
        title: the picture's description for those who can't see it.

    Returns:
        An ``<svg>`` element, 640 units wide, which scales with its place.
    """
    ends = [float(s.steps[i]) for s in strips for i in (0, -1) if len(s.steps)]
    left, right = (min(ends), max(ends)) if ends else (0.0, 1.0)
    right = right if right > left else left + 1.0
    height = _TOP + len(strips) * (_STRIP + _TOP) + _BOTTOM
    body = [_strip(strip, _TOP + i * (_STRIP + _TOP), left, right) for i, strip in enumerate(strips)]
    body += _marks(marks or {}, left, right, height)
    body += [
        _text(_LEFT, height - 6, number(left), "start"),
        _text(_WIDTH - _RIGHT, height - 6, number(right), "end"),
        _text(_WIDTH / 2, height - 6, "step", "middle"),
    ]
    return _svg(height, title or ", ".join(s.name for s in strips), body)


def overlay(curves: Sequence[Strip], *, title: str = "") -> str:
    """Draw curves over each other in one frame, with a legend below.

    Args:
        curves: at least one.
        title: the picture's description for those who can't see it.

    Returns:
        An ``<svg>`` element, 640 units wide, which scales with its place.
    """
    every = np.concatenate([np.asarray(c.values, np.float64) for c in curves])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    room = (high - low) * 0.06 or abs(low) * 0.05 or 0.5
    ends = [float(c.steps[i]) for c in curves for i in (0, -1) if len(c.steps)]
    left, right = (min(ends), max(max(ends), min(ends) + 1)) if ends else (0.0, 1.0)
    below = _TOP + _OVERLAY
    body = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_OVERLAY}" fill="none" '
        f'stroke="{_QUIET}" stroke-opacity="0.35"/>',
        _text(_WIDTH - _RIGHT, _TOP - 5, f"{number(low)} to {number(high)}", "end"),
        _text(_LEFT, below + 15, number(left), "start"),
        _text(_WIDTH - _RIGHT, below + 15, number(right), "end"),
        _text(_WIDTH / 2, below + 15, "step", "middle"),
    ]
    for place, curve in enumerate(curves):
        x, y = downsample(np.asarray(curve.steps, np.float64), np.asarray(curve.values, np.float64), _POINTS)
        across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (high + room - y) / (high - low + 2 * room) * _OVERLAY
        color = LIGHT[place % len(LIGHT)]
        body.append(_line(across, down, color))
        body.append(_text(_LEFT, below + 33 + 15 * place, curve.name, "start", color))
    height = below + 40 + 15 * len(curves)
    return _svg(height, title or ", ".join(c.name for c in curves), body)


def _svg(height: float, label: str, body: Sequence[str]) -> str:
    words = escape(safe_text(label), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'style="max-width:100%;height:auto" role="img" aria-label="{words}" '
        f'font-family="system-ui, sans-serif" font-size="11">{"".join(body)}</svg>'
    )


def _strip(strip: Strip, top: float, left: float, right: float) -> str:
    values = np.asarray(strip.values, np.float64)
    logarithmic = wants_log(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log10(values) if logarithmic else values
    y = np.where(np.isfinite(y), y, np.nan)
    frame = (
        f'<rect x="{_LEFT}" y="{top + 4}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_STRIP}" fill="none" '
        f'stroke="{_QUIET}" stroke-opacity="0.35"/>'
    )
    name = safe_text(strip.name) + (" (log)" if logarithmic else "")
    if not np.isfinite(y).any():
        return (
            frame
            + _text(_LEFT + 2, top, name, "start")
            + _text(_WIDTH / 2, top + _STRIP / 2, "nothing finite", "middle")
        )
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    room = (high - low) * 0.06 or abs(low) * 0.05 or 0.5
    x, y = downsample(np.asarray(strip.steps, np.float64), y, _POINTS)
    across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
    down = top + 4 + (high + room - y) / (high - low + 2 * room) * _STRIP
    ends = [10.0**v if logarithmic else v for v in (high, low)]
    spread = f"{number(ends[1])} to {number(ends[0])}"
    return (
        frame
        + _line(across, down)
        + _text(_LEFT + 2, top, name, "start")
        + _text(_WIDTH - _RIGHT, top, spread, "end")
    )


def _line(across: NDArray[np.float64], down: NDArray[np.float64], color: str = _INK) -> str:
    """The points as one path, broken where a value is missing; a lone point is a dot."""
    path, lifted = [], True
    for x, y in zip(across, down, strict=True):
        if not np.isfinite(y):
            lifted = True
            continue
        path.append(f"{'M' if lifted else 'L'}{x:.1f} {y:.1f}" + ("h0.1" if lifted else ""))
        lifted = False
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="1.5" stroke-linejoin="round" '
        'stroke-linecap="round"/>'
    )


def _marks(marks: Mapping[str, float], left: float, right: float, height: float) -> list[str]:
    out = []
    for place, (word, step) in enumerate(marks.items()):
        if not left <= step <= right:
            continue
        x = _LEFT + (step - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        anchor = "end" if x > _WIDTH * 0.75 else "start"
        out.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}" stroke="{_MARK}" '
            f'stroke-dasharray="4 3"/>'
        )
        y = _TOP + 18 + 13 * (place % 4)
        out.append(_text(x + (-4 if anchor == "end" else 4), y, word, anchor, _MARK))
    return out


def _text(x: float, y: float, words: str, anchor: str, color: str = _QUIET) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(safe_text(words))}</text>'
