"""How a rule looks at the layers of a model: what they are, and how a quantity changes along the forward pass."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np

from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import Quantity
from fitdoctor.stats import trend
from fitdoctor.views.curves import begins_at_start, classes
from fitdoctor.views.norms import layers_by_depth


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the model, as the monitor found it in the first forward pass it recorded.

    Attributes:
        name: as in the per-layer signals.
        role: "affine" (linear, convolution), "rectifier" (ReLU and its kin), "saturating" (sigmoid, tanh),
            "smooth" (GELU, SiLU ...), "norm", or "other".
        inputs: inputs of one unit of an affine layer, 0 otherwise.
        outputs: units of an affine layer, 0 otherwise.
        after: "rectifier" or "saturating" where the program applies such a function to the output without a
            module for it (``torch.relu(self.fc1(x))``), or the layer does so itself (``Dense(64, activation="relu")``);
            "smooth" where the layer applies another one; "" otherwise.
        source: name of the layer whose output it takes unchanged but for its shape, "" where there is none.
    """

    name: str
    role: str
    inputs: int = 0
    outputs: int = 0
    after: str = ""
    source: str = ""


def layers_of(run: Run) -> tuple[Layer, ...]:
    """The layers in the order of the forward pass, from the fact ``layers``; none when the run lacks it."""
    text = run.facts.get("layers")
    if not isinstance(text, str):
        return ()
    try:
        rows = json.loads(text)
        return tuple(
            Layer(str(name), str(role), int(inputs), int(outputs), str(after), str(source))
            for name, role, inputs, outputs, after, source in rows
        )
    except (ValueError, TypeError, OverflowError, RecursionError):
        return ()


def bottleneck(run: Run) -> Layer | None:
    """The last layer of a classifier, where it sees too few units to tell its classes apart; None otherwise.

    Scores of C classes are a linear map of the last hidden layer. With fewer than C - 1 units and a bias they cannot be
    set apart from each other freely (the softmax bottleneck, Yang et al. 2018). Large vocabularies do well with far
    fewer units; to write down which of C classes it is, each unit as good as a bit, takes log2 C. Twice that is asked.
    """
    known = classes(run)
    last = next((layer for layer in reversed(layers_of(run)) if layer.role == "affine"), None)
    if known is None or last is None or last.outputs != known:
        return None
    return last if 0 < last.inputs < min(known - 1, 2 * math.log2(known)) else None


def weight_of(layer: Layer, names: Container[str]) -> str:
    """The name of a layer's weight among those of parameters, "" where it is not there."""
    return next((n for n in (f"{layer.name}.weight", f"{layer.name}/kernel") if n in names), "")  # torch, Keras


def weights_in_order(run: Run, quantity: Quantity) -> list[Series]:
    """The series of the weights of affine layers, input first; of comparable names where the order is unknown."""
    series = run.layers(quantity)
    known = [weight_of(layer, series) for layer in layers_of(run) if layer.role == "affine"]
    ordered = [series[name] for name in known if name]
    return ordered if len(ordered) > 1 else layers_by_depth(series)


def hidden_weights(run: Run, quantity: Quantity) -> list[Series]:
    """The series of the affine layers before the last one, input first.

    Where the run does not say what its layers are: of layers whose names differ in their numbers only, all but the
    last.
    """
    series = run.layers(quantity)
    known = [layer.name for layer in layers_of(run) if layer.role == "affine" and layer.name in series]
    ordered = [series[name] for name in known] if known else layers_by_depth(series)
    return ordered[:-1]


@dataclass(frozen=True, slots=True, eq=False)
class DepthProfile:
    """A positive quantity along the layers of the model.

    Attributes:
        layers: the series it was made from, input first.
        logs: float64[n], median log10 of each layer.
        slope: decades per layer, input to output (Theil and Sen's).
        order: rank correlation of depth and value, -1 to 1.
    """

    layers: tuple[Series, ...]
    logs: FloatArray
    slope: float
    order: float

    @property
    def total(self) -> float:
        """Decades that the fitted line rises from the first to the last layer."""
        return self.slope * (len(self.logs) - 1)

    def __str__(self) -> str:
        first, last = self.layers[0].signal.layer, self.layers[-1].signal.layer
        return f"{10 ** self.logs[0]:.2g} in {first} to {10 ** self.logs[-1]:.2g} in {last}, {len(self.logs)} layers"


def depth_profile(layers: Iterable[Series], *, records: slice, least: int = 4) -> DepthProfile | None:
    """How a quantity changes along the layers; None with fewer than `least` layers that have a positive value.

    Args:
        layers: one series per layer, input first.
        records: which records of each layer to take the median of.
        least: fewest layers.
    """
    kept, logs = [], []
    for series in layers:
        values = series.values[records]
        values = values[np.isfinite(values) & (values > 0)]
        if len(values):
            kept.append(series)
            logs.append(float(np.median(np.log10(values))))
    if len(kept) < least:
        return None
    y = np.array(logs)
    depth = np.arange(len(y), dtype=np.float64)
    order = 0.0 if np.ptp(y) == 0 else float(np.corrcoef(depth, np.argsort(np.argsort(y)))[0, 1])
    return DepthProfile(tuple(kept), y, trend(y, depth).slope, order)


FIRST = slice(0, 1)
"""The first record, which the monitor takes at the first step: the untrained model."""

LATE = slice(-9, None)
"""The last records."""


def at_start(run: Run, layers: Iterable[Series]) -> bool:
    """Whether the first records show the untrained model."""
    if run.facts.get("resumed_at"):
        return False
    return all(begins_at_start(run, s) or s.span.first <= 1 for s in layers)


def by_layer(run: Run, quantity: Quantity, roles: Iterable[str]) -> dict[str, Series]:
    """The series of layers of some roles, in the order of the forward pass.

    A layer counts by the function that the program applies to its output, too. All layers, in logged order, where
    the run does not say what they are.
    """
    series = run.layers(quantity)
    layers = layers_of(run)
    if not layers:
        return series
    wanted = set(roles)
    return {x.name: series[x.name] for x in layers if x.name in series and (x.role in wanted or x.after in wanted)}
