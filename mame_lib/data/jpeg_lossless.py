"""A JPEG lossless encoder (ITU-T T.81, annex H) in array operations: the coding that most mammograms come in.

Each pixel is predicted from its neighbors; the difference is written as its number of bits, in a Huffman code,
and then those bits. Only for writing synthetic files: the encoders at hand end the process on odd sizes.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Code length in bits for a difference of 0, 1, … 16 bits: the table of T.81, K.3, continued from 11 to 16.
_LENGTHS = np.array([2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
_BLOCK = 1 << 16  # codes packed at a time: they stay in the processor's cache
_COUNTS = np.bincount(_LENGTHS, minlength=17)[1:]  # codes of 1, 2, … 16 bits


def encode(stored: NDArray[Any], bits: int, *, predictor: int = 1) -> bytes:
    """Unsigned integers [h, w] of `bits` bits (2 to 16) -> one JPEG stream.

    predictor: selection value of T.81, table H.1; 1 is the left neighbor (process 14, selection value 1), 2 the
    upper one, 4 the plane through left, upper and upper left.
    """
    height, width = stored.shape
    index = _difference(stored.astype(np.int32), bits, predictor).ravel() & 0xFFFF  # [h * w]
    body = _pack(index)
    head = b"\xff\xd8"
    head += b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, bits, height, width, 1, 1, 0x11, 0)
    head += b"\xff\xc4" + struct.pack(">HB", 19 + len(_LENGTHS), 0) + bytes(_COUNTS.tolist()) + bytes(range(17))
    head += b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, predictor, 0, 0)
    stream = head + body + b"\xff\xd9"
    return stream + b"\0" * (len(stream) % 2)


def _difference(x: NDArray[np.int32], bits: int, predictor: int) -> NDArray[np.int32]:
    """Pixel minus prediction [h, w]; it counts modulo 2^16 (H.1.2.1)."""
    guess = np.empty_like(x)
    guess[0, 0] = 1 << (bits - 1)
    guess[0, 1:] = x[0, :-1]  # the first row knows its left neighbor only, the first column its upper one
    guess[1:, 0] = x[:-1, 0]
    left, up, corner = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    guess[1:, 1:] = {1: left, 2: up, 4: left + up - corner}[predictor]
    return x - guess


@cache
def _tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Code and its length in bits for each difference modulo 2^16, both [65536]."""
    index = np.arange(65536)
    difference = np.where(index > 32768, index - 65536, index)  # -32767 to 32768
    size = np.ceil(np.log2(np.abs(difference) + 1)).astype(np.int64)  # bits of |difference|, 0 to 16
    extra = np.where(size == 16, 0, size)  # 32768 needs no bits: no other difference has 16
    tail = np.where(difference < 0, difference - 1, difference) & ((1 << extra) - 1)
    codes = (_huffman()[size] << extra) | tail
    return codes.astype(np.uint64), (_LENGTHS[size] + extra).astype(np.uint64)


def _huffman() -> NDArray[np.int64]:
    """Canonical Huffman code of each size (T.81, annex C)."""
    codes = np.zeros(len(_LENGTHS), np.int64)
    for n in range(1, len(codes)):
        codes[n] = (codes[n - 1] + 1) << (_LENGTHS[n] - _LENGTHS[n - 1])
    return codes


def _pack(index: NDArray[np.int32]) -> bytes:
    """Differences [n] modulo 2^16 -> their codes one after the other, ones at the end, 0xFF followed by 0."""
    table, sizes = _tables()
    words = np.zeros(len(index) // 2 + 2, np.uint64)  # a code has at most 29 bits
    end = 0
    for block in np.array_split(index, -(-len(index) // _BLOCK)):
        codes, lengths = table[block], sizes[block]
        ends = np.uint64(end) + np.cumsum(lengths)
        starts, end = ends - lengths, int(ends[-1])
        word, room = starts >> np.uint64(6), np.uint64(64) - (starts & np.uint64(63))
        over = np.where(lengths > room, lengths - room, np.uint64(0))  # bits of a code that the next word takes
        here = np.where(over > 0, codes >> over, codes << np.minimum(room - lengths, np.uint64(63)))
        first = np.flatnonzero(np.diff(word, prepend=np.uint64(2**63)))  # where a new word begins
        words[word[first]] |= np.add.reduceat(here, first)  # disjoint bits: adding is joining
        crossing = over > 0
        words[word[crossing] + np.uint64(1)] |= codes[crossing] << (np.uint64(64) - over[crossing])
    data = np.frombuffer(words.astype(">u8").tobytes(), np.uint8)[: -(-end // 8)].copy()
    data[-1] |= (1 << (-end % 8)) - 1
    return data.tobytes().replace(b"\xff", b"\xff\0")
