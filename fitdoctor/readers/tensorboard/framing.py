"""TFRecord framing: where the records of an event file start, and which of them are intact.

A record is ``length uint64 | masked crc32c of the length | body | masked crc32c of the body``, all
little-endian, without any marker between records: one starts where the one before it ends.
"""

from __future__ import annotations

from collections.abc import Container
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.tensorboard.crc32c import (
    MASK_DELTA,
    Bytes,
    Words,
    crc32c,
    crc_of_zeros,
    linear_rows,
    masked,
    subset_sums,
    unmasked,
)
from fitdoctor.run import IntArray

HEADER = 12  # length and its checksum
FRAME = 16  # header, and the checksum of the body
FRONT = 32 << 10
"""Bytes that must lie in memory before the first record: windows that end at a record's end may reach there."""

BACK = 32
"""Bytes that may be read, but do not count, behind the last record."""

_LONGEST = 1 << 31  # protobuf's limit; a longer length is damage even if its checksum fits
_WALKED = 8 << 10  # bytes below which records are followed one by one
_LANES = 0.6  # chains followed at once, per square root of the bytes: balances finding starts and following
_REACH = 128  # bytes searched for the start of each chain: longer than a usual scalar's record
_USUAL = 4 << 10  # lengths below this have their checksums in a table
_LOOKED_AFTER = 8  # steps between looks whether all chains have ended
_MOST_STEPS = 512  # records of one chain, after which what is left is followed one by one
_NARROW = 256  # bytes of a row up to which it is cheaper to blank out all rows at once
_FEW_SUMS = 16  # rows up to which summing up saves nothing
_SINGLY = 24  # records of usual size up to which they are checked one by one
_SCAN = 1 << 16  # places looked at together when searching for a record
_BODY_CHECKED = 1 << 12  # longest body that such a search checks


class Frames(NamedTuple):
    """The complete records in a piece of a file.

    Attributes:
        starts: int64[n] offset of each record.
        lengths: int64[n] bytes of each body.
        end: where the next record starts, or should.
        broken: whether the header at `end` is damaged; otherwise the data just ends.
    """

    starts: IntArray
    lengths: IntArray
    end: int
    broken: bool


def frames(data: Bytes, start: int, stop: int) -> Frames:
    """The complete records of ``data[start:stop]``, the first of which starts at `start`."""
    lengths = windows(data, "<u4")  # a header whose upper half is not zero fails its check below
    if stop - start < _WALKED:
        starts, end, broken = _walk(data, start, stop)
        found = np.array(starts, np.int64)
        return Frames(found, lengths[found].astype(np.int64), end, broken)
    plain = _by_zeros(data, start, stop)
    if plain is not None:
        return plain
    found = _in_lockstep(data, start, stop)
    headers = windows(data, f"V{HEADER}")[found].view(np.uint8).reshape(-1, HEADER)
    sizes = np.ndarray(len(found), "<u8", headers, 0, (HEADER,)).astype(np.uint64)
    fits = _header_fits(sizes, np.ndarray(len(found), "<u4", headers, 8, (HEADER,)))
    fits &= sizes < _LONGEST
    broken = not fits.all()
    if broken:
        first = int(np.argmin(fits))
        end = int(found[first])
        found, sizes = found[:first], sizes[:first]
    bodies = sizes.astype(np.int64)
    ends = found + FRAME + bodies
    whole = int(np.searchsorted(ends, stop, side="right"))  # only the last one may reach beyond the data
    if whole < len(found):
        end, broken = int(found[whole]), False
    elif not broken:
        end = int(ends[-1]) if len(ends) else start
    return Frames(found[:whole], bodies[:whole], end, broken)


def _by_zeros(data: Bytes, start: int, stop: int) -> Frames | None:
    """`frames` where all records are short and intact; None where they are not.

    A length below 256 has seven bytes of zeros, which always include a whole aligned word; the byte before the zeros
    is the length. Where every length found leads to the next one found, these are all records.
    """
    base = start - start % 4
    words = data[base : stop - stop % 4].view("<u4")
    zero = np.flatnonzero(words == 0)
    zero = zero[np.diff(zero, prepend=-1) > 1]  # only the first word of each run, and not the first of all
    before = words.take(zero - 1)
    last = (before > 0xFF).view(np.int8) + (before > 0xFFFF).view(np.int8) + (before > 0xFFFFFF).view(np.int8)
    at = 4 * zero + (base - 4) + last
    at = at[(at >= start) & (at <= stop - HEADER)]
    sizes = data.take(at).astype(np.int64)
    fits = _usual_checks().take(sizes) == windows(data, "<u4")[at + 8]
    if not fits.all():
        at, sizes = at[fits], sizes[fits]
    ends = at + FRAME + sizes
    if not len(at) or at[0] != start or ends[-1] <= stop - HEADER or not np.array_equal(at[1:], ends[:-1]):
        return None
    n = len(at) - int(ends[-1] > stop)
    return Frames(at[:n], sizes[:n], int(at[n]) if n < len(at) else int(ends[-1]), False)


def _in_lockstep(data: Bytes, start: int, stop: int) -> IntArray:
    """Where records start if all their lengths are right, int64[n]; the last may be incomplete.

    Following length after length is sequential. But a place where a record starts can be told by its
    header's checksum, so many chains are followed at the same time, from places all over the data,
    each to the start of the next. Where a chain does not end at the start of the next (which then was
    an accident inside a body), it is followed on.
    """
    heads = _heads(data, start, stop)
    limit = stop - HEADER
    lengths = windows(data, "<u4")
    stops = np.append(heads[1:], limit + 1)
    steps = [heads]
    for _ in range(_MOST_STEPS):
        at = np.minimum(steps[-1], limit)
        steps.append(steps[-1] + lengths[at] + FRAME)
        if len(steps) % _LOOKED_AFTER == 0 and (steps[-1] >= stops).all():
            break
    # A chain that has passed its stop runs on in vain; what counts is where it first is there.
    chains = np.array(steps).T
    valid = chains < stops[:, None]
    valid[:, -1] = False  # where a chain is followed on, if it is that long
    ends = chains[np.arange(len(heads)), np.minimum(valid.sum(axis=1), len(steps) - 1)]
    if np.array_equal(ends[:-1], heads[1:]) and ends[-1] > limit:
        return chains[valid]
    return _joined(data, chains, valid, heads, ends, limit)


def _joined(
    data: Bytes, chains: IntArray, valid: NDArray[np.bool_], heads: IntArray, ends: IntArray, limit: int
) -> IntArray:
    """The chains that follow from the first one, joined by following on where they do not meet."""
    index = {int(head): i for i, head in enumerate(heads)}
    parts: list[IntArray] = []
    at = int(heads[0])
    while at <= limit:
        here = index.get(at)
        if here is not None:
            parts.append(chains[here][valid[here]])
            at = int(ends[here])
            continue
        starts, end, broken = _walk(data, at, limit + HEADER, index)
        parts.append(np.array(starts + [end] * (end not in index), np.int64))
        at = limit + 1 if broken or end not in index else end
    return np.concatenate(parts)


def _heads(data: Bytes, start: int, stop: int) -> IntArray:
    """`start`, and places spread over the data behind it where the header of a record fits, int64[k]."""
    span = stop - start
    lanes = int(_LANES * span**0.5)
    spacing = span // lanes
    width = min(spacing, _REACH)
    spacing -= spacing % 4
    first = start + spacing + -start % 4  # words of four bytes are compared several times faster at multiples of four
    count = (stop - HEADER - width - first) // spacing + 1
    if count <= 0:
        return np.array([start])
    # All but one or two bytes of a usual length are zero; so its second half lies in, or behind, a word of zeros.
    zero = np.ndarray((count, width // 4), "<u4", data, first, (spacing, 4)) == 0
    found = zero.argmax(axis=1)
    lanes_found = np.flatnonzero(zero[np.arange(count), found])
    word = first + lanes_found * spacing + 4 * found[lanes_found]
    at = word[:, None] - np.arange(1, 5)
    fits = _header_fits(windows(data, "<u8")[at].reshape(-1), windows(data, "<u4")[at + 8].reshape(-1)).reshape(-1, 4)
    lane, which = np.nonzero(fits)
    return np.concatenate(([start], at[lane, which]))


def _walk(data: Bytes, start: int, stop: int, until: Container[int] = ()) -> tuple[list[int], int, bool]:
    """Follow the records one by one, up to a place in `until`: starts, where they end, and if the next is broken."""
    starts: list[int] = []
    view = data.data
    at = start
    while at + HEADER <= stop and at not in until:
        length = length_of(bytes(view[at : at + HEADER]))
        if length is None:
            return starts, at, True
        if at + FRAME + length > stop:
            break
        starts.append(at)
        at += FRAME + length
    return starts, at, False


def length_of(head: bytes) -> int | None:
    """The length that the header of a record tells; None where it is damaged."""
    checks = _header_checks()
    check = checks.get(head[:8])
    if check is None:
        check = checks[head[:8]] = masked(crc32c(head[:8])).to_bytes(4, "little")
        if len(checks) > 1 << 12:
            checks.clear()
    length = int.from_bytes(head[:8], "little")
    return length if check == head[8:] and length <= _LONGEST else None


@cache
def _header_checks() -> dict[bytes, bytes]:
    """Checksums of lengths seen so far."""
    return {}


def pending(data: Bytes, start: int, stop: int) -> int | None:
    """Bytes of the whole record whose intact header stands at `start`; None when the header is not all there."""
    if stop - start < HEADER:
        return None
    return FRAME + int.from_bytes(data[start : start + 8].tobytes(), "little")


def windows(data: Bytes, kind: str) -> NDArray[Any]:
    """A view of `data` in which element i is the value of type `kind` that starts at byte i."""
    dtype = np.dtype(kind)
    return np.ndarray((max(len(data) - dtype.itemsize + 1, 0),), dtype, data, 0, (1,))


def resync(data: Bytes, start: int, stop: int) -> int | None:
    """The first place at or after `start` where an intact record starts, or None.

    A checksum of 32 bits fits by chance once in four billion places, so where a record of usual
    size is all at hand, its body has to fit as well.
    """
    lengths = windows(data, "<u8")
    checks = windows(data, "<u4")
    for low in range(start, stop - HEADER + 1, _SCAN):
        # The upper bytes of a true length are zero; this leaves few candidates to check.
        length = lengths[low : min(low + _SCAN, stop - HEADER + 1)]
        at = np.flatnonzero(length < _LONGEST) + low
        for here in at[_header_fits(lengths[at], checks[at + 8])].tolist():
            size = int(lengths[here])
            end = here + HEADER + size
            if end + 4 > stop or size > _BODY_CHECKED:
                return int(here)
            if masked(crc32c(data[here + HEADER : end].tobytes())) == int(checks[end]):
                return int(here)
    return None


def _header_fits(lengths: NDArray[np.uint64], stored: Words) -> NDArray[np.bool_]:
    """Which lengths fit their stored checksum, bool[n]."""
    usual = lengths < _USUAL
    if usual.all():
        return np.asarray(_usual_checks().take(lengths.view(np.int64)) == stored)
    fits = np.zeros(len(lengths), np.bool_)
    fits[usual] = _header_fits(lengths[usual], stored[usual])
    rest = ~usual
    fits[rest] = _header_linear(lengths[rest]) == unmasked(stored[rest].astype(np.uint32))
    return fits


def _header_linear(lengths: NDArray[np.uint64]) -> Words:
    """The unmasked checksums of lengths, uint32[n]."""
    linear = linear_rows(lengths.astype("<u8").view(np.uint8).reshape(-1, 8))
    return np.asarray(linear ^ np.uint32(crc_of_zeros(8)))


@cache
def _usual_checks() -> Words:
    """The stored checksum of every usual length, uint32[_USUAL]."""
    crc = _header_linear(np.arange(_USUAL, dtype=np.uint64))
    return np.asarray(((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(MASK_DELTA), np.uint32)


def intact(data: Bytes, starts: IntArray, lengths: IntArray) -> NDArray[np.bool_]:
    """Which records have a body that fits its checksum, bool[n].

    Args:
        data: must have `FRONT` bytes before the first record.
        starts: int64[n].
        lengths: int64[n].
    """
    if len(starts) <= _SINGLY and int(lengths.sum()) <= _SINGLY * 64:
        at = zip(starts.tolist(), lengths.tolist(), strict=True)
        return np.array([is_intact(data[s : s + FRAME + n].tobytes()) for s, n in at], np.bool_)
    good = np.ones(len(starts), np.bool_)
    ends = starts + HEADER + lengths
    stored = windows(data, "<u4")[ends].astype(np.uint32)
    width = 64
    done = np.zeros(len(starts), np.bool_)
    while not done.all() and width <= FRONT:
        here = np.flatnonzero(~done & (lengths <= width) & (lengths >= 4))
        if len(here):
            good[here] = _fitting(data, ends[here], lengths[here], stored[here], width)
            done[here] = True
        width *= 2
    for i in np.flatnonzero(~done).tolist():
        body = data[starts[i] + HEADER : ends[i]]
        good[i] = masked(crc32c(body.tobytes())) == int(stored[i])
    return good


def is_intact(record: bytes) -> bool:
    """Whether the body of one record fits its checksum."""
    return masked(crc32c(record[HEADER:-4])) == int.from_bytes(record[-4:], "little")


def _fitting(data: Bytes, ends: IntArray, lengths: IntArray, stored: Words, width: int) -> NDArray[np.bool_]:
    """`intact` for bodies of 4 to `width` bytes."""
    # Aligned at their ends and filled up with zeros in front, bodies of any length are rows of one table:
    # leading zeros do not change the linear part, once the first four bytes are inverted
    # (which is what starting from all ones means).
    rows = windows(data, f"V{width + 4}")[ends - width].view(np.uint8).reshape(-1, width + 4)
    lead = width - lengths
    if width <= _NARROW:
        rows[np.arange(width + 4) < lead[:, None]] = 0
    else:
        for row, size in zip(rows, lead.tolist(), strict=True):
            row[:size] = 0
    for k in range(4):
        rows[np.arange(len(rows)), lead + k] ^= 0xFF
    return rows_agree(rows, 0, width, ~unmasked(stored))


def rows_agree(rows: Bytes, at: int, length: int, linear: Words) -> NDArray[np.bool_]:
    """Which rows have the linear part that they should have, bool[n].

    Instead of every row, XOR sums over subsets of the rows are compared (`subset_sums`). Rows that do not
    fit show, unless their errors cancel in every subset. The errors of up to three rows never do: one of them is alone
    at its place or alone in its block. For four to cancel they must be the corners of a rectangle of places and
    blocks with the very same error. Random damage passes if at least two sums of 32 bits vanish by chance.
    Only when a sum differs is every row checked by itself.

    Args:
        rows: uint8[n, w], C-contiguous; the four bytes behind the message are overwritten.
        at: first byte of the message in a row.
        length: bytes of the message.
        linear: uint32[n], what `linear_rows` should give for the messages.
    """
    end = at + length
    np.ndarray(len(rows), "<u4", rows, end, (rows.shape[1],))[:] = linear  # to be summed up along with the messages
    if len(rows) > _FEW_SUMS:
        sums = subset_sums(rows)
        wanted = np.ndarray(len(sums), "<u4", sums, end, (rows.shape[1],))
        if np.array_equal(linear_rows(sums[:, at:end]), wanted):
            return np.ones(len(rows), np.bool_)
    return np.asarray(linear_rows(rows[:, at:end]) == linear)
