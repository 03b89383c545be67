"""What goes forward and backward through the layers with weights, in one pass of real inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fitdoctor.preflight.batches import Batch
from fitdoctor.preflight.bench import Bench
from fitdoctor.preflight.losses import ActivationCall
from fitdoctor.run import FloatArray

WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LocalResponseNorm,
)


@dataclass(slots=True)
class Layer:
    """One layer with weights in the order in which they ran.

    Attributes:
        name: of the module.
        input: what it got.
        output: what it gave.
        rms: root mean square of its output.
        input_spread: standard deviation of a unit over the examples, relative to `rms`.
        grad_rms: root mean square of the gradient of the loss with respect to its output; 0 when none came.
        normed: whether a normalisation takes its output.
    """

    name: str
    input: Tensor
    output: Tensor
    rms: float
    input_spread: float
    grad_rms: float = 0.0
    normed: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """One pass: the layers with weights in order, and the calls of activation functions."""

    layers: list[Layer]
    activations: list[ActivationCall]


def scan(bench: Bench, batch: Batch) -> Scan:
    """Run a batch forward and backward in train mode without dropout."""
    layers: list[Layer] = []
    made_by: dict[int, Layer] = {}
    names = {id(m): n for n, m in bench.model.named_modules()}

    def after(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        inside = args[0] if args else None
        if not isinstance(output, Tensor) or not isinstance(inside, Tensor):
            return
        if isinstance(module, NORMS):
            if (layer := made_by.get(id(inside))) is not None:
                layer.normed = True
            return
        values = output.detach().float()
        rms = float(values.square().mean().sqrt())
        spread = float(values.reshape(len(values), -1).var(0).mean().sqrt()) if len(values) > 1 else 0.0
        layer = Layer(names[id(module)], inside, output, rms, spread / rms if rms > 0 else 0.0)
        layers.append(layer)
        made_by[id(output)] = layer
        if output.requires_grad:
            output.register_hook(partial(_note_gradient, layer))  # type: ignore[no-untyped-call]

    handles = [m.register_forward_hook(after) for m in bench.model.modules() if isinstance(m, (*WEIGHTED, *NORMS))]
    try:
        with bench.mode(training=True, dropout=False):
            done = bench.run(batch, keep_activations=True)
            if done.loss.requires_grad and bool(torch.isfinite(done.loss)):
                bench.look(done.loss)
    finally:
        for handle in handles:
            handle.remove()
    return Scan(layers, done.spy.activations)


def _note_gradient(layer: Layer, gradient: Tensor) -> None:
    layer.grad_rms = float(gradient.detach().float().square().mean().sqrt())


def decades(values: Sequence[float]) -> tuple[float, float]:
    """By how many powers of ten a positive sequence changes from end to end, on a line through its logarithms.

    Returns:
        The change, and how steadily it goes that way: the rank correlation with the place in the sequence.
    """
    y: FloatArray = np.log10(np.maximum(np.asarray(values, np.float64), 1e-45))
    x = np.arange(len(y), dtype=np.float64)
    slope = float(np.polyfit(x, y, 1)[0])
    if np.ptp(y) == 0:
        return 0.0, 0.0
    ranks = np.argsort(np.argsort(y)).astype(np.float64)
    return slope * (len(y) - 1), float(np.corrcoef(x, ranks)[0, 1])
