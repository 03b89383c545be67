"""Health of Adam's second moment: is it swamped by epsilon, is it taken by surprise?

Looked at on a sample of each parameter: the root of the bias-corrected second moment, as it stands after
the step, against epsilon and against the gradient of the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdoctor.live.parameters import ParameterRecorder, local
from fitdoctor.live.sinks import ABSENT
from fitdoctor.live.stepping import Stepper, kind_of
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
        self._buffers: _Buffers | None = None

    @staticmethod
    def fits(optimizer: Stepper) -> bool:
        """Whether the optimizer keeps a second moment as Adam does."""
        group = optimizer.param_groups[0]
        return "betas" in group and "eps" in group and "adam" in kind_of(optimizer).lower()

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
            v, g, step = state.get("exp_avg_sq"), self._recorder.gradient(p), state.get("step")
            if not isinstance(v, Tensor) or g is None or g.numel() == 0 or v.shape != p.shape:
                continue
            count = _host_number(step, self._recorder, row)
            if count is None or count <= 0:
                continue
            group = settings[id(p)]
            v = local(v)
            moments.append(_sample(torch.view_as_real(v) if v.is_complex() else v))
            grads.append(_sample(g))
            scales.append((1 - float(group["betas"][1]) ** count, float(group["eps"])))
            places.append(i)
        if not places:
            return
        with torch.no_grad():
            sizes = tuple(len(m) for m in moments)
            buffers = self._buffers
            if buffers is None or buffers.sizes != sizes or buffers.device != moments[0].device:
                buffers = self._buffers = _Buffers(sizes, moments[0].device)
            torch._foreach_copy_(buffers.moments, moments)
            torch._foreach_copy_(buffers.grads, grads)
            correction, eps = constant([x for pair in zip(*scales, strict=True) for x in pair], buffers.device).view(
                2, -1, 1
            )
            # The root of the second moment as the optimizer divides by it: over the bias correction.
            root = buffers.moment.div(correction).sqrt_()
            tiny = (root < 10 * eps).float().mul_(buffers.mask).sum(1)
            surprise = buffers.grad.div(root.clamp_(min=1e-30).maximum(eps)).square_().sum(1)
            decoder = _Health(self._recorder.names, np.array(places), np.array(sizes), self._recorder.label)
            row.add(decoder, torch.cat([tiny, surprise]))


class _Buffers:
    """Samples of all parameters as the rows of two matrices; a parameter with fewer entries fills part of its row."""

    def __init__(self, sizes: tuple[int, ...], device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.moment = torch.zeros(len(sizes), SAMPLE, device=device)
        self.grad = torch.zeros_like(self.moment)
        self.mask = (torch.arange(SAMPLE, device=device) < constant(sizes, device).unsqueeze(1)).float()
        self.moments = [row[:k] for row, k in zip(self.moment.unbind(), sizes, strict=True)]
        self.grads = [row[:k] for row, k in zip(self.grad.unbind(), sizes, strict=True)]


def _host_number(step: Any, recorder: ParameterRecorder, row: Row) -> float | None:
    """Steps that the moment has averaged over, without asking a device."""
    if isinstance(step, Tensor):
        return float(step.numpy()) if step.device.type == "cpu" else float(row.step)
    return float(step) if isinstance(step, int | float) else None


def _sample(t: Tensor) -> Tensor:
    """At most `SAMPLE` entries, evenly spaced; shares the memory of a contiguous tensor."""
    n = t.numel()
    k = min(SAMPLE, n)
    if t.is_contiguous():
        return t.as_strided((k,), (n // k,), t.storage_offset())
    return t.reshape(-1)[:: n // k][:k]


class _Health:
    def __init__(
        self, names: tuple[str, ...], places: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any], label: str
    ) -> None:
        self.names, self.places, self.sizes, self.label = names, places, sizes, label

    def __call__(self, row: Row, values: FloatArray) -> list[Any]:
        tiny, surprise = np.split(values, 2)
        out = []
        for quantity, part in (
            (ADAM_TINY_FRACTION, tiny / self.sizes),
            (ADAM_SURPRISE, np.sqrt(surprise / self.sizes)),
        ):
            whole = np.full(len(self.names), ABSENT)
            whole[self.places] = part
            out.append(row.vector(quantity, self.names, whole, self.label))
        return out
