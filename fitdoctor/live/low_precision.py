"""Weights of low precision that swallow their updates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fitdoctor.live.parameters import SAMPLE, ParameterRecorder, local
from fitdoctor.live.transport import Row, scalar
from fitdoctor.signals import UPDATE_LOST_FRACTION

_LOW = (torch.float16, torch.bfloat16)


class LowPrecisionRecorder:
    """Compares weights of float16 or bfloat16 with what they were at the first record.

    A change below half a unit in the last place is rounded away. One step may round, but over many steps an entry
    with a gradient that never changes has been training for nothing. Stochastic rounding and Kahan summation move it
    sooner or later.

    Args:
        recorder: knows the optimizer's parameters.
    """

    def __init__(self, recorder: ParameterRecorder) -> None:
        self._recorder = recorder
        self._first: dict[int, Tensor] = {}

    def after_step(self, row: Row) -> None:
        """Count entries that stand where they stood at the first record, although they have a gradient."""
        params = [p for p in self._recorder.params if p.dtype in _LOW]
        if not params:
            return
        with torch.no_grad():
            now = [_sample(local(p)) for p in params]
            known = [i for i, p in enumerate(params) if id(p) in self._first]
            lost, counted = self._compared(params, now, known)
            for p, entries in zip(params, now, strict=True):
                if id(p) not in self._first:
                    self._first[id(p)] = entries.clone()
            if lost:
                total = torch.stack(counted).sum()
                row.add(
                    scalar(UPDATE_LOST_FRACTION, self._recorder.label), torch.stack(lost).sum() / total.clamp(min=1)
                )

    def _compared(
        self, params: Sequence[Tensor], now: Sequence[Tensor], known: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        lost, counted = [], []
        for i in known:
            grad, first = self._recorder.gradient(params[i]), self._first[id(params[i])]
            if grad is None or grad.shape != local(params[i]).shape or first.shape != now[i].shape:
                continue
            pushed = _sample(grad) != 0
            lost.append((pushed & (first == now[i])).sum().float())
            counted.append(pushed.sum().float())
        return lost, counted


def _sample(t: Tensor) -> Tensor:
    """Up to 65,536 evenly spaced entries."""
    flat = t.reshape(-1)
    return flat[:: max(1, -(-flat.numel() // SAMPLE))]
