"""The first value that is not finite: where it appeared, and what the record before it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fitdoctor.live.sinks import ABSENT, Point, Vector
from fitdoctor.run import Fact
from fitdoctor.signals import (
    ACTIVATION_ABSMAX,
    ACTIVATION_GRAD_RMS,
    ACTIVATION_MEAN,
    ACTIVATION_RMS,
    GRAD_NORM,
    LOSS,
    UPDATE_RATIO,
    WEIGHT_NORM,
    Quantity,
)

Place = Literal["weights", "forward", "loss", "backward"]


@dataclass(frozen=True, slots=True)
class NonFinite:
    """Where training first met a value that is not finite.

    Attributes:
        step: training step.
        place: "forward" (the output of `name`), "backward" (the gradient with
            respect to `name`), "weights" (before this step
            already, in `name`), or "loss" (all that is known).
        name: layer or parameter, "" where it is not known.
        sure: whether all earlier layers of that step were looked at; False when the step itself was not recorded.
        before: quantity -> value of that layer at the record before.
        before_step: step of that record.
    """

    step: int
    place: Place
    name: str = ""
    sure: bool = True
    before: Mapping[str, float] = field(default_factory=dict)
    before_step: int | None = None

    @property
    def facts(self) -> dict[str, Fact]:
        """The same for `Run.facts`."""
        return {
            "nonfinite_step": self.step,
            "nonfinite_place": self.place,
            "nonfinite_name": self.name,
            "nonfinite_sure": self.sure,
        }

    def __str__(self) -> str:
        what = {
            "weights": f"the weights of {self.name} were not finite before",
            "forward": f"the output of {self.name} is the first that is not finite",
            "loss": "the loss is not finite",
            "backward": f"the gradient with respect to {self.name} is the first that is not finite",
        }[self.place]
        text = f"step {self.step}: {what}"
        if not self.sure:
            text += " among those looked at; the step it began at was not recorded"
        if self.before:
            values = ", ".join(f"{k} {v:.3g}" for k, v in self.before.items())
            text += f" (at step {self.before_step}: {values})"
        return text


class NonFiniteWatch:
    """Looks through finished rows for the first value that is not finite."""

    def __init__(self) -> None:
        self.found: NonFinite | None = None
        self._before: list[Vector] = []

    def look(self, step: int, items: Sequence[Point | Vector], *, recorded: bool) -> bool:
        """Look through one row; True when it holds the first value that is not finite."""
        vectors = [item for item in items if isinstance(item, Vector)]
        bad_loss = any(
            isinstance(item, Point) and item.signal.quantity in (LOSS, GRAD_NORM) and not np.isfinite(item.value)
            for item in items
        )
        bad = bad_loss or any(not np.isfinite(v.values).all() for v in vectors)
        if not bad:
            if recorded:
                self._before = vectors
            return False
        if self.found is not None and (self.found.name or not recorded):
            return False
        first = self.found is None
        if first or recorded:
            since = self.found.step if self.found else step
            found = self._locate(step, vectors)
            # A place found later than the first sign is where it is now, not where it began.
            self.found = NonFinite(since, found.place, found.name, first and recorded, found.before, found.before_step)
        return first

    def _locate(self, step: int, vectors: Sequence[Vector]) -> NonFinite:
        places: tuple[tuple[Place, Quantity, tuple[Quantity, ...]], ...] = (
            ("weights", WEIGHT_NORM, (WEIGHT_NORM, UPDATE_RATIO, GRAD_NORM)),
            ("forward", ACTIVATION_MEAN, (ACTIVATION_RMS, ACTIVATION_ABSMAX)),
            ("backward", ACTIVATION_GRAD_RMS, (ACTIVATION_GRAD_RMS, ACTIVATION_RMS)),  # reaches a layer's output first
            ("backward", GRAD_NORM, (GRAD_NORM, WEIGHT_NORM)),
        )
        for place, quantity, telling in places:
            for vector in vectors:
                if vector.quantity == quantity.name and (name := _first(vector, backwards=place == "backward")):
                    return self._at(step, place, name, [q.name for q in telling])
        return NonFinite(step, "loss")

    def _at(self, step: int, place: Place, name: str, quantities: Sequence[str]) -> NonFinite:
        before: dict[str, float] = {}
        when = None
        for quantity in quantities:
            for vector in self._before:
                if vector.quantity == quantity and name in vector.layers:
                    value = float(vector.values[vector.layers.index(name)])
                    if value != ABSENT:
                        before[quantity], when = value, vector.step
        return NonFinite(step, place, name, True, before, when)


def _first(vector: Vector, *, backwards: bool = False) -> str:
    """Name of the first layer with a value that is not finite, in the order of the pass; "" for none."""
    bad = np.flatnonzero(~np.isfinite(vector.values))
    if not len(bad):
        return ""
    return vector.layers[int(bad[-1] if backwards else bad[0])]
