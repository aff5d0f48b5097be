"""The measures that rules rest on, against plain loops over Python lists."""

import statistics as plain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.diagnosis.statistics import (
    MAD,
    centered_median,
    noise,
    runs_of,
    slope,
    stretches,
    trailing_median,
    trailing_scale,
)

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(1, 12))
def test_a_trailing_median_is_that_of_the_values_before(values: list[float], width: int) -> None:
    got = trailing_median(values, width)
    assert np.isnan(got[0])
    for i in range(1, len(values)):
        assert got[i] == plain.median(values[max(0, i - width) : i])


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(1, 6))
def test_a_centered_median_is_that_of_the_values_around(values: list[float], half: int) -> None:
    got = centered_median(values, 2 * half + 1)
    for i in range(len(values)):
        assert got[i] == plain.median(values[max(0, i - half) : i + half + 1])


@settings(max_examples=40, deadline=None)
@given(numbers, st.integers(2, 12))
def test_a_trailing_scale_is_the_median_absolute_deviation(values: list[float], width: int) -> None:
    got = trailing_scale(values, width)
    for i in range(1, len(values)):
        past = values[max(0, i - width) : i]
        middle = plain.median(past)
        assert got[i] == pytest.approx(MAD * plain.median(abs(v - middle) for v in past), abs=1e-9)


def test_noise_is_that_of_the_values_and_not_of_their_trend() -> None:
    random = np.random.default_rng(0)
    values = np.linspace(0, 50, 20_000) + 0.3 * random.standard_normal(20_000)
    assert noise(values) == pytest.approx(0.3, rel=0.05)
    assert noise([1.0]) == noise([]) == 0.0


def test_a_slope_and_its_error_are_those_of_least_squares() -> None:
    random = np.random.default_rng(1)
    t = np.arange(400)
    x = 3 - 0.01 * t + random.standard_normal(400)
    line, error = slope(t, x)
    design = np.stack([t, np.ones(400)], 1)
    solved, residual, *_ = np.linalg.lstsq(design, x, rcond=None)
    covariance = np.linalg.inv(design.T @ design) * residual[0] / 398
    assert line == pytest.approx(solved[0], rel=1e-9)
    assert error == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-9)
    assert slope([1, 1, 1], [1, 2, 3]) == (0.0, 0.0) == slope([1, 2], [1, 2])


def test_stretches_hold_all_values_and_their_means() -> None:
    values = np.arange(103.0)
    t, means, errors = stretches(values, values, 10)
    assert len(t) == len(means) == len(errors) == 10
    sizes = np.diff(np.linspace(0, 103, 11).astype(int))
    assert (means * sizes).sum() == pytest.approx(values.sum())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_runs_of_a_mask(mask: list[bool]) -> None:
    rebuilt = [False] * len(mask)
    for first, last in runs_of(mask):
        rebuilt[first : last + 1] = [True] * (last - first + 1)
    assert rebuilt == mask
