"""GRD004 gradient-clipping-saturated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import lower_learning_rate, raise_clip_norm
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import GRAD_NORM, GRAD_NORM_CLIPPED, LOSS, Signal
from fitdoctor.stats import block_edges
from fitdoctor.views.curves import Curve, find_curve
from fitdoctor.views.norms import adaptive_optimizer


@rule(
    "GRD004",
    "gradient-clipping-saturated",
    needs=[(Signal(GRAD_NORM), Signal(GRAD_NORM_CLIPPED))],
    explains=["undertrained", "lr-too-low", "underfitting", "no-learning", "lr-noise-floor", "plateau"],
    since="0.1.0",
)
def gradient_clipping_saturated(
    run: Run, *, share: float = 0.5, late: float = 0.3, pinned: float = 1e-3, gain: float = 0.03
) -> Iterator[Finding]:
    """Most steps are clipped, so that the threshold sets the step length.

    Why it matters:
        With SGD the learning rate then multiplies a gradient of constant length: tuning the rate and
        tuning the threshold become the same thing, and the step no longer shrinks near a minimum.

    How it is measured:
        Over the last `late` of the run, the share of logged norms above the clipping threshold. The threshold
        is a fact of the run, or the value at which logged norms are pinned: more than `share` of them equal
        to the largest one within `pinned` can only be norms taken after clipping. Beyond `share` it is a
        note. It is a warning when the optimizer is not adaptive and the training or validation loss is held
        back: still falling (a quarter more training would gain `gain` of the range, or it falls while it
        stands above half of its start), or never left its start.

    Options:
        share: share of clipped steps.
        late: share of the run at its end that is judged; clipping during warm-up is usual.
        pinned: relative distance from the largest norm.
        gain: least forecast gain, as a share of the range, that counts as still falling.

    When it is wrong:
        Large language models are often trained with most steps clipped at 1.0, on purpose; Adam rescales
        what clipping shortened. These are notes.

    What to do:
        Raise the threshold to the 90th percentile of the norms before clipping, or lower the learning rate
        and drop clipping.

    References:
        Godbole et al. 2023, Deep Learning Tuning Playbook: more than 50 % clipped is extremely aggressive;
        take the 90th percentile.
    """
    clipped = _from_threshold(run, late) or _from_pinned(run, late, pinned, share)
    if clipped is None:
        raise CannotJudge(
            "the clipping threshold is not known; set the fact clip_norm, or log the norm before clipping"
        )
    if clipped.share <= share:
        return
    curves = [c for c in (find_curve(run, LOSS), find_curve(run, LOSS, "val")) if c is not None]
    adaptive = adaptive_optimizer(run)
    harmed = any(_harmed(c, gain) for c in curves)
    onset = _onset(clipped, share)
    yield _finding(run, clipped, curves[:1], onset, warn=harmed and adaptive is False)


@dataclass(frozen=True, slots=True, eq=False)
class _Clipped:
    """How much of the late run is clipped.

    Attributes:
        norm: the norms it was read from.
        share: share of clipped points.
        threshold: the clipping threshold.
        p90: 90th percentile of the norms before clipping; nan when only clipped ones were logged.
    """

    norm: Series
    share: float
    threshold: float
    p90: float


def _late(series: Series, late: float) -> Series:
    finite = series.finite
    return finite[len(finite) - max(1, round(late * len(finite))) :]


def _from_threshold(run: Run, late: float) -> _Clipped | None:
    norm, threshold = run.get(GRAD_NORM), run.facts.get("clip_norm")
    if norm is None or not isinstance(threshold, (int, float)) or isinstance(threshold, bool) or threshold <= 0:
        return None
    tail = _late(norm, late).values
    if len(tail) < 20:
        raise CannotJudge(f"{len(tail)} gradient norms in the last {late:.0%}, 20 are needed")
    if tail.max() <= threshold * 1.001:
        return None  # never above it: either never clipped, or taken after clipping; see _from_pinned
    return _Clipped(norm, float(np.mean(tail > threshold)), float(threshold), float(np.quantile(tail, 0.9)))


def _from_pinned(run: Run, late: float, pinned: float, share: float) -> _Clipped | None:
    for quantity in (GRAD_NORM_CLIPPED, GRAD_NORM):
        norm = run.get(quantity)
        if norm is None:
            continue
        tail = _late(norm, late).values
        if len(tail) < 10:
            raise CannotJudge(f"{len(tail)} gradient norms in the last {late:.0%}, 10 are needed")
        top = float(tail.max())
        # A norm that is equal at every point is not a clipped gradient but a constant column.
        at_top = float(np.mean(tail >= top * (1 - pinned)))
        varies = bool(np.ptp(norm.finite.values) > 10 * pinned * top)
        if top > 0 and at_top > share and varies:
            return _Clipped(norm, at_top, top, float("nan"))
        threshold = run.facts.get("clip_norm")
        if quantity is GRAD_NORM_CLIPPED or isinstance(threshold, (int, float)):
            return _Clipped(norm, at_top if top > 0 else 0.0, top, float("nan"))
    return None


def _harmed(curve: Curve, gain: float) -> bool:
    if curve.start <= 0 or curve.swing <= 0:
        return False
    held_back = curve.final > 0.5 * curve.start and curve.tail_trend(0.5).p_down < 0.01
    idle = curve.final > 0.9 * curve.start
    return idle or held_back or curve.gain_ahead() >= gain * curve.swing


def _onset(clipped: _Clipped, share: float) -> int:
    """First step of the first of 20 blocks from which on every block is clipped beyond `share`."""
    norm = clipped.norm.finite
    edges = block_edges(len(norm), 20)
    level = clipped.threshold * (1 - 1e-3) if np.isnan(clipped.p90) else clipped.threshold
    low = [i for i, (a, b) in enumerate(pairwise(edges)) if np.mean(norm.values[a:b] > level) <= share]
    first = min(low[-1] + 1, len(edges) - 2) if low else 0
    return int(norm.steps[edges[first]])


def _unclipped(run: Run, clipped: _Clipped) -> float | None:
    """90th percentile of the norms before clipping, of the whole run; None where only clipped ones are known."""
    norm = run.get(GRAD_NORM)
    if norm is None or not len(norm.finite):
        return None
    p90 = float(np.quantile(norm.finite.values, 0.9))
    return p90 if p90 > 1.01 * clipped.threshold else None


def _finding(run: Run, clipped: _Clipped, curves: list[Curve], onset: int, *, warn: bool) -> Finding:
    known = np.isfinite(clipped.p90)
    evidence = [
        Evidence.of(
            clipped.norm,
            f"{clipped.share:.0%} of the last norms {'above' if known else 'pinned at'} {clipped.threshold:.3g}",
            "at most half, better a tenth",
            marks=((onset, "most steps clipped"),),
        )
    ]
    evidence += [Evidence.of(c.series, f"{c.final:.4g} at the end") for c in curves]
    words = "" if known else " (the logged norm is pinned there)"
    message = f"{clipped.share:.0%} of the late steps are clipped at a gradient norm of {clipped.threshold:.3g}{words}"
    return Finding(
        message=message,
        severity=Severity.WARNING if warn else Severity.NOTE,
        confidence=Confidence.HIGH if known else Confidence.MEDIUM,
        span=Span(onset, clipped.norm.span.last),
        evidence=tuple(evidence),
        remedies=(
            raise_clip_norm(_unclipped(run, clipped), current=clipped.threshold),
            lower_learning_rate(0.3),
        ),
        could_be=("lr-too-high",) if warn else (),
        settle_with="a run with the threshold at the 90th percentile of the norms, for a tenth of the steps"
        if warn
        else "",
    )
