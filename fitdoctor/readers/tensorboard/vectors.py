"""Per-layer vectors in the logs of `fitdoctor.attach`: one tensor per quantity and step.

Their metadata is JSON, ``{"v": 1, "quantity": "grad_norm", "layers": ["fc1.weight", ...]}``, and comes
again whenever the layers change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

from fitdoctor.readers.raw import RawSeries
from fitdoctor.run import FloatArray

PLUGIN = b"fitdoctor"
"""Plugin under which the monitor files its vectors."""

PREFIX = "fitdoctor/"
"""Begins the tags of the monitor's log here, so that they are taken at their word (`tags.interpret`)."""

ABSENT = float(np.finfo(np.float32).min)
"""Stands in a vector for a layer that was not measured at that step."""


@dataclass(slots=True)
class Vectors:
    """The vectors of one tag.

    Attributes:
        quantity: name of the quantity.
        layers: names of the layers, as last announced.
        points: layer -> steps, wall times and values so far.
    """

    quantity: str
    layers: list[str]
    points: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    @classmethod
    def announced(cls, content: bytes) -> Vectors | None:
        """The vectors that metadata announce, or None where they cannot be understood."""
        try:
            told = json.loads(content)
            quantity, layers = told["quantity"], told["layers"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(quantity, str) or not isinstance(layers, list) or not all(isinstance(x, str) for x in layers):
            return None
        return cls(quantity, layers)

    def add(self, step: int, wall_time: float, values: FloatArray) -> None:
        """Take the vector of one step; one of another length is left out."""
        if values.size != len(self.layers):
            return
        for layer, value in zip(self.layers, values.reshape(-1).tolist(), strict=True):
            if value != ABSENT:
                self.points.setdefault(layer, []).append((step, wall_time, value))

    def series(self) -> list[RawSeries]:
        """One series per layer; what was collected is forgotten here."""
        out = []
        for layer, points in self.points.items():
            steps, times, values = zip(*points, strict=True)
            tag = f"{PREFIX}{self.quantity}/{layer}"
            out.append(RawSeries(tag, np.array(values), np.array(steps, np.int64), wall_time=np.array(times)))
        self.points = {}
        return out
