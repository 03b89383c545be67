"""Points as they are decoded, in groups of records, and their sorting by tag."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitdoctor.run import FloatArray, IntArray


class Chunk(NamedTuple):
    """Points of one tag, in file order.

    Attributes:
        tag: the tag.
        steps: int64[n].
        values: float64[n].
        wall_times: float64[n].
    """

    tag: bytes
    steps: IntArray
    values: FloatArray
    wall_times: FloatArray


class Points(NamedTuple):
    """Points of records with as many values each.

    Attributes:
        records: int64[n], which records; not decreasing, and repeated where a record comes several times.
        tags: int32[n, slots], or int32[1, slots] where they are the same in all records.
        steps: int64[n].
        values: float64[n] for each slot.
        wall_times: float64[n].
    """

    records: IntArray
    tags: NDArray[np.int32]
    steps: IntArray
    values: Sequence[FloatArray]
    wall_times: FloatArray


class _Part(NamedTuple):
    """Points of one tag from one group of records."""

    records: IntArray
    steps: IntArray
    values: FloatArray
    wall_times: FloatArray

    def between(self, first: int, last: int) -> _Part:
        """Some of the points, as views."""
        part = slice(first, last)
        return _Part(self.records[part], self.steps[part], self.values[part], self.wall_times[part])


def by_tag(points: Sequence[Points], names: Sequence[bytes]) -> list[Chunk]:
    """The points of each tag in file order; the tags in order of their first appearance."""
    parts: dict[int, list[_Part]] = {}
    for group in points:
        for tag, part in _parts(group):
            parts.setdefault(tag, []).append(part)
    chunks = []
    for tag, several in parts.items():
        records, steps, values, walls = several[0]
        if len(several) > 1:
            records, steps, values, walls = (np.concatenate(arrays) for arrays in zip(*several, strict=True))
            order = np.argsort(records, kind="stable")
            records, steps, values, walls = records[order], steps[order], values[order], walls[order]
        chunks.append((int(records[0]), Chunk(names[tag], steps, values, walls)))
    chunks.sort(key=lambda chunk: chunk[0])
    return [chunk for _, chunk in chunks]


def _parts(group: Points) -> Iterator[tuple[int, _Part]]:
    """The points of each tag of a group."""
    records, tags, steps, values, walls = group
    for slot, here in enumerate(tags.T):
        low, high = int(here.min()), int(here.max())
        if low == high:
            yield low, _Part(records, steps, values[slot], walls)
            continue
        keys = here.astype(np.uint16) if high < 1 << 16 else here  # 16 bits: numpy sorts them by counting
        order = np.argsort(keys, kind="stable")
        ranked = here[order]
        cuts = [0, *(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(order)]
        ordered = _Part(records[order], steps[order], values[slot][order], walls[order])
        for first, last in itertools.pairwise(cuts):
            yield int(ranked[first]), ordered.between(first, last)
