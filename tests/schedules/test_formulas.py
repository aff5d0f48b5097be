"""Each schedule against what it is by definition: the rule step by step, a closed form, a simulation."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from thalweg.core.errors import UsageError
from thalweg.schedules.cooling import cooled
from thalweg.schedules.shape import piecewise, steps_of

s = tw.schedules
SHAPES = ["linear", "sqrt", "exponential", "cosine", "inverse"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cooldown_goes_from_the_top_to_the_floor_and_never_up(shape) -> None:
    values = cooled(shape, 3e-3, 2e-4, np.linspace(0, 1, 1001))
    assert values[0] == pytest.approx(3e-3, rel=1e-14) and values[-1] == pytest.approx(2e-4, rel=1e-13)
    assert (np.diff(values) < 0).all()


@given(
    total=st.integers(1, 400), up=st.floats(0, 0.5, exclude_max=True), down=st.floats(0, 0.5, exclude_max=True),
    shape=st.sampled_from(SHAPES),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_wsd_rises_holds_and_falls(total: int, up: float, down: float, shape) -> None:
    schedule = s.WSD(peak=2.0, total=total, warmup=up, decay=down, shape=shape)
    rise, fall = round(up * total), round(down * total)
    values = schedule(np.arange(total + 1))
    assert values[:rise] == pytest.approx([2.0 * t / rise for t in range(rise)])
    assert (values[rise : total - fall] == 2.0).all()
    low = 0.2 if shape in ("exponential", "inverse") else 0.0
    z = np.arange(fall + 1) / max(1, fall)
    closed = {
        "linear": 2 - (2 - low) * z,
        "sqrt": 2 - (2 - low) * np.sqrt(z),
        "exponential": 2 * 0.1**z,
        "cosine": low + (2 - low) * 0.5 * (1 + np.cos(np.pi * z)),
        "inverse": 1 / ((1 - z) / 2 + z / 0.2),
    }[shape]
    if fall:
        np.testing.assert_allclose(values[total - fall :], closed, atol=1e-14)


def test_wsd_s_is_one_trunk_with_cooldowns_that_are_kept() -> None:
    schedule = s.WSDS(peak=1e-3, ends=(100, 250, 400), warmup=20, decay=0.1)
    values = schedule(np.arange(401))
    assert values[19] == 1e-3 * 19 / 20 and (values[20:91] == 1e-3).all()
    for begin, end in ((90, 100), (235, 250), (385, 400)):
        one = s.WSD(peak=1e-3, total=end, decay=end - begin, shape="inverse")
        np.testing.assert_allclose(values[begin:end], one(np.arange(begin, end)), rtol=1e-14)
    assert (values[100:236] == 1e-3).all() and values[400] == pytest.approx(1e-4)
    assert schedule.total == 400


def test_wsd_s_as_levanter_writes_its_decay() -> None:
    # lr / ((lr / min_lr - 1) count / steps + 1)
    count = np.arange(30)
    theirs = 6e-4 / ((6e-4 / 6e-5 - 1) * count / 30 + 1)
    ours = s.WSDS(peak=6e-4, ends=(300,), decay=30)(270 + count)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize("shape", ["cosine", "inverse_sqrt"])
def test_infinite_in_its_four_phases_by_the_papers_code(shape) -> None:
    up, down, hold, last = 10, 50, 60, 30
    ours = s.Infinite(
        peak=3e-4, constant=1.65e-4, warmup=up, cooldown=down, anneal=last, total=150, final=3e-5, shape=shape
    )

    def theirs(t: int) -> float:
        if t <= up:
            return 3e-4 * t / up
        if t <= up + down:
            z = (t - up) / down
            if shape == "cosine":
                return 1.65e-4 + (3e-4 - 1.65e-4) / 2 * (math.cos(math.pi * z) + 1)

            def g(z: float) -> float:
                return 1 / math.sqrt(1 + 10 * z) - 1

            return 3e-4 + (1.65e-4 - 3e-4) / g(1) * g(z)
        if t <= up + down + hold:
            return 1.65e-4
        return 1.65e-4 * math.exp(math.log(3e-5 / 1.65e-4) / last * (t - up - down - hold))

    np.testing.assert_allclose(ours(np.arange(151)), [theirs(t) for t in range(151)], rtol=1e-13)


def test_infinite_has_no_end_unless_it_is_annealed() -> None:
    endless = s.Infinite(peak=3e-4, constant=1e-4, warmup=10, cooldown=20)
    assert endless.total is None and endless(10**9) == 1e-4
    with pytest.raises(UsageError, match="total"):
        s.Infinite(peak=3e-4, constant=1e-4, anneal=100)


def test_rewarming_is_one_cosine_a_stage() -> None:
    schedule = s.RewarmRedecay(peak=3e-4, stages=(200, 100), warmup=0.1, again=2e-4, final=3e-5)
    first = s.Cosine(peak=3e-4, total=200, warmup=20, final=3e-5)
    second = s.Cosine(peak=2e-4, total=100, warmup=10, start=3e-5, final=3e-5)
    assert schedule.values() == pytest.approx(np.concatenate([first.values(), second.values()]))
    assert schedule.switches == [200] and schedule(200) == 3e-5
    resumed = s.RewarmRedecay(peak=2e-4, stages=(100,), warmup=0.1, first=3e-5, final=3e-5)
    assert (resumed.values() == schedule.values()[200:]).all()


def test_rex_is_the_published_formula_and_above_linear() -> None:
    rex, line = s.REX(peak=1.0, total=1000), s.Linear(start=1.0, total=1000)
    z = np.arange(1001) / 1000
    assert rex(np.arange(1001)) == pytest.approx((1 - z) / (0.5 + 0.5 * (1 - z)))
    assert rex(0) == 1.0 and rex(1000) == 0.0
    assert (rex.values()[1:] > line.values()[1:]).all()


def test_a_sampled_profile_changes_only_where_it_is_sampled() -> None:
    profile = s.Linear(start=1.0, total=100)
    often = s.Sampled(profile=profile, every=10)
    assert often.values() == pytest.approx(np.repeat(profile(np.arange(0, 100, 10)), 10))
    stairs = s.Sampled(profile=profile, at=(0.3, 0.6, 90))
    assert stairs.values() == pytest.approx(np.repeat(profile([0, 30, 60, 90]), [30, 30, 30, 10]))
    assert (s.Sampled(profile=profile, every=1).values() == profile.values()).all()


def test_power_is_the_published_equation_in_tokens() -> None:
    schedule = s.Power(batch=128, length_of_sequence=4096, total=10_000, warmup=100, decay=1000)
    for t in (100, 500, 5000, 8999):
        assert schedule(t) == pytest.approx(min(0.02, 128 * 4 * (t * 128 * 4096) ** -0.51), rel=1e-13)
    assert schedule(50) == pytest.approx(schedule(100) / 2) and schedule(0) == 0.0
    assert schedule(9500) == pytest.approx(schedule(9000) / 2) and schedule(10_000) == pytest.approx(
        0, abs=1e-18
    )
    # the paper: 0.0011 for 10 trillion tokens at a batch of 1,024, with the amplitude 4.6
    far = s.Power(batch=1024, length_of_sequence=4096, a=4.6)
    assert far(1e13 / (1024 * 4096)) == pytest.approx(0.0011, rel=0.02)
    endless = s.Power(batch=128, length_of_sequence=4096)
    assert endless(0) == 0.02 and endless(10**9) > 0


def test_slow_start_fast_decay_rises_flat_and_falls_by_a_constant_factor() -> None:
    values = s.SlowStartFastDecay(peak=1.0, total=100, rise=40, start=0.0, final=1e-3)(np.arange(101))
    assert values[:41] == pytest.approx((np.arange(41) / 40) ** 2)
    assert values[41:] / values[40:-1] == pytest.approx(np.full(60, 1e-3 ** (1 / 60)))


def test_two_phase_switches_rate_and_data_together() -> None:
    schedule = s.TwoPhase(peak=1e-3, total=1000, switch=800, warmup=50, rewarm=20)
    values = schedule(np.arange(1001))
    assert values[50] == 1e-3 and values[800] == pytest.approx(1e-4) and values[820] == pytest.approx(5e-4)
    assert (np.diff(values[820:]) < 0).all() and values[1000] == pytest.approx(1e-5)
    assert values[820:1001:90][1:] / values[820:1001:90][:-1] == pytest.approx([0.02**0.5] * 2)
    data = schedule.data()
    assert data(799) == 0.0 and data(800) == 1.0 and data.total == 1000


@pytest.mark.parametrize("drift", [0.0, 0.05])
@pytest.mark.parametrize("batch", [1, 4])
def test_drift_aware_rate_is_best_in_a_simulation(drift: float, batch: int) -> None:
    d, noise, total, repeats = 6, 0.4, 60, 4000
    schedule = s.DriftAware(total=total, dimension=d, noise=noise, drift=drift, distance=2.0, batch=batch)

    def simulate(rates: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(1)
        error = rng.normal(size=(repeats, d))
        error *= math.sqrt(2.0) / np.linalg.norm(error, axis=1, keepdims=True)
        seen = []
        for rate in rates:
            seen.append((error**2).sum(1).mean())
            x = rng.normal(size=(repeats, batch, d))
            residual = np.einsum("rbd,rd->rb", x, error) + noise * rng.normal(size=(repeats, batch))
            error = error - rate * np.einsum("rbd,rb->rd", x, residual) / batch
            error = error + drift / math.sqrt(d) * rng.normal(size=(repeats, d))
        return np.array(seen)

    best = simulate(schedule.values())
    np.testing.assert_allclose(best, schedule.distances(), rtol=0.06)
    for factor in (0.6, 1.5):
        assert simulate(factor * schedule.values()).sum() > best.sum()


def test_drift_aware_rate_rises_when_the_drift_begins() -> None:
    begins = s.from_table([0.0, 0.3], steps=[0, 200])
    schedule = s.DriftAware(total=600, dimension=20, noise=0.5, drift=begins)
    rates = schedule.values()
    assert (np.diff(rates[:200]) < 0).all() and rates[400] > 3 * rates[199]
    still = s.DriftAware(total=100_000, dimension=20, noise=0.5).values()
    assert still[-1] * 100_000 == pytest.approx(1.0, rel=0.05)  # one over the step


# -- refinement -----------------------------------------------------------------------------------------------


def published(norms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """w_t sum_(p > t) w_p, as the paper has it, one step at a time."""
    return np.array([weights[t] * sum(weights[t + 1 :]) for t in range(len(norms))])


@pytest.mark.parametrize(("weights", "power"), [("square", -2), ("inverse", -1)])
def test_refined_is_the_published_rule_with_one_step_more(weights, power: int) -> None:
    norms = np.random.default_rng(0).lognormal(size=200)
    ours = s.Refined(peak=0.3, norms=tuple(norms), weights=weights, smoothing=0)
    longer = np.append(norms, norms[-1])
    theirs = published(longer, longer**power)[:-1]
    np.testing.assert_allclose(ours.values(), 0.3 * theirs / theirs.max(), rtol=1e-12)


@given(
    count=st.integers(1, 500),
    norm=st.floats(1e-9, 1e9),
    smoothing=st.floats(0, 0.9),
    total=st.integers(1, 900),
)
@settings(max_examples=50, deadline=None)
def test_refined_from_constant_norms_is_linear_decay(
    count: int, norm: float, smoothing: float, total: int
) -> None:
    ours = s.Refined(peak=2.0, norms=(norm,) * count, smoothing=smoothing, total=total)
    np.testing.assert_allclose(
        ours.values(), s.Linear(start=2.0, total=total).values(), rtol=1e-12, atol=1e-12
    )


def test_refined_warms_up_where_norms_were_large_and_falls_fast_where_they_grew() -> None:
    z = np.arange(1000) / 1000
    early = s.Refined(peak=1.0, norms=tuple(1 + 5 * np.exp(-z / 0.03)), smoothing=0.01).values()
    assert early[0] < 0.1 and 50 < early.argmax() < 300
    late = s.Refined(peak=1.0, norms=tuple((1.001 - z) ** -0.5), smoothing=0.01)
    assert late(900) < 0.3 * s.Linear(start=1.0, total=1000)(900)


@pytest.mark.parametrize(("count", "smoothing"), [(300, 0.1), (301, 0.25), (50, 0.02), (7, 0.9)])
def test_running_median_is_scipys_with_the_papers_edges(count: int, smoothing: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    from thalweg.schedules.refined import _running_median

    norms = np.random.default_rng(count).lognormal(size=count)
    width = 2 * (int(smoothing * count) // 2) + 1
    pad = 2 * width
    theirs = ndimage.median_filter(np.pad(norms, (0, pad), mode="reflect"), size=width, mode="nearest")[:-pad]
    assert list(_running_median(tuple(norms), width)) == theirs.tolist()


# -- batch, data, synchronization -----------------------------------------------------------------------------


@given(
    first=st.integers(1, 40),
    additions=st.integers(0, 12),
    step=st.integers(1, 40),
    examples=st.integers(1, 20_000),
)
@settings(max_examples=60, deadline=None)
def test_batch_ramp_is_megatrons_rule_step_by_step(
    first: int, additions: int, step: int, examples: int
) -> None:
    last = first + additions * step
    ours = s.BatchRamp(first=first, last=last, examples=examples, step=step)
    consumed, theirs = 0, []
    for _ in range(400):
        taken = additions if consumed > examples else consumed * additions // examples
        theirs.append(first + taken * step)
        consumed += theirs[-1]
    assert ours(np.arange(400)).tolist() == theirs


def test_sampling_shares_go_from_even_to_proportional() -> None:
    schedule = s.SamplingTemperature(total=100, hot=1e6, cold=1.0, switch=0.4)
    assert schedule.shares([900, 90, 10], 39) == pytest.approx([1 / 3] * 3, rel=1e-4)
    assert schedule.shares([900, 90, 10], 40) == pytest.approx([0.9, 0.09, 0.01])
    five = s.SamplingTemperature(total=100).shares([900, 90, 10], 0)
    assert five == pytest.approx(np.array([900, 90, 10]) ** 0.2 / (np.array([900, 90, 10]) ** 0.2).sum())
    line = s.SamplingTemperature(total=100, shape="linear", switch=50)
    assert line(25) == pytest.approx(3.0) and line(50) == line(99) == 1.0
    for bad in ([1, 0], [1, float("nan")], [-1]):
        with pytest.raises(UsageError, match="above 0"):
            line.shares(bad, 0)


@given(
    total=st.integers(5, 400), least=st.integers(1, 9), alpha=st.floats(1e-4, 1.0), warmup=st.integers(0, 5)
)
@settings(max_examples=60, deadline=None)
def test_qsr_is_the_authors_rule_round_by_round(total: int, least: int, alpha: float, warmup: int) -> None:
    rate = s.Cosine(peak=0.1, total=total)
    ours = s.QuadraticSync(rate=rate, alpha=alpha, least=least, warmup=warmup)
    step, ends, periods = 0, [], []
    while step < total:
        wanted = least if step < warmup else max(int(min((alpha / rate(step)) ** 2, 1e9)), least)
        period = max(min(wanted, total - step), 1)
        periods += [period] * period
        step += period
        ends.append(step - 1)
    assert ours.values().tolist() == periods
    assert ours.ends().tolist() == ends


def test_qsr_rounds_grow_as_the_rate_falls_to_zero() -> None:
    periods = s.QuadraticSync(rate=s.Linear(start=1e-3, total=5000), alpha=2e-3).values()
    assert (periods[:500] == 4).all() and periods.max() > 300
    ends = s.QuadraticSync(rate=s.Linear(start=1e-3, total=5000), alpha=2e-3).ends()
    assert ends[-1] == 4999 and all(a < b for a, b in pairwise(ends))


# -- the ground -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.lists(st.integers(1, 50), max_size=5))
@settings(deadline=None)
def test_piecewise_is_the_last_part_that_has_begun(steps: list[int], starts: list[int]) -> None:
    begins = [0, *sorted(starts)]
    parts = [lambda t, k=k: 100 * k + t for k in range(len(begins))]
    got = piecewise(np.array(steps, float), begins, parts)
    assert got.tolist() == [100 * max(k for k, b in enumerate(begins) if b <= t) + t for t in steps]


@pytest.mark.parametrize(
    ("length", "total", "steps"),
    [(0, 10, 0), (10, 10, 10), (0.25, 10, 2), (0.0, None, 0), (7, None, 7), (3.0, 9, 3)],
)
def test_lengths_are_steps_or_shares(length, total, steps) -> None:
    assert steps_of(length, total, "warmup") == steps


@pytest.mark.parametrize(("length", "total"), [(-1, 10), (11, 10), (1.5, 10), (-0.5, 10), (0.5, None)])
def test_impossible_lengths_are_refused_by_name(length, total) -> None:
    with pytest.raises(UsageError, match=f"warmup={length}"):
        steps_of(length, total, "warmup")


@pytest.mark.parametrize(
    "make",
    [
        lambda: s.WSD(peak=1, total=100, warmup=60, decay=0.5),
        lambda: s.WSD(peak=1, total=100, decay=101),
        lambda: s.WSD(peak=1, total=100, shape="exponential", final=0.0),
        lambda: s.WSD(peak=1),
        lambda: s.Cosine(peak=1, total=100, warmup=100),
        lambda: s.Polynomial(peak=1, total=100, power=0),
        lambda: s.OneCycle(peak=1, total=3),
        lambda: s.OneCycle(peak=1, total=100, rise=0.6, three_phase=True),
        lambda: s.WSDS(peak=1, ends=()),
        lambda: s.WSDS(peak=1, ends=(100, 50)),
        lambda: s.WSDS(peak=1, ends=(100, 200), warmup=95, decay=10),
        lambda: s.WSDS(peak=1, ends=(100, 105), decay=10),
        lambda: s.Infinite(peak=1, constant=0.5, total=10, warmup=5, cooldown=6),
        lambda: s.RewarmRedecay(peak=1, stages=()),
        lambda: s.RewarmRedecay(peak=1, stages=(10, 0)),
        lambda: s.RewarmRedecay(peak=1, stages=(10, 5), warmup=5),
        lambda: s.Sampled(profile=s.REX(peak=1, total=10)),
        lambda: s.Sampled(profile=s.REX(peak=1, total=10), every=0.01),
        lambda: s.Sampled(profile=s.REX(peak=1, total=10), at=(5, 3)),
        lambda: s.Sampled(profile=s.Constant(peak=1), every=0.5),
        lambda: s.Power(batch=0, length_of_sequence=1),
        lambda: s.Power(batch=1, length_of_sequence=1, decay=10),
        lambda: s.TwoPhase(peak=1, total=100, switch=99, rewarm=1),
        lambda: s.TwoPhase(peak=1, total=100, final=0.0),
        lambda: s.SlowStartFastDecay(peak=1, total=100, rise=100),
        lambda: s.DriftAware(total=10, dimension=0, noise=1),
        lambda: s.DriftAware(total=10, dimension=1, noise=1, drift="much"),
        lambda: s.Refined(peak=1, norms=()),
        lambda: s.Refined(peak=1, norms=(1.0, 0.0)),
        lambda: s.Refined(peak=1, norms=(1.0, float("nan"))),
        lambda: s.BatchRamp(first=32, last=100, examples=1000),
        lambda: s.BatchRamp(first=32, last=16, examples=1000),
        lambda: s.SamplingTemperature(total=10, cold=0),
        lambda: s.QuadraticSync(rate=s.Constant(peak=1), alpha=1),
        lambda: s.QuadraticSync(rate=s.REX(peak=1, total=9), alpha=0),
        lambda: s.RAdamWarmUp(peak=1, beta2=0.5),
        lambda: s.WarmUp(peak=1, total=10, shape="exponential"),
        lambda: s.Steps(peak=1),
        lambda: s.Steps(peak=1, milestones=(5, 5)),
        lambda: s.Cyclical(low=0, high=1, half=0),
        lambda: s.CosineRestarts(peak=1, period=0),
        lambda: s.InverseSqrt(peak=1, warmup=-1),
        lambda: s.Exponential(peak=1, decay=0),
        lambda: s.Constant(peak=1).then(s.Constant(peak=2)),
        lambda: s.REX(peak=1, total=9).clipped(low=2, high=1),
        lambda: s.REX(peak=1, total=9) * float("nan"),
        lambda: s.REX(peak=1, total=9).warmed(0),
        lambda: s.REX(peak=1, total=9).warmed(3, shape="steep"),
        lambda: s.from_table([]),
        lambda: s.from_table([1.0, float("nan")]),
        lambda: s.from_table([1.0, 2.0], steps=[3, 3]),
        lambda: s.from_table([1.0, 2.0], steps=[0]),
        lambda: s.from_table([1.0], steps=[float("nan")]),
        lambda: s.from_table([1.0, 2.0], between="cubic"),
        lambda: s.chain([]),
        lambda: s.Constant(peak=1).values(),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(make) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert len(str(caught.value).split()) >= 4


# -- joined ---------------------------------------------------------------------------------------------------


def test_one_after_the_other_each_from_its_own_beginning() -> None:
    a, b, c = s.Linear(start=1.0, total=10), s.Constant(peak=5.0, total=3), s.REX(peak=2.0, total=20)
    chained = s.chain([a, b, c])
    assert chained == a.then(b).then(c) == a.then(b.then(c)) and chained.total == 33
    assert chained.values() == pytest.approx(np.concatenate([a.values(), b.values(), c.values()]))
    assert s.chain([a]) == a
    assert a.then(s.Constant(peak=1.0)).total is None


def test_warmed_puts_a_rise_to_the_first_value_before_it() -> None:
    falling = s.Linear(start=4.0, total=10)
    for shape in ("linear", "cosine", "exponential", "radam"):
        warmed = falling.warmed(5, first=1e-3, shape=shape)
        assert warmed.total == 15 and (warmed(np.arange(5, 15)) == falling.values()).all()
        assert (np.diff(warmed(np.arange(6))) >= 0).all()
    assert falling.warmed(4).values()[:4].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert falling.warmed(2, first=1.0, shape="exponential")(1) == pytest.approx(2.0)


def test_a_product_of_radams_factor_and_a_rate_has_the_rule_throughout() -> None:
    rate = s.Cosine(peak=1e-3, total=50)
    rectified = s.RAdamWarmUp(peak=1.0, beta2=0.9) * rate
    assert rectified.total == 50
    assert (rectified.values() == s.RAdamWarmUp(peak=1.0, beta2=0.9)(np.arange(50)) * rate.values()).all()


def test_tables_hold_or_join_their_values() -> None:
    held = s.from_table([3.0, 1.0], steps=[2, 5], total=9)
    assert held(np.arange(9)).tolist() == [3, 3, 3, 3, 3, 1, 1, 1, 1]
    joined = s.from_table([3.0, 0.0], steps=[2, 5], between="linear")
    assert joined(np.arange(7)).tolist() == [3, 3, 3, 2, 1, 0, 0] and joined.total == 6
    rates = s.WSD(peak=1e-3, total=40).values()
    assert (s.from_table(rates).values() == rates).all()


def test_a_long_table_has_a_short_repr_and_whole_code() -> None:
    table = s.from_table(np.linspace(1, 0, 5000))
    assert len(repr(table)) < 2100 and " ... " in repr(table)
    assert s.parse(table.code) == table


def test_any_function_of_the_step_is_a_schedule() -> None:
    stairs = s.from_callable(lambda t: 1e-3 * 0.5 ** (t // 10), total=30)
    assert stairs.values() == pytest.approx(np.repeat([1e-3, 5e-4, 2.5e-4], 10))

    def one_by_one(step: float) -> float:
        return 1.0 if step < 5 else 0.5

    assert s.from_callable(one_by_one, total=8).values().tolist() == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5]
    assert s.from_callable(lambda t: 2.0, total=3).values().tolist() == [2, 2, 2]


def test_numpy_numbers_are_taken_as_their_own() -> None:
    schedule = s.WSD(peak=np.float64(1e-3), total=np.int64(100), warmup=np.int32(5), decay=np.float32(0.25))
    assert schedule == s.WSD(peak=1e-3, total=100, warmup=5, decay=0.25)
    assert s.Linear(start=1, total=1e3) == s.Linear(start=1.0, total=1000)
