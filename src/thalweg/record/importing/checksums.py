"""CRC-32C of many pieces of a buffer at once, in NumPy.

The checksum is linear: that of a row of bytes is the XOR of what each byte adds at its distance from the end, a table
look-up, and bytes that are the same in all rows are looked up once. Rows that are too long for a table are cut into
chunks from their end; a chunk's sum is then moved to its place by as many zero bytes as follow it.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
_POLYNOMIAL = np.uint32(0x82F63B78)
_FULL = np.uint32(0xFFFFFFFF)
_CHUNK = 64
_SLICE = 8192  # rows at a time, so that what is looked up in turn stays in the processor's cache


def crc32c_rows(rows: Bytes) -> Words:
    """CRC-32C [n] of the rows of a matrix [n, length]; fast for many rows of some hundred bytes."""
    out = _raw(rows)
    out ^= zeros_crc(np.array([rows.shape[1]]))[0]
    return out


def crc32c_pieces(data: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Words:
    """CRC-32C [n] of ``data[start:start + length]`` for each start and length, of whatever lengths."""
    padded = np.concatenate([np.zeros(_CHUNK, np.uint8), data])
    chunks = np.maximum(1, -(-lengths // _CHUNK))
    firsts = np.cumsum(chunks) - chunks
    piece = np.repeat(np.arange(len(starts)), chunks)
    after = (chunks - 1)[piece] - (
        np.arange(len(piece)) - firsts[piece]
    )  # chunks that follow in the same piece
    begins = (starts + lengths)[piece] - _CHUNK * after  # in `padded`, which is shifted by one chunk
    pads = np.maximum(0, _CHUNK * (after + 1) - lengths[piece])
    sums = np.empty(len(piece), np.uint32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _CHUNK)
    for low in range(0, len(piece), _SLICE):
        part = slice(low, low + _SLICE)
        rows = windows[begins[part]]
        rows *= np.arange(_CHUNK) >= pads[part, None]
        sums[part] = _raw(rows)
    joined: Words = np.bitwise_xor.reduceat(_moved(sums, _CHUNK * after), firsts)
    return joined ^ zeros_crc(lengths)


def zeros_crc(lengths: NDArray[np.int64]) -> Words:
    """CRC-32C [n] of so many zero bytes."""
    return _moved(np.full(len(lengths), _FULL), lengths) ^ _FULL


def _raw(rows: Bytes) -> Words:
    """The linear part of the checksum of each row."""
    count, length = rows.shape
    tables = _places(1 << max(6, (length - 1).bit_length()))
    out = np.zeros(count, np.uint32)
    if not count:
        return out
    varies = (rows != rows[0]).any(axis=0)
    same = np.flatnonzero(~varies)
    out ^= np.bitwise_xor.reduce(tables[length - 1 - same, rows[0, same]])
    different = np.flatnonzero(varies).tolist()
    for low in range(0, count, _SLICE):
        part, sums = rows[low : low + _SLICE], out[low : low + _SLICE]
        for column in different:
            sums ^= tables[length - 1 - column].take(part[:, column])
    return out


@cache
def byte_table() -> list[int]:
    """The table of the common byte-by-byte algorithm, for single short pieces."""
    return [int(word) for word in _places(64)[0]]


@cache
def _places(length: int) -> Words:
    """[length, 256] what a byte adds to the checksum if so many bytes follow it."""
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = np.where(byte & 1, (byte >> 1) ^ _POLYNOMIAL, byte >> 1)
    out = np.empty((length, 256), np.uint32)
    out[0] = byte
    for place in range(1, length):
        out[place] = byte[out[place - 1] & 255] ^ (out[place - 1] >> 8)
    return out


@cache
def _power(bit: int) -> Words:
    """[4, 256] what each byte of a checksum becomes after 2**bit zero bytes."""
    if bit:
        half = _power(bit - 1)
        return _applied(half, half.reshape(-1)).reshape(4, 256)
    word = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    one: Words = _places(64)[0][word & 255] ^ (word >> 8)
    return one


def _applied(power: Words, words: Words) -> Words:
    out: Words = power[0][words & 255]
    for place in (1, 2, 3):
        out ^= power[place][(words >> (8 * place)) & 255]
    return out


def _moved(words: Words, zeros: NDArray[np.int64]) -> Words:
    """Each word after so many zero bytes."""
    out = words.copy()
    for bit in range(int(zeros.max(initial=0)).bit_length()):
        there = np.flatnonzero((zeros >> bit) & 1)
        if len(there):
            out[there] = _applied(_power(bit), out[there])
    return out
