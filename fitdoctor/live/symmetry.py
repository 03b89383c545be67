"""Do units of a layer carry the same weights?

Looked at on the first record and then ever more rarely: units that are equal stay equal, and units that differ
do not become equal again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdoctor.live.parameters import ParameterRecorder, local
from fitdoctor.live.sinks import ABSENT
from fitdoctor.live.transport import Row, constant
from fitdoctor.run import FloatArray
from fitdoctor.signals import WEIGHT_ROWS_ALIKE

UNITS, INPUTS = 16, 64
"""Rows and columns of a weight that are looked at."""

FEWEST = 4
"""Columns below which rows are easily equal: a unit with one input has one weight."""

TOLERANCE = 1e-4
"""Largest difference, relative to the largest weight of both: rounding leaves less, one step of training more."""

FACTOR = 4
"""Each look comes at this many times the step of the one before."""


class SymmetryRecorder:
    """Measures which share of a weight's rows equals the row before.

    Args:
        recorder: what measures the same parameters.
        units_last: a weight has its units along the last dimension, not the first.
    """

    def __init__(self, recorder: ParameterRecorder, units_last: bool = False) -> None:
        self._recorder = recorder
        self._units_last = units_last
        self._next = 0

    def after_step(self, row: Row) -> None:
        """Measure when it is time; the numbers stay on the device."""
        if row.step < self._next:
            return
        self._next = max(2, FACTOR * row.step)
        params = self._recorder.params
        weights = [self._rows(p) for p in params]
        places = [i for i, w in enumerate(weights) if _has_rows(w)]
        if not places:
            return
        with torch.no_grad():
            samples = [_sample(weights[i].detach()) for i in places]
            device = samples[0].device
            x = torch.stack([s.to(device) for s in samples])
            # Both rows of a pair are rows 2k and 2k + 1 of the sample.
            a, b = x[:, 0::2], x[:, 1::2]
            largest = torch.maximum(a.abs().amax(2), b.abs().amax(2))
            alike = ((a - b).abs().amax(2) <= TOLERANCE * largest).float().mean(1)
        row.add(_Shares(self._recorder.names, np.array(places), self._recorder.label), alike)

    def _rows(self, p: Tensor) -> Tensor:
        """The weight with its units along the first dimension."""
        t = local(p)
        return t.movedim(-1, 0) if self._units_last and t.ndim >= 2 and t.layout == torch.strided else t


def _has_rows(t: Tensor) -> bool:
    return (
        t.ndim >= 2 and t.shape[0] >= 2 and t[0].numel() >= FEWEST and t.layout == torch.strided and not t.is_complex()
    )


def _sample(t: Tensor) -> Tensor:
    """Evenly spaced rows and columns, float32[UNITS, INPUTS]; of a smaller weight some come more than once."""
    flat = t.reshape(t.shape[0], -1)
    rows, columns = flat.shape
    first = [k * (rows - 1) // (UNITS // 2) for k in range(UNITS // 2)]
    chosen = constant([r for k in first for r in (k, k + 1)], t.device)
    across = constant([k * columns // INPUTS for k in range(INPUTS)], t.device)
    return flat.index_select(0, chosen).index_select(1, across).float()


class _Shares:
    def __init__(self, names: tuple[str, ...], places: np.ndarray[Any, Any], label: str) -> None:
        self.names, self.places, self.label = names, places, label

    def __call__(self, row: Row, values: FloatArray) -> list[Any]:
        whole = np.full(len(self.names), ABSENT)
        whole[self.places] = values
        return [row.vector(WEIGHT_ROWS_ALIKE, self.names, whole, self.label)]
