"""How a rule looks at gradient norms: one norm of the whole model, and comparable layers in depth order."""

from __future__ import annotations

import re

import numpy as np

from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import GRAD_NORM, Signal

ADAPTIVE = ("adam", "lion", "lamb", "adafactor", "rmsprop", "adagrad", "adadelta", "adabelief", "sophia", "muon")
"""Optimizers whose step does not grow with the gradient, by parts of their names."""


def total_gradient_norm(run: Run) -> Series | None:
    """The gradient norm of the whole model: as logged, or the root of the layers' squares where all are.

    Only steps at which every layer was logged count, and layers logged at other steps than the first
    are left out.
    """
    whole = run.get(GRAD_NORM)
    if whole is not None:
        return whole
    layers = list(run.layers(GRAD_NORM).values())
    if not layers:
        return None
    first = max(layers, key=len)
    same = [s for s in layers if len(s) == len(first) and bool(np.array_equal(s.steps, first.steps))]
    if len(same) < max(2, len(layers) // 2):
        return None
    total = np.sqrt(sum(s.values**2 for s in same))
    return Series(
        Signal(GRAD_NORM), first.steps, total, tag=f"root of the squares of {len(same)} layers", per=first.per
    )


def layers_by_depth(layers: dict[str, Series]) -> list[Series]:
    """Comparable layers from input to output: names that differ in their numbers only, weights not biases.

    Of all such groups the largest counts; numbers sort as numbers. Where no names carry numbers, the
    logged order of whatever is neither bias nor normalisation is taken.
    """
    groups: dict[str, list[str]] = {}
    for name in layers:
        if not re.search(r"bias|norm|\bbn|\bln|embed", name.lower()):
            groups.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    if not groups:
        return []
    largest = max(groups.values(), key=len)
    if len(largest) < 2:
        return [layers[name] for names in groups.values() for name in names]
    return [layers[name] for name in sorted(largest, key=_numbers)]


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name))


def adaptive_optimizer(run: Run) -> bool | None:
    """Whether the optimizer's step ignores the gradient's scale; None when the log does not name it."""
    name = str(run.facts.get("optimizer", "")).lower()
    if not name:
        return None
    return any(part in name for part in ADAPTIVE)


def rise_before(values: FloatArray, index: int, window: int = 50) -> float:
    """Decades by which a positive series rose within the `window` points before an index.

    The median of the last 3 finite points against the median of the finite points before the window
    (or of the first half of what there is, when there is no more); 0 with fewer than 6 points.
    """
    past = values[:index]
    past = past[np.isfinite(past) & (past > 0)]
    if len(past) < 6:
        return 0.0
    reference = past[: max(len(past) - window, len(past) // 2)]
    return float(np.log10(np.median(past[-3:])) - np.log10(np.median(reference)))


def is_matrix(name: str) -> bool:
    """Whether a parameter's name is that of a weight matrix: neither bias nor normalisation nor embedding.

    Example:
        >>> is_matrix("fc1.weight"), is_matrix("fc1.bias"), is_matrix("layers.0.norm2.weight")
        (True, False, False)
    """
    return re.search(r"bias|norm|\bbn|\bln|embed", name.lower()) is None
