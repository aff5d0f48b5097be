"""Frames are found again whatever happens to the bytes around them."""

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.record.frames import (
    FRAME_HEAD,
    HEADER_SIZE,
    MARKER,
    Scan,
    file_header,
    last_of,
    make_frame,
    scan,
)


def reader(data):
    return lambda at, size: data[at : at + size]


def found(data, state=None):
    state = state or Scan()
    return [(f.kind, bytes(f.payload)) for f in scan(reader(data), len(data), state)], state


payloads = st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=200)), min_size=1, max_size=12)


@given(payloads)
def test_frames_come_back_in_order(frames):
    data = file_header() + b"".join(make_frame(k, p) for k, p in frames)
    back, state = found(data)
    assert back == frames
    assert (state.position, state.damaged) == (len(data), 0)


@given(payloads, st.data())
def test_a_damaged_frame_costs_only_itself(frames, data):
    pieces = [make_frame(k, p) for k, p in frames]
    index = data.draw(st.integers(0, len(frames) - 1))
    at = data.draw(st.integers(0, len(pieces[index]) - 1))
    broken = bytearray(pieces[index])
    broken[at] ^= data.draw(st.integers(1, 255))
    back, _ = found(file_header() + b"".join([*pieces[:index], bytes(broken), *pieces[index + 1 :]]))
    assert back == frames[:index] + frames[index + 1 :]


@given(payloads, st.data())
def test_a_file_cut_anywhere_gives_all_that_is_whole_and_goes_on_later(frames, data):
    whole = file_header() + b"".join(make_frame(k, p) for k, p in frames)
    cut = data.draw(st.integers(HEADER_SIZE, len(whole)))
    first, state = found(whole[:cut])
    rest, _ = found(whole, state)
    assert first + rest == frames


def test_a_frame_larger_than_the_window_is_read():
    big = bytes(random.Random(0).randbytes(9 << 20))
    back, _ = found(file_header() + make_frame(1, b"a") + make_frame(2, big) + make_frame(3, b"c"))
    assert [k for k, _ in back] == [1, 2, 3]
    assert back[1][1] == big


@settings(max_examples=30)
@given(payloads, st.integers(0, 3))
def test_the_last_frame_of_a_kind_is_found_from_the_end(frames, junk):
    frames = [*frames, (83, b"summary"), (66, b"x" * 100_000 * junk)]
    data = file_header() + b"".join(make_frame(k, p) for k, p in frames) + MARKER * junk
    last = last_of(reader(data), len(data), b"S", 1 << 26)
    assert last is not None and bytes(last.payload) == b"summary"
    assert last_of(reader(data), len(data), b"\x00", 1 << 26) is None


def test_a_file_full_of_false_markers_takes_no_quadratic_time():
    lies = b"".join(MARKER + b"S" + (3 << 20).to_bytes(4, "little") + b"none" for _ in range(300_000))
    data = file_header() + lies
    assert len(lies) == 300_000 * FRAME_HEAD
    began = time.perf_counter()
    back, state = found(data)
    assert last_of(reader(data), len(data), b"S", 1 << 26) is None
    assert time.perf_counter() - began < 5
    assert back == [] and state.gave_up
