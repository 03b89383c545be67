"""From rows that have arrived on the host to measurements that need more than one number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from fitdoctor.live.history import History
from fitdoctor.live.nonfinite import NonFiniteWatch
from fitdoctor.live.sinks import Point, Vector
from fitdoctor.live.transport import Row
from fitdoctor.signals import GRAD_NORM, LOSS_SCALE, NOISE_SCALE, SKIPPED_STEPS

_NOISE_WINDOW = 100  # estimates averaged; single ones are negative a quarter of the time
_NOISE_LEAST = 20


class Digest:
    """Adds what follows from several rows, and files everything.

    Args:
        history: receives the measurements.
        scale: loss scale as training begins, None where there is none.
    """

    def __init__(self, history: History, scale: float | None = None) -> None:
        self.history = history
        self.nonfinite = NonFiniteWatch()
        self.skipped = 0
        self._scale = scale
        self._flagged = False
        self._signals: deque[tuple[float, float]] = deque(maxlen=_NOISE_WINDOW)

    def take(self, row: Row, items: Sequence[Point | Vector]) -> tuple[list[Point | Vector], bool]:
        """File one row.

        Returns:
            Its measurements, derived ones included, and whether it holds the first value that is not finite.
        """
        # A fused optimizer that skipped its step was called with the overflow's gradients: they mean nothing.
        out = [i for i in items if not (row.context.get("skipped") and isinstance(i, Vector))]
        out += self._skips(row, items)
        out += self._noise(row, items)
        bad = self.nonfinite.look(row.step, out, recorded=any(isinstance(i, Vector) for i in out))
        for item in out:
            self.history.add(item)
        return out, bad

    def _skips(self, row: Row, items: Sequence[Point | Vector]) -> list[Point]:
        """Steps skipped for an overflow: the scale falls with each, or a fused optimizer said so."""
        scale = next((i.value for i in items if isinstance(i, Point) and i.signal.quantity == LOSS_SCALE), None)
        if scale is None:
            return []
        if row.context.get("skipped"):
            self.skipped += 1
            self._flagged = True
        elif not self._flagged and self._scale is not None and 0 < scale < self._scale:
            self.skipped += max(1, round(math.log2(self._scale / scale)))
        self._scale = scale
        return [row.point(SKIPPED_STEPS, float(self.skipped))]

    def _noise(self, row: Row, items: Sequence[Point | Vector]) -> list[Point]:
        """The noise scale from the gradient of the first accumulated batch and of all of them.

        Unbiased estimates of the squared gradient and of the noise are averaged apart and divided last
        (McCandlish et al. 2018, appendix A).
        """
        c = row.context
        total = next((i.value for i in items if isinstance(i, Point) and i.signal.quantity == GRAD_NORM), None)
        if total is None or not {"first_norm", "weight", "forwards", "samples"} <= c.keys() or not c["weight"]:
            return []
        big, small = c["samples"], c["samples"] / c["forwards"]
        if big <= small or not c.get("scale", 1.0):
            return []
        few = (c["first_norm"] / c["weight"]) ** 2
        many = (total / (c["weight"] / c.get("scale", 1.0) * c["forwards"])) ** 2
        if not (math.isfinite(few) and math.isfinite(many)):
            return []
        self._signals.append(
            ((big * many - small * few) / (big - small), (few - many) / (1 / small - 1 / big)),
        )
        if len(self._signals) < _NOISE_LEAST:
            return []
        signal = sum(s for s, _ in self._signals)
        noise = sum(n for _, n in self._signals)
        return [row.point(NOISE_SCALE, noise / signal)] if signal > 0 and noise > 0 else []
