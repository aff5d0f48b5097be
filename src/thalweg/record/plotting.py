"""Plain plots of recorded signals: thinned for drawing, as Plotly figures, and as text for a terminal.

``downsample`` is what every plot goes through: it keeps the first and the last point and, of every stretch of
points, the smallest and the largest, so that a spike of one step in a million is still there. Plotly is imported
by the two functions that return a figure, and by nothing else.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from thalweg.record.run import LayerMatrix, Series

Floats = NDArray[np.float64]
Scale = Literal["auto", "linear", "log"]

# Six colors told apart with protanopia, deuteranopia and tritanopia, at least 3:1 against the page they are drawn
# on (a test measures both); past six, lines are dashed.
LIGHT = ("#0072b2", "#d55e00", "#159a6f", "#b03a8c", "#4a3a00", "#7a5cff")
DARK = ("#4ea8e8", "#ff8c42", "#35c9a0", "#e879c0", "#f2e36b", "#9a86ff")
DASHES = ("solid", "dash", "dot", "dashdot")

FIGURE_POINTS = 4_000  # per line: more than a screen is wide, few enough to pan smoothly
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SMALLEST_SAMPLE = 7  # first, last, and one of each of the five kinds of point that are kept
_DECADES_FOR_LOG = 2.0  # a positive signal that spans more is unreadable on a linear scale


def downsample(x: ArrayLike, y: ArrayLike, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Thin a curve to at most ``n`` points without losing a spike.

    The points are cut into stretches of equal count. Of each stretch the smallest and the largest finite value
    stay, and its first NaN, +inf and -inf, so that gaps remain gaps; the first and last points stay as well.

    Args:
        x: positions, shape ``[m]``, in the order of drawing.
        y: values, shape ``[m]``.
        n: the most points to return, at least 7.

    Returns:
        ``x`` and ``y`` of the points kept, in their order; the inputs themselves if they have no more than ``n``.

    Raises:
        UsageError: ``n`` is below 7, or the shapes differ or are not one-dimensional.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 1 or x.shape != y.shape:
        raise UsageError(f"downsample needs two arrays of one length; it got shapes {x.shape} and {y.shape}")
    if n < _SMALLEST_SAMPLE:
        raise UsageError(
            f"downsample needs n of at least {_SMALLEST_SAMPLE} to keep every extreme; it got {n}"
        )
    if y.size <= n:
        return x, y
    kept = _extremes(y, n - 2)
    indices = np.unique(np.concatenate(([0], kept, [y.size - 1])))
    return x[indices], y[indices]


def _extremes(y: NDArray[Any], n: int) -> NDArray[np.intp]:
    """Return the indices of at most ``n`` points: of each stretch its extremes and first non-finite values."""
    finite = np.isfinite(y)
    oddities = [] if finite.all() else [np.isnan(y), np.isposinf(y), np.isneginf(y)]
    oddities = [mask for mask in oddities if mask.any()]
    count = max(1, n // (2 + len(oddities)))
    starts = np.linspace(0, y.size, count, endpoint=False).astype(np.intp)
    stretch = np.repeat(np.arange(count), np.diff(starts, append=y.size))
    low = np.minimum.reduceat(np.where(finite, y, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, y, -np.inf), starts)
    masks = [finite & (y == low[stretch]), finite & (y == high[stretch]), *oddities]
    return np.concatenate([_first_of_each(mask, stretch) for mask in masks])


def _first_of_each(mask: NDArray[np.bool_], stretch: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the index of the first True of ``mask`` in each stretch that has one."""
    found = np.flatnonzero(mask)
    _, first = np.unique(stretch[found], return_index=True)
    return found[first]


def wants_log(y: ArrayLike) -> bool:
    """Say whether values are all positive and span enough decades (two) that a logarithmic scale shows them better."""
    values = np.asarray(y, dtype=float)
    values = values[np.isfinite(values)]
    if values.size < 2 or values.min() <= 0:
        return False
    return bool(math.log10(values.max()) - math.log10(values.min()) > _DECADES_FOR_LOG)


def safe_text(text: object) -> str:
    """Return ``text`` on one line, without the characters that steer a terminal or reorder what is shown.

    Names come from files that anyone may have written: escape sequences, control characters and bidirectional
    overrides are replaced by U+FFFD, white space by a blank.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(" " if c in "\t\n\r" else "\ufffd" if _steers(c) else c for c in plain)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDIRECTIONAL


def plotly_text(text: object) -> str:
    """Return ``text`` such that Plotly, which reads tags in titles, names and tick labels, shows it as it is."""
    return safe_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plot_series(series_list: Sequence[Series], axis: str = "step") -> Figure:
    """Draw signals as lines in one Plotly figure, at most 4,000 points each, no spike lost.

    Args:
        series_list: scalar signals, of one run or of several.
        axis: "step", or "time" (seconds since the earliest point drawn).

    Raises:
        UsageError: there is nothing to draw, a signal is not scalar, or ``axis`` is neither of the two.
    """
    import plotly.graph_objects as go

    if not series_list:
        raise UsageError("plot_series needs at least one signal")
    if axis not in ("step", "time"):
        raise UsageError(f"axis is {axis!r}; a signal alone has 'step' and 'time' (a report has tokens too)")
    figure = go.Figure()
    start = min((float(s.times[0]) for s in series_list if len(s)), default=0.0)
    for index, series in enumerate(series_list):
        if series.spec.shape:
            raise UsageError(
                f"{series.name} has values of shape {series.spec.shape}; only scalars draw as a line"
            )
        x = series.steps if axis == "step" else series.times - start
        x, y = downsample(x, series.values, FIGURE_POINTS)
        line = {
            "color": LIGHT[index % len(LIGHT)],
            "dash": DASHES[index // len(LIGHT) % len(DASHES)],
            "width": 1.5,
        }
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=plotly_text(series.name), line=line))
    values = np.concatenate([np.asarray(s.values, dtype=float) for s in series_list])
    figure.update_layout(
        template="plotly_white",
        hovermode="x",
        showlegend=len(series_list) > 1,
        xaxis_title={"text": "step" if axis == "step" else "time, s"},
        yaxis_title={"text": plotly_text(series_list[0].name if len(series_list) == 1 else "")},
        yaxis_type="log" if wants_log(values) else "linear",
    )
    return figure


def plot_matrix(matrix: LayerMatrix) -> Figure:
    """Draw a quantity of every layer over the steps as a heat map, the first layer on top.

    The color is logarithmic where no value is negative and the positive ones span more than two decades; zeros are
    then left blank. Columns are thinned to at most 1,000, each the largest value of its stretch.

    Raises:
        UsageError: the matrix has no layer or no step.
    """
    import plotly.graph_objects as go

    if not matrix.layers or not len(matrix.steps):
        raise UsageError("plot_matrix needs at least one layer with one step")
    steps, values = thin_columns(matrix.steps, matrix.values, 1_000)
    positive = np.where(values > 0, values, np.nan)
    logarithmic = not bool((values < 0).any()) and wants_log(positive)
    z = np.log10(positive) if logarithmic else values
    bar: dict[str, Any] = {}
    if logarithmic:
        decades = np.arange(math.floor(np.nanmin(z)), math.ceil(np.nanmax(z)) + 1)
        bar = {"tickvals": decades, "ticktext": [f"1e{int(d)}" for d in decades]}
    heat = go.Heatmap(
        x=steps,
        y=[plotly_text(layer) for layer in matrix.layers],
        z=z.T,
        customdata=values.T,
        hovertemplate="%{y}<br>step %{x}: %{customdata:.4g}<extra></extra>",
        colorscale="Viridis",
        colorbar=bar,
    )
    figure = go.Figure(heat)
    figure.update_layout(
        template="plotly_white",
        xaxis_title={"text": "step"},
        yaxis={"autorange": "reversed", "automargin": True},
    )
    return figure


def thin_columns(x: NDArray[Any], values: NDArray[Any], n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Thin a matrix to at most ``n`` rows (steps), each the largest of its stretch in every column, NaN left out.

    Args:
        x: positions, shape ``[m]``; of each stretch the first is returned.
        values: shape ``[m, layers]``; a stretch without any number stays NaN.
        n: the most rows to return, at least 1.
    """
    if len(x) <= n:
        return x, values
    starts = np.linspace(0, len(x), n, endpoint=False).astype(np.intp)
    return x[starts], np.fmax.reduceat(values, starts, axis=0)


# ------------------------------------------------------------------------------------------- in a terminal
_DOTS = np.array(
    [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8
)  # braille, row by column

_BLOCKS = "▁▂▃▄▅▆▇█"


def terminal_plot(
    x: ArrayLike, y: ArrayLike, width: int = 80, height: int = 16, title: str = "", *, scale: Scale = "auto"
) -> str:
    """Draw a curve as text: braille dots (two by four a character), axes, tick labels; NaN are gaps.

    Args:
        x: positions, shape ``[m]``.
        y: values, shape ``[m]``; the infinite are not drawn.
        width: characters in a line, labels included; at least 24.
        height: lines, title and axis included; at least 6.
        title: a line above, shortened to the width.
        scale: of the values; "auto" is logarithmic if all are positive and span more than two decades.

    Raises:
        UsageError: the size is too small, shapes differ, or "log" is asked for values of which none is positive.
    """
    return _plot_text([(x, y)], "", width, height, title, scale)


def terminal_overlay(
    curves: Sequence[tuple[ArrayLike, ArrayLike]], width: int = 80, height: int = 16, title: str = ""
) -> str:
    """Draw several curves over each other as text, like `terminal_plot`, each marked by its letter: a, b, c, ...

    Args:
        curves: ``(x, y)`` each; at most 26.
        width: characters in a line, labels included; at least 24.
        height: lines, title and axis included; at least 6.
        title: a line above, shortened to the width.

    Raises:
        UsageError: there is none, or there are too many; the size is too small, or shapes differ.
    """
    if not 0 < len(curves) <= len(ascii_lowercase):
        raise UsageError(f"terminal_overlay draws 1 to {len(ascii_lowercase)} curves; it got {len(curves)}")
    return _plot_text(curves, ascii_lowercase, width, height, title, "auto")


def _plot_text(
    curves: Sequence[tuple[ArrayLike, ArrayLike]],
    letters: str,
    width: int,
    height: int,
    title: str,
    scale: Scale,
) -> str:
    xs = [np.asarray(x, dtype=float) for x, _ in curves]
    ys = [np.asarray(y, dtype=float) for _, y in curves]
    if width < 24 or height < 6:
        raise UsageError(
            f"terminal_plot needs a width of 24 and a height of 6 at least; it got {width} by {height}"
        )
    every = np.concatenate(ys)
    logarithmic = scale == "log" or (scale == "auto" and wants_log(every))
    if logarithmic and not (every > 0).any():
        raise UsageError("a logarithmic scale needs positive values, and there are none")
    head = [_shorten(safe_text(title) + (" (log scale)" if logarithmic else ""), width)] if title else []
    if logarithmic:
        with np.errstate(divide="ignore", invalid="ignore"):
            ys = [np.log10(y) for y in ys]
    ys = [np.where(np.isfinite(y), y, np.nan) for y in ys]
    every_x = np.concatenate(xs)
    every = np.concatenate(ys)
    shown = np.isfinite(every_x) & np.isfinite(every)
    if not shown.any():
        return "\n".join([*head, "(no finite value to draw)" if every_x.size else "(nothing recorded)"])
    rows = height - len(head) - 2
    low, high = _span(every[shown])
    ticks = {
        round((high - value) / (high - low) * (rows - 1)): label
        for value, label in _ticks(low, high, rows, logarithmic)
    }
    ticks = ticks or {(rows - 1) // 2: f"{(low + high) / 2:.4g}"}  # a span too narrow for round numbers
    margin = max(len(label) for label in ticks.values())
    columns = width - margin - 2
    left, right = _span(every_x[np.isfinite(every_x)])
    canvas = np.zeros((rows * 4, columns * 2), dtype=bool)
    stamps: dict[tuple[int, int], str] = {}
    for place, (x, y) in enumerate(zip(xs, ys, strict=True)):
        px, py = downsample(x, y, max(_SMALLEST_SAMPLE, columns * 8))
        across = (px - left) / (right - left) * (columns * 2 - 1)
        down = (high - py) / (high - low) * (rows * 4 - 1)
        _draw(canvas, across, down)
        if letters:
            stamps |= _stamps(letters[place], (place + 0.5) / len(xs), across, down, columns)
    lines = _braille(canvas)
    for (row, column), letter in stamps.items():
        lines[row] = lines[row][:column] + letter + lines[row][column + 1 :]
    body = [
        f"{ticks.get(r, ''):>{margin}} {'┤' if r in ticks else '│'}{line}" for r, line in enumerate(lines)
    ]
    foot = f"{'':>{margin}} └{'─' * columns}"
    return "\n".join([*head, *body, foot, _below(left, right, margin + 2, columns)])


def _stamps(
    letter: str, phase: float, across: Floats, down: Floats, columns: int
) -> dict[tuple[int, int], str]:
    """Where a curve carries its letter: (row, column) in four quarters of the width, each a share ``phase`` into it."""
    finite = np.isfinite(across) & np.isfinite(down)
    across, down = across[finite], down[finite]
    wanted = (np.arange(4) + phase) * columns * 2 / 4
    order = np.argsort(across, kind="stable")
    heights = np.interp(wanted, across[order], down[order], left=np.nan, right=np.nan)
    inside = np.isfinite(heights)
    return {
        (round(d) // 4, int(a) // 2): letter for a, d in zip(wanted[inside], heights[inside], strict=True)
    }


def terminal_heat(values: ArrayLike, width: int = 24) -> list[str]:
    """Draw a matrix as text, a line of block characters a column, all on one scale: the higher, the larger.

    Thinned as `thin_columns` does, so that a spike of one step is seen. The scale is logarithmic where all values are
    positive and span more than two decades. A blank is no number, "!" an infinite one.

    Args:
        values: shape ``[steps, layers]``.
        width: characters in a line at most; fewer if there are fewer steps.
    """
    matrix = np.asarray(values, dtype=float)
    _, matrix = thin_columns(np.arange(len(matrix)), matrix, width)
    if wants_log(matrix):
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix = np.log10(matrix)
    finite = matrix[np.isfinite(matrix)]
    low, high = _span(finite) if finite.size else (0.0, 1.0)
    levels = np.nan_to_num((matrix - low) / (high - low) * (len(_BLOCKS) - 1), nan=0, posinf=0, neginf=0)
    blocks = np.array(list(_BLOCKS))[levels.round().astype(int)]
    drawn = np.where(np.isnan(matrix), " ", np.where(np.isinf(matrix), "!", blocks))
    return ["".join(column) for column in drawn.T]


def _span(values: Floats) -> tuple[float, float]:
    """Return the smallest and largest value, pulled apart where they are one."""
    low, high = float(values.min()), float(values.max())
    if high > low:
        return low, high
    room = abs(low) * 0.05 or 0.5
    return low - room, low + room


def _draw(canvas: NDArray[np.bool_], across: Floats, down: Floats) -> None:
    """Set the dots of the line through the points, broken at NaN."""
    for i in np.flatnonzero(np.isfinite(across) & np.isfinite(down)):
        joined = i + 1 < across.size and np.isfinite(across[i + 1]) and np.isfinite(down[i + 1])
        j = i + 1 if joined else i
        n = int(max(abs(across[j] - across[i]), abs(down[j] - down[i]))) + 2
        columns = np.linspace(across[i], across[j], n).round().astype(int)
        rows = np.linspace(down[i], down[j], n).round().astype(int)
        canvas[rows, columns] = True


def _braille(canvas: NDArray[np.bool_]) -> list[str]:
    """Pack two by four dots into each character."""
    rows, columns = canvas.shape
    cells = canvas.reshape(rows // 4, 4, columns // 2, 2)
    codes = (cells * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    return ["".join(chr(0x2800 + int(c)) if c else " " for c in row) for row in codes]


def _below(left: float, right: float, start: int, columns: int) -> str:
    """Return the line of labels under the horizontal axis: both ends, and the middle where there is room."""
    center = (left + right) / 2
    first, middle, last = number(left), number(round(center) if right - left > 20 else center), number(right)
    line = first + " " * max(1, columns - len(first) - len(last)) + last
    at = columns // 2 - len(middle) // 2
    if columns > 3 * (len(first) + len(middle) + len(last)):
        line = line[:at] + middle + line[at + len(middle) :]
    return " " * start + line


def _ticks(low: float, high: float, rows: int, logarithmic: bool) -> list[tuple[float, str]]:
    """Return round values between the two ends, one for every third row or so, each with its label.

    On a logarithmic scale the values are exponents, and whole decades are labeled; where there is none, the ends.
    """
    most = max(2, rows // 3)
    if logarithmic:
        decades = np.arange(math.ceil(low), math.floor(high) + 1)
        decades = decades[:: math.ceil(len(decades) / most) or 1]
        exponents = [low, high] if len(decades) < 2 else decades
        return [(float(e), f"1e{int(e)}" if e == int(e) else f"{10.0**e:.2g}") for e in exponents]
    rough = (high - low) / most
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    plain = places <= 4 and max(abs(low), abs(high)) < 1e6
    return [(v, "0" if abs(v) < step / 2 else f"{v:.{places}f}" if plain else f"{v:.3g}") for v in values]


def number(value: float) -> str:
    """Write a number for reading: whole numbers with thousands separated, others with five significant digits."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if 1e4 <= abs(value) < 1e15 else f"{value:.5g}"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
