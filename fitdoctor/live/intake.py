"""From the device to memory and file: what has arrived is joined over processes, digested and filed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from fitdoctor.live.digest import Digest
from fitdoctor.live.history import History
from fitdoctor.live.nonfinite import NonFinite
from fitdoctor.live.ranks import ranks_of
from fitdoctor.live.scaling import LossScale
from fitdoctor.live.sinks import EventFile, Facts, Point, Vector
from fitdoctor.live.transport import Transport
from fitdoctor.live.watched import Watched
from fitdoctor.run import Fact, Note
from fitdoctor.signals import LOSS, PROBE_LOSS, Signal

_VAL_LOSS, _VAL_PROBE = Signal(LOSS, "val"), Signal(PROBE_LOSS, "val")


class Intake:
    """Takes in what was measured.

    Args:
        watched: the parts of the training.
        logdir: the user's log folder, or None.
        probes_val: whether a fixed batch of validation data is evaluated.

    Attributes:
        transport: where the loop puts its rows.
        history: what was measured so far.
        leads: whether this process writes and judges; of several, the first does.
        alone: whether it is the only process of the training.
    """

    def __init__(self, watched: Watched, logdir: Path | None, *, probes_val: bool = False) -> None:
        self.transport = Transport()
        self.history = History()
        self._digest = Digest(self.history, LossScale(watched.scaler).begin())
        self._ranks = ranks_of(_trained(watched))
        self.alone = self._ranks is None
        self.leads = self._ranks is None or self._ranks.leads
        self._sink = EventFile(logdir) if logdir and self.leads else None
        self._alias_val = probes_val  # until a validation loss is logged, the fixed batch stands for it

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where training first met a value that is not finite."""
        return self._digest.nonfinite.found

    def receive(self, *, wait: bool = False) -> bool:
        """Start the copy of what is complete and take in what has arrived.

        Args:
            wait: wait for all that is under way.

        Returns:
            Whether the first value that is not finite was among it.
        """
        self.transport.ship()
        rows = self.transport.arrived(wait=wait)
        if self._ranks is not None:
            self._ranks.send(rows)
            rows = self._ranks.join(rows) if self._ranks.leads else rows
        broke = False
        for row, items in rows:
            items, bad = self._digest.take(row, items)
            if bad:
                broke = True
                self.history.notes.append(Note("other", str(self.first_nonfinite), row.step))
            if self._alias_val:
                items += self._aliases(items)
            if self._sink is not None:
                self._sink.write(items, now=bad)
        return broke

    def _aliases(self, items: Sequence[Point | Vector]) -> list[Point]:
        found = [i for i in items if isinstance(i, Point) and i.signal == _VAL_PROBE]
        points = [i._replace(signal=_VAL_LOSS) for i in found]
        for point in points:
            self.history.add(point)
        return points

    def log(self, points: Sequence[Point]) -> None:
        """Take what the user logs."""
        for point in points:
            self._alias_val = self._alias_val and point.signal != _VAL_LOSS
            self.history.add(point)
        if self._sink is not None:
            self._sink.write(points)

    def tell(self, step: int, facts: Mapping[str, Fact]) -> None:
        """Write facts about the training."""
        if self._sink is not None:
            self._sink.write([Facts(step, time.time(), facts)])

    def close(self) -> OSError | None:
        """Finish the log; returns what kept it from being written in full."""
        if self._sink is None:
            return None
        self._sink.close()
        return self._sink.failure


def _trained(watched: Watched) -> dict[str, Tensor]:
    names = watched.parameter_names()
    params = [p for o in watched.optimizers.values() for g in o.param_groups for p in g["params"]]
    return {names.get(id(p), ""): p for p in params}
