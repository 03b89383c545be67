"""How a rule looks at what goes into a model: the scale of its inputs, from what its first layer makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fitdoctor.run import IntArray, Run, Series
from fitdoctor.signals import ACTIVATION_RMS, WEIGHT_NORM
from fitdoctor.stats import mad_sigma, running_median
from fitdoctor.views.depth import Layer, at_start, layers_of, weight_of


def input_scale(run: Run) -> float | None:
    """Root mean square of the inputs of the first affine layer, as its untrained weights show it; None if unknown.

    Random weights keep no direction: the mean square of their outputs is that of an input times its number of inputs
    times the mean square of a weight (He et al. 2015), and the latter two make the squared norm of the weights over
    the number of units. What the biases add is taken off; where it is most of the output, the inputs do not show.
    """
    found = _first_layer(run)
    if found is None:
        return None
    first, outputs, weight = found
    if not at_start(run, (outputs, weight)):
        return None
    bias = run.layers(WEIGHT_NORM).get(f"{first.name}.bias")
    shift = float(bias.values[0]) ** 2 / first.outputs if bias is not None else 0.0
    square = float(outputs.values[0]) ** 2 - shift
    gain = float(weight.values[0]) ** 2 / first.outputs
    if not (math.isfinite(square) and math.isfinite(gain) and square > shift and gain > 0):
        return None
    return math.sqrt(square / gain)


@dataclass(frozen=True, slots=True)
class Outliers:
    """Recorded batches whose inputs are of quite another size than those around them.

    Attributes:
        outputs: root mean square of the outputs of the first affine layer, which follows the size of its inputs.
        steps: the steps of those batches, shape `(n,)`; empty where there are none.
        times: the largest of them, as a multiple of those around it.
    """

    outputs: Series
    steps: IntArray
    times: float


def outlying_inputs(run: Run, *, times: float = 5.0, sigmas: float = 8.0, least: int = 20) -> Outliers | None:
    """Which recorded batches have inputs of quite another size than those around them; None where it does not show.

    The outputs of the first affine layer over its weights follow the scale of a batch's inputs, while the weights turn
    slowly.

    Args:
        run: the run.
        times: least scale over the median of nine neighbours.
        sigmas: the same, in robust standard deviations of the logarithm: small batches of what has heavy tails scatter.
        least: fewest records.
    """
    found = _first_layer(run)
    if found is None:
        return None
    _, outputs, weight = found
    scales = outputs.values / np.maximum(weight.at(outputs.steps), 1e-30)
    sound = np.isfinite(scales) & (scales > 0)
    if sound.sum() < least:
        return None
    logs = np.log(scales[sound])
    jumps = logs - running_median(logs, 9)
    far = jumps > max(math.log(times), sigmas * mad_sigma(jumps))
    return Outliers(outputs, outputs.steps[sound][far], math.exp(min(float(jumps.max()), 700.0)))


def _first_layer(run: Run) -> tuple[Layer, Series, Series] | None:
    """The first affine layer that sees the inputs as they are, its outputs and its weights."""
    first = next((layer for layer in layers_of(run) if layer.role in ("affine", "norm")), None)
    if first is None or first.role == "norm" or first.source or first.outputs < 1:
        return None
    norms = run.layers(WEIGHT_NORM)
    outputs, weight = run.layers(ACTIVATION_RMS).get(first.name), norms.get(weight_of(first, norms))
    return None if outputs is None or weight is None else (first, outputs, weight)
