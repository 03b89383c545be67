"""In which order batches come, as the training loss of each shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import LOSS
from fitdoctor.stats import block_edges, mad_sigma
from fitdoctor.views.curves import held_out
from fitdoctor.views.plans import steps_per_epoch

BATCHES, EPOCHS = 20, 3
"""Fewest batches in an epoch, and fewest epochs in the half of the run that is looked at, to tell sorted data."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Batches whose neighbours are like them, in the same order in every epoch.

    Attributes:
        loss: the training loss, per step.
        period: steps of an epoch.
        next: correlation of a batch's loss with that of the next, within the epoch.
        again: correlation with that of the same place in the next epoch.
    """

    loss: Series
    period: int
    next: float
    again: float


def sorted_blocks(run: Run, *, alike: float = 0.35, again: float = 0.45) -> Blocks | None:
    """Whether batches come sorted: each is like the next one, and like the one an epoch later; None otherwise.

    On the logarithm of the training loss over the second half of the run, less its average over an epoch and less what
    all epochs have in common as a smooth curve (the sawtooth that Adam shows with sound shuffling; regressed on a
    parabola and a decay). Batches of a fixed order that is no sorting have nothing to do with their neighbours.

    Args:
        run: the run; its loss has to be logged at every step.
        alike: least correlation of neighbours.
        again: least correlation between epochs.
    """
    loss = run.get(LOSS, per="step") or run.get(LOSS)
    if loss is None or loss.per == "epoch" or run.step_unit == "epoch":
        return None
    values, stride = even(loss)
    if stride != 1 or len(values) < 2 * EPOCHS * BATCHES or values.min() <= 0:
        return None
    period = steps_per_epoch(run) or _between_evaluations(run) or period_of(residual_of(values, 9), BATCHES, EPOCHS)
    if period is None or period < BATCHES or len(values) < 2 * EPOCHS * period:
        return None
    count = len(values) // 2 // period
    late = np.log(values[-(count + 1) * period :])
    level = np.convolve(late, np.ones(period) / period, mode="valid")[: count * period]
    rest = late[period // 2 :][: count * period] - level
    phase = np.tile(np.arange(period) / period, count)
    common = np.stack([np.ones_like(phase), phase, phase**2, np.exp(-30 * phase)], axis=1)
    rest = rest - common @ np.linalg.lstsq(common, rest, rcond=None)[0]
    spread = mad_sigma(rest)
    if spread <= 0:
        return None
    scaled = np.clip(rest / spread, -3, 3)
    one, whole = _correlation(scaled, 1), _correlation(scaled, period)
    return Blocks(loss, period, one, whole) if one >= alike and whole >= again else None


def _between_evaluations(run: Run) -> int | None:
    """Steps from one held-out evaluation to the next, which mostly is an epoch."""
    split = held_out(run)
    series = run.get(LOSS, split) if split else None
    return int(np.median(np.diff(series.steps))) if series is not None and len(series) > EPOCHS else None


def _correlation(values: FloatArray, lag: int) -> float:
    total = float((values**2).mean())
    return float((values[lag:] * values[:-lag]).mean()) / total if total > 0 else 0.0


def even(loss: Series) -> tuple[FloatArray, int]:
    """Values of the longest stretch of finite losses at one stride, and the stride."""
    finite = loss.finite
    if len(finite) < 3:
        return finite.values[:0], 1
    gaps = np.diff(finite.steps)
    stride = int(np.median(gaps))
    breaks = np.flatnonzero(gaps != stride)
    begins, ends = np.append(0, breaks + 1), np.append(breaks + 1, len(finite))
    longest = int((ends - begins).argmax())
    return finite.values[begins[longest] : ends[longest]], stride


def residual_of(values: FloatArray, neighbours: int) -> FloatArray:
    """What a value does not share with its neighbours, in units of the local spread, cut at 3."""
    kernel = np.ones(neighbours) / neighbours
    padded = np.pad(values, neighbours // 2, mode="edge")
    rest = values - np.convolve(padded, kernel, mode="valid")[: len(values)]
    scaled = np.zeros(len(rest))
    edges = block_edges(len(rest), max(1, len(rest) // 50))
    for a, b in pairwise(edges):
        spread = mad_sigma(rest[a:b])
        scaled[a:b] = (rest[a:b] - np.median(rest[a:b])) / spread if spread > 0 else 0.0
    return np.clip(scaled, -3, 3)


def two_later(residual: FloatArray) -> float:
    """Correlation of the residual with itself two batches later."""
    total = float((residual**2).mean())
    return float((residual[:-2] * residual[2:]).mean()) / total if total > 0 else 0.0


def period_of(residual: FloatArray, batches: int, epochs: int) -> int | None:
    """The shortest period at which the residual correlates with itself, twice over."""
    n = len(residual)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(residual - residual.mean(), size)
    power = np.fft.irfft(spectrum * np.conj(spectrum), size)[:n]
    if power[0] <= 0:
        return None
    correlation = power * n / (power[0] * np.arange(n, 0, -1))
    lags = np.arange(batches, n // epochs + 1)
    # About sqrt(2 ln n) standard deviations is the largest value that chance gives among n lags.
    least = np.maximum((math.sqrt(2 * math.log(n)) + 2) / np.sqrt(n - lags), 0.15)
    good = lags[(correlation[lags] > least) & (correlation[np.minimum(2 * lags, n - 1)] > 0.5 * correlation[lags])]
    if not len(good):
        return None
    top = float(correlation[good].max())
    return int(good[np.argmax(correlation[good] >= 0.8 * top)])


def repetition(residual: FloatArray, period: int) -> tuple[float, float]:
    """Mean correlation between epochs, and how many standard deviations of chance it is."""
    count = len(residual) // period
    table = residual[: count * period].reshape(count, period)
    table = table - table.mean(axis=1, keepdims=True)
    keep = np.argsort(np.abs(table.mean(axis=0)))[: period - max(3, period // 10)]
    table = table[:, np.sort(keep)]
    total = float((table**2).sum())
    if total <= 0 or count < 2:
        return 0.0, 0.0
    shared = (float((table.sum(axis=0) ** 2).sum()) - total) / ((count - 1) * total)
    chance = math.sqrt(2 / (count * (count - 1) * table.shape[1]))
    return shared, shared / chance
