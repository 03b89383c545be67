"""How a rule looks at what goes into a model: the scale of its inputs, from what its first layer makes of them."""

from __future__ import annotations

import math

from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_RMS, WEIGHT_NORM
from fitdoctor.views.depth import at_start, layers_of, weight_of


def input_scale(run: Run) -> float | None:
    """Root mean square of the inputs of the first affine layer, as its untrained weights show it; None if unknown.

    Random weights keep no direction: the mean square of their outputs is that of an input times its number of inputs
    times the mean square of a weight (He et al. 2015), and the latter two make the squared norm of the weights over
    the number of units. What the biases add is taken off; where it is most of the output, the inputs do not show.
    """
    layers = layers_of(run)
    first = next((layer for layer in layers if layer.role in ("affine", "norm")), None)
    if first is None or first.role == "norm" or first.source or first.outputs < 1:
        return None
    outputs, norms = run.layers(ACTIVATION_RMS).get(first.name), run.layers(WEIGHT_NORM)
    weight = norms.get(weight_of(first, norms))
    if outputs is None or weight is None or not at_start(run, (outputs, weight)):
        return None
    bias = norms.get(f"{first.name}.bias")
    shift = float(bias.values[0]) ** 2 / first.outputs if bias is not None else 0.0
    square = float(outputs.values[0]) ** 2 - shift
    gain = float(weight.values[0]) ** 2 / first.outputs
    if not (math.isfinite(square) and math.isfinite(gain) and square > shift and gain > 0):
        return None
    return math.sqrt(square / gain)
