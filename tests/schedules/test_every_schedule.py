"""What every schedule with a card must do, whoever wrote it: one example of each, at lengths that hypothesis chooses."""

import dataclasses
import pickle

import numpy as np
import pytest
from benchmarks.schedules import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from thalweg.core.errors import UsageError
from thalweg.core.method_index import of_kind
from thalweg.schedules import parse
from thalweg.schedules.expressions import known
from thalweg.schedules.shape import Schedule

CARDS = {row.card.name: row for row in of_kind("schedule") if row.module.startswith("thalweg.")}
NAMES = vars(tw.schedules) | {name: getattr(tw.schedules, name) for name in tw.schedules.__all__}
every = pytest.mark.parametrize("make", EXAMPLES.values(), ids=EXAMPLES)
lengths = st.integers(10, 3_000)


def test_every_card_has_an_example_of_its_own_class() -> None:
    assert set(EXAMPLES) == set(CARDS)
    for name, make in EXAMPLES.items():
        assert type(make(100)).__module__ == CARDS[name].module
        assert make(100).card == CARDS[name].card
    assert (make(100) * 2).card is None


def test_every_class_is_exported() -> None:
    assert {type(make(100)).__name__ for make in EXAMPLES.values()} <= set(tw.schedules.__all__)


@every
@settings(max_examples=25, deadline=None)
@given(n=lengths)
def test_values_are_finite_pure_and_the_same_one_by_one(make, n: int) -> None:
    schedule = make(n)
    values = schedule.values()
    assert values.shape == (n,) and values.dtype == np.float64 and np.isfinite(values).all()
    assert (make(n).values() == values).all() and (schedule.values() == values).all()
    at = np.unique(np.linspace(0, n - 1, 23).astype(int))
    one_by_one = [schedule(int(t)) for t in at]
    assert all(type(value) is float for value in one_by_one)
    assert one_by_one == values[at].tolist()


@every
def test_steps_may_come_in_any_order_and_shape(make) -> None:
    schedule = make(120)
    order = np.random.default_rng(0).permutation(120)
    assert (schedule(order) == schedule.values()[order]).all()
    assert (schedule(order.reshape(4, 30)) == schedule.values()[order].reshape(4, 30)).all()
    assert schedule([]).shape == (0,)
    assert schedule(np.int64(7)) == schedule(7) == schedule([7])[0]


@every
def test_the_steps_that_are_given_stay_as_they_are(make) -> None:
    steps = np.arange(150.0)
    make(120)(steps)
    assert (steps == np.arange(150.0)).all()


@every
@settings(max_examples=10, deadline=None)
@given(n=lengths, more=st.integers(0, 10**9))
def test_beyond_its_end_it_is_constant(make, n: int, more: int) -> None:
    schedule = make(n)
    assert schedule.length == n
    assert schedule(n + more) == schedule(n)


@every
@settings(max_examples=10, deadline=None)
@given(n=lengths)
def test_its_repr_makes_an_equal_one(make, n: int) -> None:
    schedule = make(n)
    again = eval(schedule.written(), dict(NAMES))
    assert again == schedule and hash(again) == hash(schedule)
    assert eval(schedule.code, {"tw": tw}) == schedule
    assert parse(schedule.code) == schedule
    assert parse(schedule.written()) == schedule


@every
def test_it_is_frozen_and_can_be_copied(make) -> None:
    schedule = make(100)
    for field in dataclasses.fields(schedule):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, field.name, 1)
    schedule.values()
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule and (again.values() == schedule.values()).all()


@every
@pytest.mark.parametrize(
    "step", [-1, [3, -2], float("nan"), [1.0, float("nan")], float("inf"), "ten", [1, None]]
)
def test_a_step_that_is_none_is_refused(make, step) -> None:
    with pytest.raises(UsageError, match="step"):
        make(100)(step)


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "ten", True])
def test_a_number_that_is_none_is_refused_by_name(make, bad) -> None:
    schedule = make(100)
    numbers = {
        f.name
        for f in dataclasses.fields(schedule)
        if f.init and type(getattr(schedule, f.name)) in (int, float)
    }
    for name in numbers:
        with pytest.raises(UsageError, match=rf"{name}="):
            dataclasses.replace(schedule, **{name: bad})


@every
@pytest.mark.parametrize("peak", [0.0, -1.0, 1e-300])
def test_any_peak_gives_numbers_or_is_refused_in_words(make, peak: float) -> None:
    schedule = make(100)
    if not hasattr(schedule, "peak"):
        pytest.skip("it has no peak")
    try:
        values = dataclasses.replace(schedule, peak=peak).values()
    except UsageError as error:
        assert len(str(error).split()) > 4
    else:
        assert np.isfinite(values).all()


@every
@pytest.mark.parametrize("bad", [None, 3, "text", [1.0, "a"], [float("nan")], [None]])
def test_lists_and_parts_of_the_wrong_kind_are_refused(make, bad) -> None:
    schedule = make(100)
    for field in dataclasses.fields(schedule):
        inner = isinstance(getattr(schedule, field.name), tuple | Schedule)
        if field.init and inner and not (isinstance(bad, int) and field.name == "drift"):
            with pytest.raises(UsageError):
                dataclasses.replace(schedule, **{field.name: bad})


@every
@pytest.mark.parametrize("total", [0, -5, 2.5])
def test_an_impossible_total_is_refused(make, total) -> None:
    schedule = make(100)
    if not next(f for f in dataclasses.fields(schedule) if f.name == "total").init:
        pytest.skip("its total follows from its parts")
    with pytest.raises(UsageError):
        dataclasses.replace(schedule, total=total)


@every
def test_an_unknown_shape_is_refused_with_the_known_ones(make) -> None:
    schedule = make(100)
    for name in ("shape", "mode", "weights", "between"):
        if hasattr(schedule, name):
            with pytest.raises(UsageError, match=f"{name}='zigzag': it is one of "):
                dataclasses.replace(schedule, **{name: "zigzag"})


@every
def test_joined_scaled_and_clipped_it_keeps_its_values(make) -> None:
    schedule: Schedule = make(60)
    values = schedule.values()
    joined = tw.schedules.Linear(start=0.0, end=1.0, total=10).then(schedule)
    assert (joined.values()[10:] == values).all()
    assert ((schedule * 0.5).values() == 0.5 * values).all()
    assert (schedule.clipped(high=float(values.mean())).values() == np.minimum(values, values.mean())).all()
    assert ((schedule * schedule).values() == values**2).all()
    for made in (
        joined,
        schedule * 0.5,
        schedule.clipped(low=0.0),
        (2 * schedule).clipped(high=1.0).then(schedule),
    ):
        assert parse(made.code) == made and eval(made.code, {"tw": tw}) == made


def test_names_in_expressions_are_those_of_the_cards() -> None:
    assert {name.replace("_", "-") for name in known()} >= set(CARDS)
