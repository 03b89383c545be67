"""A block of an event file, by the cheapest way that its content allows.

Periods that repeat are read as tables (`periodic`); what does not repeat is framed and grouped by length
(`scalars`); what is no plain scalar goes through protobuf (`events`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fitdoctor.readers.tensorboard.crc32c import Bytes
from fitdoctor.readers.tensorboard.events import EventDecoder
from fitdoctor.readers.tensorboard.framing import FRAME, HEADER, Frames, frames
from fitdoctor.readers.tensorboard.periodic import Period, Stretch, find_period, points_of
from fitdoctor.readers.tensorboard.points import Chunk
from fitdoctor.readers.tensorboard.scalars import ScalarDecoder

_PROBES = (384, 6 << 10, 64 << 10)  # bytes in which a period is looked for, in the first only known ones
_COST = 32 << 10  # bytes that could be read without periods while one is looked for
_CREDIT = 4 * _COST  # given to each block in advance; spent, it is read without periods
_PATIENCE = 16  # most blocks that pass before a period is looked for again


_RECENT: dict[bytes, list[Period]] = {}
"""Periods of files read before, by the header of their first record."""
_REMEMBERED = 32  # headers
_ALIKE = 4  # periods with the same header


def _remember(period: Period) -> None:
    head = period.row[:HEADER].tobytes()
    alike = _RECENT.pop(head, [])  # at the end again: the one used last goes last
    if period not in alike:
        alike = [period, *alike[: _ALIKE - 1]]
    _RECENT[head] = alike
    while len(_RECENT) > _REMEMBERED:
        del _RECENT[next(iter(_RECENT))]


def recalled(data: Bytes, start: int, stop: int, events: EventDecoder) -> Period | None:
    """A period of a file read before that stands at `start` as well."""
    for period in _RECENT.get(data[start : start + HEADER].tobytes(), ()):
        if period.fits(data, start, stop) and all(
            events.plugins.get(tag, b"scalars") == b"scalars" for tags in period.tags for tag in tags
        ):
            return period
    return None


@dataclass(slots=True)
class Decoded:
    """What stood in a stretch of a block.

    Attributes:
        chunks: its scalars.
        damaged: (offset, size) of the records whose checksum was wrong.
        end: where the first record that is left begins.
        broken: whether the header there is damaged; otherwise the data just ends.
    """

    chunks: list[Chunk] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    broken: bool = False


class BlockDecoder:
    """Decodes the blocks of one event file in turn and remembers what their records look like."""

    def __init__(self, events: EventDecoder) -> None:
        self._events = events
        self._scalars = ScalarDecoder(events)
        self._period: Period | None = None
        self._failures = 0  # blocks in a row without a period
        self._wait = 0  # blocks to pass before a period is looked for again

    def decode(self, data: Bytes, start: int, stop: int, last: bool) -> Decoded:
        """Decode from a record's start to the last complete record, or to damage.

        Args:
            data: needs `framing.FRONT` bytes before and `framing.BACK` bytes behind the records.
            start: where a record starts.
            stop: end of the data.
            last: whether this is all there is; otherwise an incomplete period is left for the next call.
        """
        out = Decoded(end=start)
        credit = 0 if self._wait else _CREDIT
        self._wait = max(self._wait - 1, 0)
        while True:
            if self._period is not None:
                before = out.end
                self._period = self._repeat(self._period, data, stop, out)
                credit += out.end - before
            if self._period is not None:
                if last and out.end < stop:
                    self._rest(data, frames(data, out.end, stop), out)
                return out
            credit -= _COST
            if credit < 0 or not self._find(data, stop, out):
                self._rest(data, frames(data, out.end, stop), out)
                return out

    def _find(self, data: Bytes, stop: int, out: Decoded) -> bool:
        """Look for a period ahead; decode what comes before it."""
        for size in _PROBES:
            found = frames(data, out.end, min(stop, out.end + size))
            period = self._recall(data, stop, found) if size == _PROBES[0] else find_period(data, found, self._events)
            if period is not None:
                self._period, first = self._with_prelude(data, found, *period)
                self._failures = 0
                begin = int(found.starts[first])
                self._rest(data, Frames(found.starts[:first], found.lengths[:first], begin, False), out)
                return True
            if found.broken or out.end + size >= stop:
                break
        self._failures += 1
        self._wait = min(1 << self._failures, _PATIENCE)
        return False

    def _recall(self, data: Bytes, stop: int, found: Frames) -> tuple[Period, int] | None:
        """A period of an earlier file that begins among these records, and where: runs of one script look alike."""
        for i, start in enumerate(found.starts.tolist()):
            period = recalled(data, start, stop, self._events)
            if period is not None:
                return period, i
        return None

    def _with_prelude(self, data: Bytes, found: Frames, period: Period, first: int) -> tuple[Period, int]:
        """A period found, or the same one step earlier: where the step is 0, its field is missing."""
        before = first - len(period.shapes)
        if before >= 0:
            earlier = recalled(data, int(found.starts[before]), int(found.starts[first]), self._events)
            if earlier is None:
                earlier = Period.at(data, found.starts[before:first], found.lengths[before:first], self._events)
            if earlier is not None and earlier.tags == period.tags:
                _remember(period)
                return earlier, before
        return period, first

    def _repeat(self, period: Period, data: Bytes, stop: int, out: Decoded) -> Period | None:
        """Decode periods as long as they repeat; the period that may go on in the next block, or None."""
        stretches: list[Stretch] = []
        at = out.end
        going: Period | None = period
        while going is not None:
            period, width = going, len(going.row)
            count = period.repeats(data, at, stop)
            if count:
                stretches.append(Stretch(period, data[at : at + count * width].reshape(count, width)))
                at += count * width
            if stop - at < width:
                break
            going = self._lengthened(period, data, stop, at)
        chunks = points_of(stretches) if stretches else []
        if chunks is None:
            return None
        for stretch in stretches:
            _remember(stretch.period)
        out.chunks += chunks
        out.end = at
        return going

    def _lengthened(self, period: Period, data: Bytes, stop: int, at: int) -> Period | None:
        """The period with other sizes: as the step passes a power of 128, its varint takes one more byte."""
        other = recalled(data, at, stop, self._events)
        if other is None:
            size = len(period.shapes)
            found = frames(data, at, min(stop, at + len(period.row) + 8 * size))
            if len(found.starts) < size:
                return None
            other = Period.at(data, found.starts[:size], found.lengths[:size], self._events)
        return other if other is not None and other.tags == period.tags else None

    def _rest(self, data: Bytes, found: Frames, out: Decoded) -> None:
        """Decode records of any kind."""
        chunks, bad = self._scalars.decode(data, found)
        out.chunks += chunks
        out.damaged += [(int(found.starts[i]), FRAME + int(found.lengths[i])) for i in bad.tolist()]
        out.end, out.broken = found.end, found.broken
