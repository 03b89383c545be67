"""The scale of the loss under a GradScaler, and whether gradients still carry it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fitdoctor.live.sinks import Point, Vector
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import LOSS_SCALE


class LossScale:
    """Looks at a GradScaler, without calling anything of it that waits for the device.

    Args:
        scaler: the GradScaler, or None where there is none.
    """

    def __init__(self, scaler: Any) -> None:
        self._scaler = scaler

    @property
    def used(self) -> bool:
        """Whether there is a scaler."""
        return self._scaler is not None

    def begin(self) -> float | None:
        """The scale as training begins; reads it from the device, once."""
        get = getattr(self._scaler, "get_scale", None)
        return float(get()) if callable(get) and self._scaler.is_enabled() else None

    def inverse(self) -> Tensor | float:
        """What a scaled loss is multiplied with to give the loss itself."""
        scale = getattr(self._scaler, "_scale", None)
        return 1.0 / scale if isinstance(scale, Tensor) and self._scaler.is_enabled() else 1.0

    def note(self, row: Row) -> None:
        """Add the scale as it stands to a row, before all parts that need it."""
        scale = getattr(self._scaler, "_scale", None)
        if isinstance(scale, Tensor):
            if scale.device.type == "cpu":
                row.context["scale"] = float(scale.numpy())
                row.put(LOSS_SCALE, row.context["scale"])
            else:
                row.parts.insert(0, (_Scale(), scale.detach().clone()))

    def still_on(self, optimizer: int) -> bool:
        """Whether the gradients of an optimizer, given by its identity, are still multiplied with the scale."""
        if self._scaler is None or not self._scaler.is_enabled():
            return False
        states = getattr(self._scaler, "_per_optimizer_states", {})
        stage = states[optimizer].get("stage") if optimizer in states else None
        return stage is None or getattr(stage, "name", "") == "READY"


class _Scale:
    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context["scale"] = float(values[0])
        return [row.point(LOSS_SCALE, float(values[0]))]
