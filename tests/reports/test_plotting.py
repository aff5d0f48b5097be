"""The plain plots: thinning keeps every spike, text plots keep the shape, figures treat names as text."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg.core.errors import UsageError
from thalweg.record import Recorder, open_run
from thalweg.record.plotting import (
    DARK,
    LIGHT,
    downsample,
    plot_matrix,
    plot_series,
    plotly_text,
    safe_text,
    terminal_overlay,
    terminal_plot,
    thin_columns,
    wants_log,
)
from thalweg.record.sketching import Strip, overlay

NUMBERS = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0])
CURVES = hnp.arrays(np.float32, st.integers(1, 400), elements=NUMBERS)


@given(y=CURVES, n=st.integers(7, 120))
def test_thinning_keeps_every_extreme_and_gap(y: np.ndarray, n: int) -> None:
    index, kept = downsample(np.arange(y.size), y, n)
    assert len(index) <= max(n, 1) and (np.diff(index) > 0).all()
    np.testing.assert_array_equal(kept, y[index])
    assert index[0] == 0 and index[-1] == y.size - 1
    for odd in (np.isnan, np.isposinf, np.isneginf):
        assert odd(kept).any() == odd(y).any()
    finite = y[np.isfinite(y)]
    if finite.size:
        left = kept[np.isfinite(kept)]
        assert left.min() == finite.min() and left.max() == finite.max()


@given(y=hnp.arrays(np.float32, st.integers(50, 400), elements=NUMBERS), n=st.integers(7, 49))
def test_every_stretch_keeps_its_own_extremes_and_gaps(y: np.ndarray, n: int) -> None:
    """Whatever lies between two neighbors that were kept lies within the values kept around them."""
    index, kept = downsample(np.arange(y.size), y, n)
    kinds = 2 + sum(bool(odd(y).any()) for odd in (np.isnan, np.isposinf, np.isneginf))
    stretches = max(1, (n - 2) // kinds)
    edges = [*np.linspace(0, y.size, stretches, endpoint=False).astype(int).tolist(), y.size]
    for start, end in itertools.pairwise(edges):
        part, left = y[start:end], kept[(index >= start) & (index < end)]
        assert np.isnan(left).any() == np.isnan(part).any()
        if np.isfinite(part).any():
            assert left[np.isfinite(left)].min() == part[np.isfinite(part)].min()
            assert left[np.isfinite(left)].max() == part[np.isfinite(part)].max()


def test_a_spike_of_one_step_in_a_million_survives() -> None:
    y = np.random.default_rng(0).normal(size=1_000_000)
    y[123_457], y[800_001] = 40.0, np.nan
    x, kept = downsample(np.arange(y.size), y, 2_000)
    assert len(x) <= 2_000
    assert 123_457 in x and 800_001 in x and np.nanmax(kept) == 40.0


@pytest.mark.parametrize(
    ("x", "y", "n"), [(range(9), range(9), 6), (range(9), range(8), 7), ([[1]], [[1]], 7)]
)
def test_thinning_says_what_is_wrong(x: object, y: object, n: int) -> None:
    with pytest.raises(UsageError, match="downsample needs"):
        downsample(x, y, n)


def test_columns_keep_their_largest_value_and_empty_ones_stay_empty() -> None:
    values = np.full((100, 2), np.nan, dtype=np.float32)
    values[:, 0] = np.arange(100)
    values[50, 0] = 1e6
    x, thin = thin_columns(np.arange(100), values, 10)
    assert x.tolist() == list(range(0, 100, 10))
    assert thin[5, 0] == 1e6 and thin[0, 0] == 9 and np.isnan(thin[:, 1]).all()


def test_text_plot_has_its_size_and_shows_the_spike() -> None:
    t = np.arange(3_000)
    y = np.exp(-t / 1_000.0)
    y[1_800] = 3.0
    lines = terminal_plot(t, y, 80, 16, "loss").splitlines()
    assert len(lines) == 16 and max(map(len, lines)) <= 80
    assert lines[0] == "loss"
    column = 5 + round((80 - 5) * 1_800 / 2_999)
    assert any("⠀" < c <= "⣿" for c in lines[1][column - 3 : column + 3]), "the spike reaches the top row"


def test_text_plot_of_a_ramp_rises_from_corner_to_corner() -> None:
    body = terminal_plot([0, 1], [0, 1], 40, 12).splitlines()[:-2]
    first = [next(i for i, c in enumerate(line) if "⠀" < c <= "⣿") for line in body]
    assert first == sorted(first, reverse=True)


def test_text_plot_chooses_a_log_scale_and_breaks_at_gaps() -> None:
    y = 10.0 ** np.linspace(0, -6, 200)
    assert "(log scale)" in terminal_plot(np.arange(200), y, 60, 12, "lr")
    y[80:120] = np.nan
    lines = terminal_plot(np.arange(200), y, 60, 12).splitlines()[:-2]
    middle = [line[32:36] for line in lines]
    assert not any("⠀" < c <= "⣿" for text in middle for c in text)


@pytest.mark.parametrize(
    ("y", "said"), [([], "nothing recorded"), ([np.nan] * 3, "no finite value"), ([np.inf], "no finite")]
)
def test_text_plot_of_nothing_says_so(y: list[float], said: str) -> None:
    assert said in terminal_plot(np.arange(len(y)), y, 40, 8)


@given(y=CURVES, width=st.integers(24, 120), height=st.integers(6, 30))
def test_text_plot_never_fails_on_any_values(y: np.ndarray, width: int, height: int) -> None:
    lines = terminal_plot(np.arange(y.size), y, width, height, "t").splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= max(width, 26)


def test_text_plot_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(UsageError, match="width of 24"):
        terminal_plot([1], [1], 10, 10)
    with pytest.raises(UsageError, match="positive"):
        terminal_plot([1, 2], [-1, -2], 40, 10, scale="log")


def test_log_scale_only_for_positive_values_over_two_decades() -> None:
    assert (
        wants_log([1e-6, 1, np.nan, np.inf])
        and not wants_log([0.5, 1])
        and not wants_log([0, 1e6])
        and not wants_log([])
    )


def test_names_cannot_steer_a_terminal_or_plotly() -> None:
    assert safe_text("a\x1b[31m\u202eb\tc\r\n\x07") == "a\ufffd[31m\ufffdb c  \ufffd"
    assert plotly_text('<b>&"') == '&lt;b&gt;&amp;"'


def test_figures_of_a_run_draw_what_was_recorded(tmp_path: Path) -> None:
    evil = "<b>x</b>"
    with Recorder(tmp_path / "r.tw") as recorder:
        recorder.declare(f"norm/{evil}", layer=evil)
        recorder.extend(
            ["loss", evil, f"norm/{evil}", "norm/zero"],
            [1, 2, 3],
            [[3, 1, 1e-4, 0], [2, 1, 1, 0], [1, 1, 9, 0]],
        )
    run = open_run(tmp_path / "r.tw")
    figure = run.plot("loss", evil)
    assert figure.data[0].y.tolist() == [3, 2, 1] and figure.data[1].name == "&lt;b&gt;x&lt;/b&gt;"
    figure = plot_series([run["loss"]], axis="time")
    assert figure.data[0].x[0] == 0 and "time" in figure.layout.xaxis.title.text
    heat = plot_matrix(run.matrix("norm")).data[0]
    assert heat.y[0] == "&lt;b&gt;x&lt;/b&gt;" and np.allclose(heat.z[0], [-4, 0, np.log10(9)], atol=1e-6)
    assert np.isnan(heat.z[1]).all() and heat.customdata[1].tolist() == [0, 0, 0]
    for wrong in (
        lambda: plot_series([]),
        lambda: plot_series([run["loss"]], axis="epoch"),
        lambda: plot_matrix(run.matrix("no")),
    ):
        with pytest.raises(UsageError):
            wrong()


# ------------------------------------------------------------------------------------------- colors
LENSES = {  # Machado, Oliveira and Fernandes (2009), severity 1
    "ordinary": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(color: str) -> np.ndarray:
    c = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(("colors", "page"), [(LIGHT, "#ffffff"), (DARK, "#161b22")])
def test_line_colors_stand_out_and_are_told_apart_by_every_eye(colors: tuple[str, ...], page: str) -> None:
    assert all(contrast(color, page) >= 3 for color in colors), "WCAG 1.4.11: 3:1 for graphics"
    for lens in LENSES.values():
        seen = [lab(np.asarray(lens) @ linear(color)) for color in colors]
        distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(distances) > 11, "well over the just noticeable difference of 2.3"


# ------------------------------------------------------------------------------------------- several curves
def test_an_overlay_marks_each_curve_with_its_letter_on_the_curve():
    x = np.linspace(0, 100, 300)
    lines = terminal_overlay(
        [(x, x), (x, 100 - x), (x[:150], np.full(150, 20.0))], 60, 20, "three"
    ).splitlines()
    assert lines[0] == "three" and len(lines) == 20
    body = [line.partition("┤")[2] or line.partition("│")[2] for line in lines[1:-2]]
    places = {
        c: [(r, i) for r, line in enumerate(body) for i, ch in enumerate(line) if ch == c] for c in "abc"
    }
    assert len(places["a"]) == len(places["b"]) == 4 and len(places["c"]) == 2
    assert [r for r, _ in sorted(places["a"], key=lambda p: p[1])] == sorted(
        (r for r, _ in places["a"]), reverse=True
    )
    assert [r for r, _ in sorted(places["b"], key=lambda p: p[1])] == sorted(r for r, _ in places["b"])
    assert len({r for r, _ in places["c"]}) == 1


def test_an_overlay_of_one_curve_is_its_plot_with_letters():
    x = np.linspace(0, 1, 50)
    plain, marked = terminal_plot(x, x**2, 50, 12), terminal_overlay([(x, x**2)], 50, 12)
    assert sum(a != b for a, b in zip(plain, marked, strict=True)) == marked.count("a") == 4


@pytest.mark.parametrize("count", [0, 27])
def test_an_overlay_needs_a_letter_for_each(count):
    with pytest.raises(UsageError, match="1 to 26"):
        terminal_overlay([([0, 1], [0, 1])] * count)


def test_an_overlay_as_svg_has_a_line_and_a_legend_for_each_curve():
    steps = np.arange(2_000)
    strips = [
        Strip("<up>", steps, steps / 10.0),
        Strip("gap", steps, np.where(steps % 500 < 250, 5.0, np.nan)),
    ]
    drawn = ElementTree.fromstring(overlay(strips, title="a & b"))
    tag = "{http://www.w3.org/2000/svg}"
    paths = drawn.findall(f"{tag}path")
    assert (
        len(paths) == 2 and len({p.get("stroke") for p in paths}) == 2 and paths[1].get("d").count("M") == 4
    )
    words = [text.text for text in drawn.findall(f"{tag}text")]
    assert {"<up>", "gap", "0 to 199.9"} <= set(words) and drawn.get("aria-label") == "a & b"
    heights = [
        float(part.split()[1].split("h")[0]) for part in paths[0].get("d").replace("M", "L").split("L")[1:]
    ]
    assert heights == sorted(heights, reverse=True) and 18 <= heights[-1] < heights[0] <= 258
