"""Layer by step: what was logged per layer, small enough to draw."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fitdoctor.run import FloatArray, IntArray, Run, Series, Span
from fitdoctor.signals import (
    LOSS_PART,
    LR,
    METRICS,
    MOMENTUM,
    QUANTITIES,
    WEIGHT_DECAY,
    Quantity,
)

MOST_COLUMNS = 60
"""Stretches of steps that a map tells apart: at 380 px of width still 4 px each."""

MOST_ROWS = 120
"""Rows of a map; of a deeper model neighbouring layers share one."""

NOT_OF_LAYERS = frozenset({LR, MOMENTUM, WEIGHT_DECAY, LOSS_PART, *METRICS})
"""Quantities whose `layer` names a parameter group, a component of the loss or a metric."""


@dataclass(frozen=True, slots=True)
class LayerMap:
    """One quantity of all layers over the steps.

    Attributes:
        quantity: what was measured.
        layers: name of each row, in logged order; ``"a … b (3 layers)"`` where layers share a row.
        spans: the steps of each column.
        values: row by row, the value of largest magnitude in each stretch; nan or inf where one was logged, None
            where nothing was.
    """

    quantity: Quantity
    layers: tuple[str, ...]
    spans: tuple[Span, ...]
    values: tuple[tuple[float | None, ...], ...]


def layer_maps(run: Run) -> tuple[LayerMap, ...]:
    """The maps of every quantity that was logged for two layers or more."""
    return tuple(
        _layer_map(quantity, layers)
        for quantity in QUANTITIES.values()
        if quantity not in NOT_OF_LAYERS and len(layers := run.layers(quantity)) > 1
    )


def _layer_map(quantity: Quantity, layers: dict[str, Series]) -> LayerMap:
    steps = np.unique(np.concatenate([s.steps for s in layers.values()]))
    firsts = _firsts(steps)
    lasts = np.append(steps[np.searchsorted(steps, firsts[1:]) - 1], steps[-1])
    names = list(layers)
    rows = min(len(names), MOST_ROWS)
    edges = np.linspace(0, len(names), rows + 1).round().astype(int)
    groups = [names[a:b] for a, b in pairwise(edges)]
    pieces = [np.stack([_largest(layers[name], firsts) for name in group]) for group in groups]
    return LayerMap(
        quantity,
        tuple(g[0] if len(g) == 1 else f"{g[0]} … {g[-1]} ({len(g)} layers)" for g in groups),
        tuple(Span(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True)),
        tuple(tuple(_shown(v, told) for v, told in zip(*_together(piece), strict=True)) for piece in pieces),
    )


def _firsts(steps: IntArray) -> IntArray:
    """The first step of each column, int64[columns]: each step its own, or stretches of equal length."""
    if len(steps) <= MOST_COLUMNS:
        return steps
    # As Python integers: the difference of two steps may not fit into int64.
    first, last = int(steps[0]), int(steps[-1])
    edges = np.array([first + (last - first) * i // MOST_COLUMNS for i in range(MOST_COLUMNS)], dtype=np.int64)
    at = np.unique(np.searchsorted(steps, edges))
    return steps[at]


def _largest(series: Series, firsts: IntArray) -> FloatArray:
    """Of each column the value of largest magnitude, and 1 where there is any: float64[columns, 2]."""
    column = np.searchsorted(firsts, series.steps, side="right") - 1
    values = series.values
    # nan outranks all: sorted by column, then magnitude, the last of each column is the one to keep.
    order = np.lexsort((np.where(np.isnan(values), np.inf, np.abs(values)), column))
    out = np.zeros((len(firsts), 2))
    out[column[order], 0] = values[order]
    out[column[order], 1] = 1.0
    return out


def _together(piece: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of layers that share a row, float64[layers, columns, 2], the value of largest magnitude and whether any is."""
    values, told = piece[..., 0], piece[..., 1]
    size = np.where(told > 0, np.where(np.isnan(values), np.inf, np.abs(values)), -1.0)
    best = size.argmax(axis=0)
    columns = np.arange(values.shape[1])
    return values[best, columns], told.max(axis=0)


def _shown(value: float, told: float) -> float | None:
    # Three digits: a colour shows no more, and the page has to stay small.
    return float(f"{value:.3g}") if told else None
