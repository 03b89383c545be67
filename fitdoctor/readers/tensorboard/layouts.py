"""Events of one shape, read as the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.tensorboard.crc32c import Bytes
from fitdoctor.readers.tensorboard.framing import HEADER
from fitdoctor.readers.tensorboard.shapes import Shape, column
from fitdoctor.run import IntArray

_HASH_BITS = 10  # at least; twice the bits of the number of keys where that is more
MULTIPLIERS = np.random.default_rng(0).integers(0, 1 << 63, 4096, np.uint64) | np.uint64(1)
"""Odd numbers without a pattern, for hashes."""
_ATTEMPTS = 16  # to find multipliers under which no two known keys share a hash

_Keys = NDArray[np.uint64]


@dataclass(slots=True)
class Layout:
    """One shape of events, and which tags stand in the events of that shape.

    The bytes of an event without its numbers are its key: they hold its tags, types and structure. An event
    is read in bulk only if its key is known, that is, if an event with the same key was taken apart.

    Attributes:
        shape: the shape.
        mask: uint64[words], the bits of a row that belong to the key.
        keys: uint64[k, words], the known ones.
        tags: int32[k, slots], the tags of each; -1 in a key that protobuf reads in another way.
    """

    shape: Shape
    mask: _Keys
    keys: _Keys
    tags: NDArray[np.int32]
    _picked: list[int]  # the words in which the keys differ
    _bits: int  # of a hash
    _salt: _Keys
    _table: IntArray  # hash of the words picked -> index of the key, or -1

    @classmethod
    def of(cls, shape: Shape, width: int) -> Layout:
        """A layout without keys, for rows of so many bytes."""
        keep = np.zeros(width, np.uint8)
        keep[HEADER : shape.end] = 0xFF
        if shape.wall:
            keep[shape.wall : shape.wall + 8] = 0
        keep[shape.step : shape.step + shape.step_size] = 0x80  # the top bits say how long the varint is
        for slot in shape.slots:
            keep[slot.at : slot.at + np.dtype(slot.kind).itemsize] = 0
        words = width // 8
        none, salt = np.zeros((0, words), np.uint64), np.zeros(0, np.uint64)
        tags, table = np.zeros((0, len(shape.slots)), np.int32), np.zeros(0, np.int64)
        return cls(shape, keep.view(np.uint64), none, tags, [], 0, salt, table)

    def keys_of(self, rows: Bytes) -> _Keys:
        """The key of every row, uint64[n, words], if the row is of this shape."""
        return rows.view(np.uint64) & self.mask

    def lookup(self, keys: _Keys) -> IntArray:
        """Which known key each one is, or -1, int64[n]."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        if len(self.keys) == 1:
            index = np.zeros(len(keys), np.int64)
            same = keys == self.keys
        else:
            index = self._table.take(self._hashes(keys))
            same = self.keys.take(index, axis=0, mode="wrap") == keys
        if not same.all():
            index[~same.all(axis=1)] = -1
        return index

    def fitting(self, rows: Bytes) -> NDArray[np.bool_]:
        """Which rows may be of this shape: the bytes before the numbers and the size of the step fit, bool[n]."""
        fits = np.ones(len(rows), np.bool_)
        shape = self.shape
        value = shape.slots[0]
        starts = ((shape.wall, 0x09), (shape.step, 0x10), (shape.summary + 1, 0x2A), (value.at, value.lead))
        for place, byte in starts:
            if place:
                fits &= rows[:, place - 1] == byte
        if size := shape.step_size:  # every byte of a varint but the last has its top bit set
            ends = sum(0x80 << 8 * k for k in range(size))
            raw = column(rows, shape.step, "<u8") & np.uint64(ends)
            fits &= raw == np.uint64(ends ^ (0x80 << 8 * (size - 1)))
        return fits

    def learn(self, keys: _Keys, tags: Sequence[tuple[int, ...]]) -> None:
        """Make keys known."""
        self.keys = np.concatenate((self.keys, keys))
        self.tags = np.concatenate((self.tags, np.array(tags, np.int32)))
        self._bits = max(_HASH_BITS, 2 * len(self.keys).bit_length())
        self._picked = np.flatnonzero((self.keys != self.keys[0]).any(axis=0)).tolist() or [0]
        for attempt in range(_ATTEMPTS):
            self._salt = MULTIPLIERS[np.add(self._picked, attempt) % len(MULTIPLIERS)]
            hashes = self._hashes(self.keys)
            if len(np.unique(hashes)) == len(hashes):
                break
        self._table = np.full(1 << self._bits, -1, np.int64)
        self._table[hashes] = np.arange(len(hashes))  # of two keys with one hash, one stays unknown

    def _hashes(self, keys: _Keys) -> IntArray:
        """Multiplicative hash of the words in which the known keys differ, int64[n]."""
        total: _Keys = keys[:, self._picked[0]] * self._salt[0]
        for word, salt in zip(self._picked[1:], self._salt[1:], strict=True):
            total += keys[:, word] * salt
        index: IntArray = (total >> np.uint64(64 - self._bits)).view(np.int64)
        return index
