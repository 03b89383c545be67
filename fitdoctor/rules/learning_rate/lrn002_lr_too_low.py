"""LRN002 lr-too-low."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.curves import Curve, find_curve, held_out, learning_rate, need_curve, place, rate_clock
from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import raise_learning_rate, search_learning_rate, stretch_schedule
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOSS
from fitdoctor.stats import noise_scale, trend


@rule(
    "LRN002",
    "lr-too-low",
    needs=[LOSS],
    explains=["no-learning", "undertrained", "underfitting", "val-better-than-train", "val-set-too-noisy", "plateau"],
    since="0.1.0",
    state=True,
    live=False,
)
def lr_too_low(run: Run, *, straight: float = 0.25, moved: float = 0.5, quiet: float = 0.05) -> Iterator[Finding]:
    """The loss falls slowly, smoothly and almost in a straight line until the end.

    Why it matters:
        A loss that still falls nearly as fast at the end as at the beginning has used its budget to cover
        the first stretch of the way. Longer steps would have covered it sooner.

    How it is measured:
        Time is counted in learning rate: the sum of the rates so far, since a loss at rates too low to overshoot
        depends on that sum alone (so a warm-up or an annealing does not bend the curve). On the quieter of
        training and validation loss: the last third gains at least `straight` of what the first third
        gained, the fall is significant over the last third, the loss has lost less than `moved` of its
        first value, its jitter at high rates is below `quiet` of the range, and accuracy, where logged, rises by
        more than its noise. A log alone cannot tell this from a run that is merely too short; the finding says so.

    Options:
        straight: gain of the last third over gain of the first third.
        moved: largest share of the first loss that may already be gone.
        quiet: largest jitter as a share of the range covered.

    When it is wrong:
        Long plateaus before a drop, curricula, and warm-ups that last a third of the run bend the curve the
        same way; fine-tuning uses small rates on purpose.

    What to do:
        A range test, or raise the rate threefold until the loss turns rough, then step back once. If the
        rate is at its edge already, train longer.

    References:
        Smith 2017 (range test); Godbole et al. 2023. The ratio of thirds was calibrated on DeepOBS
        cifar10_3c3d (Schneider et al. 2019): 0.37-1.1 at rates labelled too low, at most 0.11 at healthy ones.
    """
    train = need_curve(run, LOSS, least=12)
    if run.finished is False and run.facts.get("planned_steps"):
        planned = float(run.facts["planned_steps"])
        if planned > 1.5 * train.steps[-1]:
            raise CannotJudge(f"the run is at {place(run, int(train.steps[-1]))} of {planned:.0f} planned steps")
    first, end = train.series.span.first, train.series.span.last
    if first > end - first:
        raise CannotJudge(f"the log begins at {place(run, first)}; how far the loss had come before is not in it")
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=12) if split else None
    curve = min((c for c in (train, val) if c is not None), key=lambda c: c.noise / max(c.swing, 1e-300))
    stretch = _thirds(run, curve)
    if stretch is None or curve.start <= 0 or (curve.start - curve.final) > moved * curve.start:
        return
    early, last, p = stretch
    if early <= 0 or last < straight * early or p > 1e-3 or last < 4 * curve.noise:
        return
    if _jitter(run, curve) > quiet * curve.swing or train.final > train.start:
        return
    accuracy = find_curve(run, ACCURACY, least=12) or (find_curve(run, ACCURACY, split, least=12) if split else None)
    if accuracy is not None and not _rises(accuracy):
        return  # the loss falls without anything being learned
    rate = learning_rate(run)
    current = float(rate.finite.values.max()) if rate is not None and len(rate.finite) else None
    yield Finding(
        message="loss falls in a nearly straight line, "
        f"only {(curve.start - curve.final) / curve.start:.1%} down at the end",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                curve.series,
                f"the last third gained {last:.3g}, the first third {early:.3g}; jitter {curve.noise:.2g}",
                f"a last third that gains less than {straight:.0%} of the first",
            ),
        ),
        remedies=(search_learning_rate(), raise_learning_rate(3.0, current=current), stretch_schedule(3.0)),
        could_be=("undertrained",),
        settle_with="train the first tenth of the steps again at 3 and 10 times the rate: "
        "faster and as smooth means too low",
    )


def _rises(accuracy: Curve) -> bool:
    """Whether accuracy rises over the run, by more than its noise."""
    whole = accuracy.tail_trend(1.0)  # curves are flipped: down is better
    return whole.p_down < 0.05 and -whole.change > 3 * accuracy.noise


def _jitter(run: Run, curve: Curve) -> float:
    """Noise of the curve while the rate was above half its peak: annealing quiets any curve."""
    pace = np.diff(rate_clock(run, curve)) / np.maximum(np.diff(curve.steps), 1)
    fast = curve.values[1:][pace >= 0.5 * pace.max()]
    return max(curve.noise, noise_scale(fast)) if len(fast) >= 20 else curve.noise  # a short fall looks like noise


def _thirds(run: Run, curve: Curve) -> tuple[float, float, float] | None:
    """Gain of the first and of the last third of the rate clock, and the p-value that the last third falls."""
    clock = rate_clock(run, curve)
    one, two = (int(np.searchsorted(clock, share)) for share in (1 / 3, 2 / 3))
    if one < 2 or len(curve) - two < 4:
        return None
    late = trend(curve.values[two:])
    return curve.start - float(curve.smooth[one]), float(curve.smooth[two]) - curve.final, late.p_down
