"""Gradients, weights and updates of one optimizer, measured around its step.

One fused call per statistic and no number read: everything stays on the device as one vector per
statistic, in the order of `ParameterRecorder.names`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdoctor.live.sinks import ABSENT, Point, Vector
from fitdoctor.live.stepping import Stepper, StepSource
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import (
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LR,
    MOMENTUM,
    PARAMETERS_WITHOUT_GRAD,
    UPDATE_NORM,
    UPDATE_RATIO,
    WEIGHT_DECAY,
    WEIGHT_NORM,
)

SAMPLE = 1 << 16
"""Entries of a large parameter whose update is measured (beyond four times as many): the norm of an evenly
spaced sample this large is within about 0.5 % of the whole, and the copy of the weights stays small."""


class ParameterRecorder:
    """Measures the parameters of one optimizer.

    Args:
        optimizer: the unwrapped optimizer.
        model_names: names of the model's parameters by identity.
        label: name of the optimizer where there are several, "" otherwise.
        exact: measure updates on all entries, not on samples of large parameters.
    """

    def __init__(
        self, optimizer: Stepper, model_names: Mapping[int, str], label: str = "", exact: bool = False
    ) -> None:
        self.optimizer = optimizer
        self.label = label
        self._model_names = model_names
        self._most = sys.maxsize if exact else 4 * SAMPLE
        self._params: list[Tensor] = []
        self._identity: tuple[int, ...] = ()
        self._before: list[Tensor] = []
        self._scales: FloatArray = np.empty(0)
        self._armed = False
        self._fresh = False
        self.names: tuple[str, ...] = ()

    @property
    def params(self) -> list[Tensor]:
        """The trainable parameters of the optimizer, those added meanwhile included."""
        if self._fresh:
            return self._params
        found = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        identity = tuple(map(id, found))
        if identity != self._identity:
            self._identity, self._params, self._before = identity, found, []
            self.names = tuple(self._named(found))
        self._fresh = True
        return self._params

    def refresh(self) -> None:
        """Look anew at which parameters there are, at the next occasion."""
        self._fresh = False

    def _named(self, params: Sequence[Tensor]) -> Iterable[str]:
        for i, p in enumerate(params):
            name = self._model_names.get(id(p), f"parameter{i}")
            yield f"{self.label}.{name}" if self.label else name

    def gradient(self, p: Tensor) -> Tensor | None:
        """The gradient that the step saw, as a dense tensor of this process, or None."""
        return gradient(self.optimizer.gradient_of(p) if isinstance(self.optimizer, StepSource) else p.grad)

    def before_step(self) -> None:
        """Remember the weights."""
        params = self.params
        with torch.no_grad():
            now = [self._part(p) for p in params]
            if len(self._before) != len(now) or any(
                a.shape != b.shape or a.dtype != b.dtype or a.device != b.device
                for a, b in zip(self._before, now, strict=True)
            ):
                self._before = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in now]
                self._scales = np.array(
                    [math.sqrt(_entries(p) / max(1, t.numel())) for p, t in zip(params, now, strict=True)]
                )
            if now:
                torch._foreach_copy_(self._before, now)
        self._armed = True

    def _part(self, p: Tensor) -> Tensor:
        """The parameter, or an evenly spaced sample of a large one; shares its memory where it can."""
        t = local(p)
        if t.is_complex():
            t = torch.view_as_real(t)
        n = t.numel()
        if n <= self._most:
            return t
        stride = n // SAMPLE
        while math.gcd(stride, t.shape[-1]) > 1 and stride > 1:  # do not walk along one column
            stride -= 1
        flat = t.view(-1) if t.is_contiguous() else t.reshape(-1)
        return flat[::stride]

    def after_step(self, row: Row, *, found_inf: Tensor | None = None) -> None:
        """Measure what the step saw and, when the weights before it are known, what it did.

        Args:
            row: receives the vectors.
            found_inf: a fused optimizer's flag, on the device, that it skipped the step.
        """
        params = self.params
        self._host_facts(row)
        if not params:
            return
        with torch.no_grad():
            grads = [self.gradient(p) for p in params]
            there = np.array([g is not None for g in grads])
            row.put(PARAMETERS_WITHOUT_GRAD, float((~there).sum()), self.label)
            parts = []
            if there.any():
                parts.append(norms([g for g in grads if g is not None]))
            armed = self._armed and len(self._before) == len(params)
            if armed:
                parts.append(norms(self._before))
                torch._foreach_sub_(self._before, [self._part(p) for p in params])
                parts.append(norms(self._before))
            unclipped = self._unclipped(params)
            if len(unclipped) != there.sum():
                unclipped = []
            if unclipped:
                parts.append(norms(unclipped))
            if found_inf is not None:
                parts.append(found_inf.detach().reshape(1).to(parts[0].dtype))
        self._armed = False
        if parts:
            values = parts[0] if len(parts) == 1 else torch.cat([p.to(parts[0].device) for p in parts])
            fused = found_inf is not None
            decoder = _Norms(self.names, there, self._scales.copy(), armed, self.label, fused, bool(unclipped))
            row.add(decoder, values)

    def _unclipped(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Gradients before clipping, where the optimizer itself clips and shows both; none elsewhere."""
        if not isinstance(self.optimizer, StepSource):
            return []
        found = [self.optimizer.unclipped_gradient_of(p) for p in params]
        return [g for f in found if (g := gradient(f)) is not None]

    def _host_facts(self, row: Row) -> None:
        groups = self.optimizer.param_groups
        for i, group in enumerate(groups):
            layer = f"pg{i}" if len(groups) > 1 else ""
            layer = ".".join(x for x in (self.label, layer) if x)
            lr = group.get("lr")
            if isinstance(lr, Tensor):
                row.add(_Group(layer), lr.detach().reshape(1).float())
            elif lr is not None:
                row.put(LR, float(lr), layer)
            momentum = group.get("momentum", (group.get("betas") or (None,))[0])
            if isinstance(momentum, int | float):
                row.put(MOMENTUM, float(momentum), layer)
            if isinstance(group.get("weight_decay"), int | float):
                row.put(WEIGHT_DECAY, float(group["weight_decay"]), layer)


class _Group:
    """Decodes a learning rate that is a tensor."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        return [row.point(LR, float(values[0]), self.layer)]


class _Norms:
    """Decodes norms of gradients, weights and updates; sums of squares are taken here, in float64."""

    def __init__(
        self,
        names: tuple[str, ...],
        there: np.ndarray[Any, Any],
        scales: FloatArray,
        armed: bool,
        label: str,
        fused: bool,
        unclipped: bool,
    ) -> None:
        self.names, self.there, self.scales = names, there, scales
        self.armed, self.label, self.fused, self.unclipped = armed, label, fused, unclipped

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        if self.fused and values[-1] > 0:  # the step was skipped: its gradient is the overflow's
            row.context["skipped"] = 1.0
            return []
        n, some = len(self.names), int(self.there.sum())
        out: list[Point | Vector] = []
        with np.errstate(all="ignore"):
            if some:
                grads = np.full(n, ABSENT)
                grads[self.there] = values[:some]
                total = float(np.sqrt(np.sum(values[:some] ** 2)))
                begin = some + 2 * n * self.armed
                before = values[begin : begin + some] if self.unclipped else None
                out += self._gradients(row, grads, total) if before is None else self._both(row, before, total)
            if self.armed:
                weights = values[some : some + n] * self.scales
                updates = values[some + n : some + 2 * n] * self.scales
                weight, update = float(np.sqrt(np.sum(weights**2))), float(np.sqrt(np.sum(updates**2)))
                out += [
                    row.vector(WEIGHT_NORM, self.names, weights, self.label),
                    row.vector(UPDATE_NORM, self.names, updates, self.label),
                    row.vector(UPDATE_RATIO, self.names, np.where(weights > 0, updates / weights, ABSENT), self.label),
                    row.point(WEIGHT_NORM, weight, self.label),
                    row.point(UPDATE_NORM, update, self.label),
                ]
                if weight > 0:
                    out.append(row.point(UPDATE_RATIO, update / weight, self.label))
        return out

    def _both(self, row: Row, before: FloatArray, after: float) -> list[Point | Vector]:
        """The gradient before clipping and its norm after it, both measured."""
        grads = np.full(len(self.names), ABSENT)
        grads[self.there] = before
        return [
            row.vector(GRAD_NORM, self.names, grads, self.label),
            row.point(GRAD_NORM, float(np.sqrt(np.sum(before**2))), self.label),
            row.point(GRAD_NORM_CLIPPED, after, self.label),
        ]

    def _gradients(self, row: Row, grads: FloatArray, total: float) -> list[Point | Vector]:
        """The gradient before clipping where its norm is known, else as the optimizer saw it."""
        before = row.context.get(f"clip_norm_before{self.label}")
        limit = row.context.get(f"clip_limit{self.label}")
        if before is None or limit is None:
            return [row.vector(GRAD_NORM, self.names, grads, self.label), row.point(GRAD_NORM, total, self.label)]
        factor = min(1.0, limit / (before + 1e-6))  # what clip_grad_norm_ multiplied with
        if factor > 0 and math.isfinite(factor):
            grads = np.where(grads == ABSENT, ABSENT, grads / factor)
        return [
            row.vector(GRAD_NORM, self.names, grads, self.label),
            row.point(GRAD_NORM_CLIPPED, total, self.label),
        ]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor as it is."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor


def _entries(p: Tensor) -> int:
    """Real numbers in this process's part of a parameter."""
    return local(p).numel() * (2 if p.is_complex() else 1)


def gradient(g: Tensor | None) -> Tensor | None:
    """A gradient as a dense tensor of this process, or None."""
    if g is None:
        return None
    g = local(g.detach() if g.requires_grad else g)
    if g.layout != torch.strided:
        g = g.coalesce().values() if g.layout == torch.sparse_coo else g.values()
    return torch.view_as_real(g) if g.is_complex() else g


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norms, float32[n] (float64 for float64 tensors) on the first tensor's device."""
    first = tensors[0]
    if all(t.dtype == first.dtype and t.device == first.device for t in tensors):
        return torch.stack(list(_norms_of_one_kind(tensors)))
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for i, t in enumerate(tensors):
        kinds.setdefault((t.dtype, t.device), []).append(i)
    found: list[Tensor] = [first] * len(tensors)
    for members in kinds.values():
        for i, norm in zip(members, _norms_of_one_kind([tensors[i] for i in members]), strict=True):
            found[i] = norm.to(first.device, torch.float32, non_blocking=True)
    return torch.stack(found)


def _norms_of_one_kind(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    half = tensors[0].dtype in (torch.float16, torch.bfloat16)  # their own range ends at 65504, or 3 digits
    return torch._foreach_norm(list(tensors), 2.0, dtype=torch.float32 if half else None)
