"""Activations of all layers, sampled into one matrix and reduced together.

A layer's forward hook does two things: it adds the sum of its whole output (exact mean, and a sum is
not finite when any entry is not), and it copies a fixed grid of `ROWS` inputs times `UNITS` units into the
layer's row of a preallocated matrix. Copied at once, because in-place operations change outputs later. The
statistics of all layers then take a dozen operations together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fitdoctor.live.sinks import ABSENT, Point, Vector
from fitdoctor.live.taps import Tap, listen
from fitdoctor.live.transport import Row, constant
from fitdoctor.run import FloatArray
from fitdoctor.signals import (
    ACTIVATION_ABSMAX,
    ACTIVATION_DEAD_FRACTION,
    ACTIVATION_GRAD_RMS,
    ACTIVATION_INPUT_SPREAD,
    ACTIVATION_MEAN,
    ACTIVATION_RMS,
    ACTIVATION_SATURATED_FRACTION,
    ACTIVATION_STD,
    ACTIVATION_ZERO_FRACTION,
)

ROWS, UNITS = 32, 64
"""Inputs and units of a layer that are looked at."""

DEAD_AFTER = 1000
"""Sampled inputs on which a unit must be zero without a break to count as dead."""

# Where |slope| < 5 % of its largest: tanh beyond |x| = 2.18, sigmoid beyond |x| = 4.36 (the issue of gates
# that are meant to saturate is the rules' to judge).
SATURATING: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-0.9747, 0.9747),
    nn.Sigmoid: (0.01266, 0.98734),
    nn.Hardtanh: (-0.9999, 0.9999),
    nn.Hardsigmoid: (0.0001, 0.9999),
    nn.Softsign: (-0.7764, 0.7764),
}


_FUNCTIONS = {"tanh": (-2.18, 2.18), "sigmoid": (-4.36, 4.36)}
"""The same for the input of a tanh or sigmoid that is no module: the output of the layer before it is looked at."""

_FUNCTIONS |= {"applied tanh": SATURATING[nn.Tanh], "applied sigmoid": SATURATING[nn.Sigmoid]}  # its own output is


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Which entries of an output of one shape are looked at, and where they go."""

    shape: torch.Size
    stride: tuple[int, ...]
    rows: int
    units: int
    row_step: int
    unit_step: int
    target: Tensor

    def of(self, value: Tensor) -> Tensor:
        """The entries, [rows, units]; shares the memory of a contiguous output."""
        if value.is_contiguous():
            width = value.numel() // self.shape[0] if value.ndim > 1 else value.numel()
            return value.as_strided(
                (self.rows, self.units), (self.row_step * width, self.unit_step), value.storage_offset()
            )
        if value.ndim < 2:
            return value.reshape(1, -1)[:, :: self.unit_step][:, : self.units]
        some = value[:: self.row_step][: self.rows].reshape(self.rows, -1)
        return some[:, :: self.unit_step][:, : self.units]


class ActivationRecorder:
    """Measures the outputs of the named layers.

    Args:
        layers: name -> module, in the order of the model.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.names = tuple(layers)
        self.modules = tuple(layers.values())
        self._grids: dict[int, _Grid] = {}
        self._device: torch.device | None = None
        self._seen: set[int] = set()
        self._gradients: dict[int, int] = {}
        self._stale = True
        bounds = [next((b for kind, b in SATURATING.items() if isinstance(m, kind)), None) for m in self.modules]
        self._saturates = np.array([b is not None for b in bounds], bool)
        self._bounds = [b or (-math.inf, math.inf) for b in bounds]
        self._rectified: set[int] = set()

    def note_functions(self, found: Mapping[int, str]) -> None:
        """Some layers' outputs go into an activation that is no module: look at them as if they came out of it.

        Args:
            found: index of the layer -> "relu", "tanh" or "sigmoid".
        """
        for layer, function in found.items():
            if function in _FUNCTIONS:
                self._bounds[layer] = _FUNCTIONS[function]
                self._saturates[layer] = True
            elif function.endswith("relu") and not self._saturates[layer]:
                self._rectified.add(layer)
        if self._device is not None:
            self._place_bounds(self._device)

    def _place_bounds(self, device: torch.device) -> None:
        n = len(self.names)
        self._low = constant([b[0] for b in self._bounds], device).view(n, 1, 1)
        self._high = constant([b[1] for b in self._bounds], device).view(n, 1, 1)
        self._floor = constant([0.0 if i in self._rectified else -math.inf for i in range(n)], device).view(n, 1, 1)

    def _allocate(self, device: torch.device) -> None:
        n = len(self.names)
        self._device = device
        self._sample = torch.zeros(n, ROWS, UNITS, device=device)
        self._mask = torch.zeros(n, ROWS, UNITS, device=device)
        self._idle = torch.zeros(n, UNITS, device=device)
        self._sums = torch.zeros(n, device=device)
        self._grad_norms = torch.zeros(n, device=device)
        self._place_bounds(device)
        self._sum_of = list(self._sums.unbind())
        self._norm_of = list(self._grad_norms.unbind())
        self._sizes = [1.0] * n

    def start(self) -> None:
        """Begin a record; what an unfinished one left is forgotten."""
        self._seen.clear()
        self._gradients.clear()

    def take(self, layer: int, output: object, *, gradient: Tap | None = None) -> None:
        """Look at one layer's output (its first call of a record counts).

        Args:
            layer: index of the layer.
            output: what the module returned.
            gradient: makes the hook that receives the gradient with respect to the output; None for no hook.
        """
        tensor = first_tensor(output)
        if tensor is None or layer in self._seen or tensor.numel() == 0:
            return
        value = tensor.detach()
        to_local = getattr(value, "to_local", None)
        if to_local is not None:
            value = to_local()
        if self._device is None:
            self._allocate(value.device)
        if value.device != self._device:
            value = value.to(self._device, non_blocking=True)
        self._seen.add(layer)
        shape, stride = value.shape, value.stride()
        grid = self._grids.get(layer)
        if grid is None or grid.shape != shape or grid.stride != stride:
            grid = self._grids[layer] = self._new_grid(layer, value)
        grid.target.copy_(grid.of(value))
        torch.sum(value, (), dtype=torch.float32, out=self._sum_of[layer])
        if gradient is not None and tensor.requires_grad:
            listen(tensor, gradient)

    def _new_grid(self, layer: int, value: Tensor) -> _Grid:
        """Evenly spaced inputs and units for outputs of this shape; the layer's row is laid out for it."""
        batch = value.shape[0] if value.ndim > 1 else 1
        width = value.numel() // batch
        rows, units = min(ROWS, batch), min(UNITS, width)
        old = self._grids.get(layer)
        if old is None or (old.rows, old.units, old.shape[1:]) != (rows, units, value.shape[1:]):
            self._stale = True
            self._mask[layer] = 0
            self._mask[layer, :rows, :units] = 1
            self._sample[layer] = 0
            self._idle[layer] = 0
        self._sizes[layer] = float(value.numel())
        target = self._sample[layer, :rows, :units]
        return _Grid(value.shape, value.stride(), rows, units, batch // rows, coprime(width // units, width), target)

    def take_gradient(self, layer: int, grad: Tensor) -> None:
        """Look at the gradient with respect to one layer's output."""
        if self._device is None or layer in self._gradients:
            return
        value = grad.detach()
        to_local = getattr(value, "to_local", None)
        value = to_local() if to_local is not None else value
        if value.dtype == torch.float32 and value.device == self._device:
            torch.linalg.vector_norm(value, out=self._norm_of[layer])
        else:
            self._norm_of[layer].copy_(torch.linalg.vector_norm(value, dtype=torch.float32))
        self._gradients[layer] = value.numel()

    def finish(self, row: Row, *, weight: Tensor | None = None) -> None:
        """Reduce what was seen in this record.

        Args:
            row: receives the vectors.
            weight: factor between the loss and what backward() was called on, on the device.
        """
        if not self._seen or self._device is None:
            return
        with torch.no_grad():
            if self._stale:
                self._counts = self._mask.sum((1, 2)).clamp_(min=1)
                self._rows = self._mask.amax(2).sum(1)
                self._units = self._mask[:, 0].sum(1).clamp_(min=1)
                self._stale = False
            x, mask, counts = self._sample, self._mask, self._counts
            square = x.square()
            off = x == 0
            if self._rectified:
                off |= x < self._floor
            zero = off.float().mul_(mask)
            per_unit = x.sum(1)
            # The part of the mean square that is left when each unit's mean over the inputs is taken out.
            within = square.sum(1).sub_(per_unit.square().div_(self._rows.clamp(min=1).unsqueeze(1))).sum(1)
            idle = zero.sum(1) >= self._rows.unsqueeze(1)
            self._idle = torch.where(idle, self._idle + self._rows.unsqueeze(1), 0.0)
            dead = (self._idle >= DEAD_AFTER).float().mul_(self._mask[:, 0]).sum(1).div_(self._units)
            outside = ((x < self._low) | (x > self._high)).float().mul_(mask)
            parts = [
                self._sums.clone(),
                square.sum((1, 2)).div_(counts),
                x.abs().amax((1, 2)),
                zero.sum((1, 2)).div_(counts),
                outside.sum((1, 2)).div_(counts),
                within.div_(counts),
                dead,
                self._grad_norms.clone(),
            ]
            if weight is not None:
                parts.append(weight.reshape(1).float().to(self._device))
        seen = np.zeros(len(self.names), bool)
        seen[sorted(self._seen)] = True
        sizes = np.array([self._gradients.get(i, 0) for i in range(len(self.names))], float)
        decoder = _Statistics(self.names, seen, np.array(self._sizes), sizes, self._saturates, weight is not None)
        row.add(decoder, torch.cat(parts))


class _Statistics:
    def __init__(
        self,
        names: tuple[str, ...],
        seen: np.ndarray[Any, Any],
        sizes: FloatArray,
        gradient_sizes: FloatArray,
        saturates: np.ndarray[Any, Any],
        weighted: bool,
    ) -> None:
        self.names, self.seen, self.sizes = names, seen, sizes
        self.gradient_sizes, self.saturates, self.weighted = gradient_sizes, saturates, weighted

    def __call__(self, row: Row, values: FloatArray) -> Sequence[Point | Vector]:
        n = len(self.names)
        sums, square, absmax, zero, saturated, within, dead, grads = values[: 8 * n].reshape(8, n)
        with np.errstate(all="ignore"):
            mean = sums / self.sizes
            broken = ~np.isfinite(sums)  # of any entry, sampled or not
            rms = np.where(broken, np.abs(sums), np.sqrt(square))
            absmax = np.where(broken, np.abs(sums), absmax)
            std = np.sqrt(np.maximum(rms**2 - mean**2, 0))
            spread = np.where(rms > 0, np.sqrt(np.maximum(within, 0)) / rms, ABSENT)
            scale = abs(values[-1]) if self.weighted and values[-1] else 1.0
            grad = np.where(
                self.gradient_sizes > 0, grads / np.sqrt(np.maximum(self.gradient_sizes, 1)) / scale, ABSENT
            )

        def vector(quantity: Any, found: FloatArray, where: np.ndarray[Any, Any]) -> list[Point | Vector]:
            return [row.vector(quantity, self.names, np.where(where, found, ABSENT))] if where.any() else []

        return [
            *vector(ACTIVATION_MEAN, mean, self.seen),
            *vector(ACTIVATION_STD, std, self.seen),
            *vector(ACTIVATION_RMS, rms, self.seen),
            *vector(ACTIVATION_ABSMAX, absmax, self.seen),
            *vector(ACTIVATION_ZERO_FRACTION, zero, self.seen),
            *vector(ACTIVATION_SATURATED_FRACTION, saturated, self.seen & self.saturates),
            *vector(ACTIVATION_INPUT_SPREAD, spread, self.seen),
            *vector(ACTIVATION_DEAD_FRACTION, dead, self.seen),
            *vector(ACTIVATION_GRAD_RMS, grad, self.gradient_sizes > 0),
        ]


def first_tensor(output: object) -> Tensor | None:
    """The first floating point tensor in what a module returned: a tensor, tuple, list, dict or data class of them."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.layout == torch.strided else None
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return next((t for item in output[:8] if (t := first_tensor(item)) is not None), None)
    return None


def coprime(step: int, width: int) -> int:
    """The largest number up to `step` that shares no factor with `width`, so that a walk meets every column."""
    while step > 1 and math.gcd(step, width) > 1:
        step -= 1
    return max(step, 1)
