"""CRC-32C (Castagnoli), vectorised: of one message, of many rows, and of many rows at once.

A CRC is linear over GF(2) apart from a constant: ``crc(m) = L(m) ^ crc(zeros of the same length)``,
with ``L(a ^ b) = L(a) ^ L(b)``. All of this module rests on that:

- `linear_rows` takes L of equally long rows column by column, one table lookup per byte.
- `crc32c` cuts a long message into rows and joins their values by powers of x.
- `subset_sums` adds rows up, so that the checksums of thousands can be compared with a hundred times fewer
  lookups; `framing.rows_agree` says what that proves.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
_Word = TypeVar("_Word", np.uint8, np.uint32)

_POLYNOMIAL = 0x82F63B78  # bit-reversed 0x1EDC6F41
MASK_DELTA = 0xA282EAD8  # of the TFRecord format, which stores checksums "masked"
_STRIP = 256  # columns per lookup table: 256 KiB, so that it stays in the second-level cache
_SPARSE = (5685, 1362, 426)  # x^5685 = x^1362 + x^426 + 1, found by search; no such multiple has a degree below 5244
_FEW_ROWS = 8  # that are not worth summing up
_MANY = 512  # rows from which a lookup per column beats one lookup for a whole strip


@cache
def _byte_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


@cache
def _strip_tables() -> NDArray[np.uint32]:
    """L of one byte followed by d zero bytes, uint32[_STRIP, 256] indexed by d and byte."""
    first = np.array(_byte_table(), np.uint32)
    tables = np.empty((_STRIP, 256), np.uint32)
    tables[0] = first
    for d in range(1, _STRIP):
        tables[d] = (tables[d - 1] >> np.uint32(8)) ^ first[tables[d - 1] & np.uint32(0xFF)]
    return tables


def _shifted(values: Words, level: int) -> Words:
    """L of the same messages with ``_STRIP << level`` zero bytes appended, uint32[n]."""
    tables = _shift_tables(level)
    return np.asarray(
        tables[0][values & 0xFF]
        ^ tables[1][(values >> 8) & 0xFF]
        ^ tables[2][(values >> 16) & 0xFF]
        ^ tables[3][values >> 24],
        np.uint32,
    )


@cache
def _shift_tables(level: int) -> NDArray[np.uint32]:
    basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if level == 0:
        rows = np.zeros((32, _STRIP), np.uint8)
        rows[:, :4] = basis.astype("<u4").view(np.uint8).reshape(32, 4)
        images = linear_rows(rows)
    else:
        images = _shifted(_shifted(basis, level - 1), level - 1)
    tables = np.zeros((4, 256), np.uint32)
    for byte in range(4):
        for bit in range(8):
            has = (np.arange(256) >> bit & 1).astype(bool)
            tables[byte, has] ^= images[8 * byte + bit]
    return tables


def linear_rows(rows: Bytes) -> Words:
    """The linear part L of each row.

    Args:
        rows: uint8[n, w].

    Returns:
        uint32[n].
    """
    n, width = rows.shape
    state = np.zeros(n, np.uint32)
    tables = _strip_tables()
    start = 0
    for stop in range((width - 1) % _STRIP + 1 if width else 0, width + 1, _STRIP):
        strip = rows[:, start:stop]
        if start:  # going on is the same as adding the state to the next four bytes
            strip = strip.copy()
            strip[:, :4] ^= state.astype("<u4").view(np.uint8).reshape(n, 4)
        w = stop - start
        if n >= _MANY:
            state = np.zeros(n, np.uint32)
            for j in range(w):
                state ^= tables[w - 1 - j].take(strip[:, j])
        else:
            index = strip + (np.arange(w - 1, -1, -1, dtype=np.int32) << 8)
            state = np.bitwise_xor.reduce(tables.reshape(-1).take(index), axis=1)
        start = stop
    return state


@cache
def crc_of_zeros(length: int) -> int:
    """The checksum of `length` zero bytes: the constant between crc and L."""
    message = np.zeros(max(length, 4), np.uint8)
    message[:4] = 0xFF
    # Starting from all ones is the same as inverting the first four bytes of message + checksum.
    if length >= 4:
        return ~_linear(message) & 0xFFFFFFFF
    table, value = _byte_table(), 0xFFFFFFFF
    for _ in range(length):
        value = (value >> 8) ^ table[value & 0xFF]
    return ~value & 0xFFFFFFFF


def _linear(message: Bytes) -> int:
    """L of one message."""
    message = _shortened(message)
    rest = len(message) % _STRIP
    values = linear_rows(message[rest:].reshape(-1, _STRIP))
    if rest:
        values = np.concatenate((linear_rows(message[None, :rest]), values))
    level = 0
    while len(values) > 1:
        if len(values) % 2:
            values = np.concatenate((np.zeros(1, np.uint32), values))
        values = _shifted(values[0::2], level) ^ values[1::2]
        level += 1
    return int(values[0]) if len(values) else 0


def _shortened(message: Bytes) -> Bytes:
    """A message of at most a few kilobytes with the same L.

    Where x^a = x^b + x^c + 1 modulo the polynomial, the bits at the front may be added a - b, a - c and a places
    further on instead. The same holds for x^8, x^16, ... in place of x, since squaring is linear over GF(2); so
    it holds for whole words, and a - b words may be moved at once.
    """
    a, b, c = _SPARSE
    for size in (8, 4, 2, 1):
        if len(message) < size * (a + b):
            continue
        words = np.concatenate((np.zeros(-len(message) % size, np.uint8), message)).view(f"<u{size}")
        first = 0
        while (count := min(len(words) - first - a, a - b)) > 0:
            moved = words[first : first + count]
            for places in (a - b, a - c, a):
                words[first + places : first + places + count] ^= moved
            first += count
        message = words[first:].view(np.uint8)
    return message


def crc32c(data: bytes | bytearray | memoryview | Bytes) -> int:
    """CRC-32C of a message.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    if len(data) <= 64:
        table, value = _byte_table(), 0xFFFFFFFF
        for byte in bytes(data):
            value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
        return ~value & 0xFFFFFFFF
    message = np.frombuffer(data, np.uint8)
    return _linear(message) ^ crc_of_zeros(len(message))


def masked(crc: int) -> int:
    """A checksum as a TFRecord stores it: rotated and shifted, so that checksums of checksums stay good."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def unmasked(stored: Words) -> Words:
    """The checksums behind stored ones, uint32[n]."""
    rotated = stored - np.uint32(MASK_DELTA)
    return np.asarray((rotated >> np.uint32(17)) | (rotated << np.uint32(15)), np.uint32)


def subset_sums(rows: NDArray[_Word]) -> NDArray[_Word]:
    """XOR sums of a few subsets of the rows, which together cover them all.

    The rows are cut into about sqrt(n) blocks of about sqrt(n). One part of the answer are the sums over all blocks,
    one for each place in a block; the other the sums of the blocks. Rows that fill no block stay as they are. So of any
    two rows, some subset holds one without the other: they differ in place, or in block.

    Args:
        rows: unsigned integers [n] or [n, w], C-contiguous, n > 0.

    Returns:
        [k] or [k, w] of the same type, k about 2 sqrt(n).
    """
    if len(rows) <= _FEW_ROWS:
        return rows
    places = 1 << (len(rows).bit_length() // 2)
    count = len(rows) // places
    blocks = rows[: count * places].reshape(count, places, *rows.shape[1:])
    by_place = np.bitwise_xor.reduce(blocks, axis=0)
    while places > 1:
        places //= 2
        blocks = blocks[:, :places] ^ blocks[:, places:]
    return np.concatenate((by_place, blocks[:, 0], rows[count * len(by_place) :]))
