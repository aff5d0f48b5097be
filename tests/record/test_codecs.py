"""Every codec gives back what it was given, costs what it promises, and refuses anything else."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg.record import codecs
from thalweg.record.codecs import DecodeError

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.integers(0, (1 << 64) - 1), INT64)
def test_single_integers_survive(unsigned, signed):
    data = codecs.put_varint(unsigned) + codecs.put_signed(signed)
    first, at = codecs.get_varint(data, 0)
    assert (first, codecs.get_signed(data, at)) == (unsigned, (signed, len(data)))


@given(st.lists(INT64, max_size=60), st.booleans())
def test_sequences_of_integers_survive(values, deflate):
    array = np.array(values, np.int64)
    data = b"x" + codecs.put_ints(array, deflate=deflate) + b"rest"
    back, at = codecs.get_ints(data, 1, len(array))
    assert back.tolist() == values
    assert data[at:] == b"rest"


@given(st.integers(-1000, 1000), st.integers(-50, 50), st.integers(2, 5000))
def test_a_progression_costs_a_few_bytes(start, stride, count):
    steps = start + stride * np.arange(count)
    data = codecs.put_ints(steps)
    assert len(data) <= 6
    assert np.array_equal(codecs.get_ints(data, 0, count)[0], steps)


def test_irregular_steps_cost_their_differences():
    steps = np.cumsum(np.random.default_rng(0).integers(1, 200, 10_000))
    assert len(codecs.put_ints(steps)) <= 10_000 + 10


@given(
    hnp.arrays(hnp.scalar_dtypes(), st.integers(0, 300)).filter(
        lambda a: a.dtype.kind in "biuf" and a.itemsize <= 8
    )
)
def test_arrays_in_planes_survive_bit_by_bit(values):
    native = values.astype(values.dtype.newbyteorder("="))
    back = codecs.get_planes(codecs.put_planes(values), len(values), native.dtype)
    assert back.tobytes() == native.tobytes()


def test_planes_make_measurements_smaller_and_constants_tiny():
    noise = np.random.default_rng(0).lognormal(size=50_000).astype(np.float32)
    assert len(codecs.put_planes(noise)) < 0.92 * noise.nbytes
    assert len(codecs.put_planes(np.full(50_000, 3e-4, np.float32))) < 1200


@given(st.binary(max_size=60), st.integers(0, 5000))
def test_noise_is_refused_or_read_within_bounds(data, count):
    for read in (
        lambda: codecs.get_ints(data, 0, count)[0],
        lambda: codecs.get_planes(data, count, np.dtype("f4")),
    ):
        with contextlib.suppress(DecodeError):
            assert len(read()) == count


def test_no_decoder_allocates_what_was_not_there():
    bomb = codecs.zlib.compress(bytes(1 << 26))
    with pytest.raises(DecodeError):
        codecs.inflate(bomb, 1000)
    with pytest.raises(DecodeError):
        codecs.get_ints(codecs.put_ints(np.arange(5)), 0, 1 << 40)
    with pytest.raises(DecodeError):
        codecs.get_planes(b"", 1 << 40, np.dtype("f4"))
    with pytest.raises(DecodeError):
        codecs.get_varint(b"\xff" * 20, 0)
