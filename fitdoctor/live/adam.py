"""Health of Adam's second moment: is it swamped by epsilon, is it taken by surprise?

Looked at on a sample of each parameter: the root of the bias-corrected second moment, as it stands after
the step, against epsilon and against the gradient of the step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdoctor.live.parameters import ParameterRecorder, gradient, local
from fitdoctor.live.sinks import ABSENT
from fitdoctor.live.transport import Row, constant
from fitdoctor.run import FloatArray
from fitdoctor.signals import ADAM_SURPRISE, ADAM_TINY_FRACTION

SAMPLE = 256
"""Entries of each parameter that are looked at."""


EVERY = 4
"""Records between looks: many small samples cost as much as all the norms."""


class AdamRecorder:
    """Measures the state of an optimizer of the Adam family.

    Args:
        recorder: what measures its parameters.
    """

    def __init__(self, recorder: ParameterRecorder) -> None:
        self._recorder = recorder
        self._records = 0

    @staticmethod
    def fits(optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer keeps a second moment as Adam does."""
        group = optimizer.param_groups[0]
        return "betas" in group and "eps" in group and "adam" in type(optimizer).__name__.lower()

    def after_step(self, row: Row) -> None:
        """Measure; the numbers stay on the device."""
        self._records += 1
        if self._records % EVERY != 1:
            return
        optimizer = self._recorder.optimizer
        settings = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        moments, grads, scales, places = [], [], [], []
        for i, p in enumerate(self._recorder.params):
            state = optimizer.state.get(p, {})
            v, g, step = state.get("exp_avg_sq"), gradient(p), state.get("step")
            if not isinstance(v, Tensor) or g is None or g.numel() == 0 or v.shape != p.shape:
                continue
            count = _host_number(step, self._recorder, row)
            if count is None or count <= 0:
                continue
            group = settings[id(p)]
            # The sample is read as the square root over the bias correction, in units of epsilon.
            moments.append(_sample(local(v)))
            grads.append(_sample(g))
            scales.append((1 - float(group["betas"][1]) ** count, float(group["eps"])))
            places.append(i)
        if not places:
            return
        with torch.no_grad():
            device = moments[0].device
            v = torch.stack([m.to(device) for m in moments]).float()
            g = torch.stack([m.to(device) for m in grads]).float()
            correction = constant([s[0] for s in scales], device).unsqueeze(1)
            eps = constant([s[1] for s in scales], device).unsqueeze(1)
            root = (v / correction).sqrt_()
            tiny = (root < 10 * eps).float().mean(1)
            surprise = (g / root.clamp_(min=1e-30).maximum(eps)).square_().mean(1).sqrt_()
            row.add(_Health(self._recorder.names, np.array(places), self._recorder.label), torch.cat([tiny, surprise]))


def _host_number(step: Any, recorder: ParameterRecorder, row: Row) -> float | None:
    """Steps that the moment has averaged over, without asking a device."""
    if isinstance(step, Tensor):
        return float(step.numpy()) if step.device.type == "cpu" else float(row.step)
    return float(step) if isinstance(step, int | float) else None


def _sample(t: Tensor) -> Tensor:
    """`SAMPLE` entries, evenly spaced; of a smaller tensor some come twice."""
    flat = t.reshape(-1)
    if len(flat) >= SAMPLE:
        return flat[:: len(flat) // SAMPLE][:SAMPLE]
    return flat.repeat(math.ceil(SAMPLE / len(flat)))[:SAMPLE]


class _Health:
    def __init__(self, names: tuple[str, ...], places: np.ndarray[Any, Any], label: str) -> None:
        self.names, self.places, self.label = names, places, label

    def __call__(self, row: Row, values: FloatArray) -> list[Any]:
        out = []
        for quantity, part in zip((ADAM_TINY_FRACTION, ADAM_SURPRISE), np.split(values, 2), strict=True):
            whole = np.full(len(self.names), ABSENT)
            whole[self.places] = part
            out.append(row.vector(quantity, self.names, whole, self.label))
        return out
