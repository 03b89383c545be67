"""DAT001 repeated-batch-order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import shuffle_batches
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import LOSS
from fitdoctor.stats import block_edges, mad_sigma
from fitdoctor.views.plans import steps_per_epoch


@rule("DAT001", "repeated-batch-order", needs=[LOSS], since="0.1.0")
def repeated_batch_order(
    run: Run, *, correlation: float = 0.3, z: float = 3.5, epochs: int = 3, batches: int = 20, neighbours: int = 9
) -> Iterator[Finding]:
    """The training loss repeats itself batch by batch in every epoch: the data is not shuffled anew.

    Why it matters:
        With the same batches in the same order, the noise of the gradient repeats as well, and the model
        can learn the order. Sorted data is the worst case: each batch holds one class only.

    How it is measured:
        On training losses logged at evenly spaced steps. What is common to `neighbours` neighbouring batches
        is taken away (with it go trends, and the sawtooth that Adam shows with sound shuffling), the rest is
        scaled to its local spread. Its mean correlation between epochs must exceed `correlation` and `z`
        standard deviations of what independent batches give. The positions that stand out most are left
        out, so that a jump at the start of each epoch is not enough. The rest must be more like itself an epoch later
        than two batches later (half as like at most): a smooth curve, that of full batches or of a loss that explodes,
        and one that swings from step to step repeat themselves without any batches. The epoch length is known from
        the log, or searched for among all periods from `batches` up.

    Options:
        correlation: least mean correlation of the residual loss between epochs.
        z: least correlation in standard deviations of chance; 1.5 more when the epoch length is not known.
        epochs: fewest epochs.
        batches: fewest logged batches in an epoch.
        neighbours: batches over which common changes are taken away.

    When it is wrong:
        Curricula, and batches bucketed by length in a fixed order, repeat on purpose. Logging at a stride that
        does not divide the epoch hides the repetition.

    What to do:
        Shuffle in every epoch; with a DistributedSampler call set_epoch.

    References:
        PyTorch documentation, DistributedSampler.set_epoch: without it the order is the same in every epoch.
        The epochal sawtooth of Adam: arXiv 2410.10056. Thresholds from simulation: one false alarm
        in 4000 shuffled runs of 3 to 11 epochs with 20 to 119 batches.
    """
    loss = run.get(LOSS, per="step") or run.get(LOSS)
    assert loss is not None  # the rule needs it
    values, stride = _even(loss)
    if loss.per == "epoch" or run.step_unit == "epoch" or len(values) < epochs * batches:
        raise CannotJudge(f"{len(values)} evenly spaced losses per batch, {epochs} epochs of {batches} are needed")
    residual = _residual(values, neighbours)
    known = steps_per_epoch(run)
    if known is not None:
        period = round(known / stride)
        if abs(period * stride - known) > 0.01 * stride or period < batches or len(values) < epochs * period:
            raise CannotJudge(f"{len(values)} losses every {stride} steps, {epochs} epochs of {batches} are needed")
    else:
        found = _period(residual, batches, epochs)
        if found is None:
            return
        period = found
    repeated, deviations = _repetition(residual, period)
    # A period that was searched for had many chances to stand out by luck.
    if repeated <= correlation or deviations <= (z if known is not None else z + 1.5):
        return
    if _two_later(residual) > 0.5 * repeated:
        return  # smooth, or swinging: of batches that differ, the second next has nothing in common with this one
    length = period * stride
    yield Finding(
        message=f"training loss repeats batch by batch every {length} steps (correlation {repeated:.2f})",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH if repeated > 0.5 and known is not None else Confidence.MEDIUM,
        span=loss.span,
        evidence=(
            Evidence.of(
                loss,
                f"correlation {repeated:.2f} between epochs, {deviations:.0f} standard deviations above chance",
                "about 0 when every epoch has its own order",
                marks=tuple((int(loss.steps[0]) + length * k, "order begins again") for k in range(1, 4)),
            ),
        ),
        remedies=(shuffle_batches(),),
        could_be=("a curriculum, or batches in a fixed order on purpose",),
        settle_with="hash the sample indices of two epochs and compare (two passes over the sampler)",
    )


def _even(loss: Series) -> tuple[FloatArray, int]:
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


def _residual(values: FloatArray, neighbours: int) -> FloatArray:
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


def _two_later(residual: FloatArray) -> float:
    """Correlation of the residual with itself two batches later."""
    total = float((residual**2).mean())
    return float((residual[:-2] * residual[2:]).mean()) / total if total > 0 else 0.0


def _period(residual: FloatArray, batches: int, epochs: int) -> int | None:
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


def _repetition(residual: FloatArray, period: int) -> tuple[float, float]:
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
