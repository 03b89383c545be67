"""SCH004 warmup-missing-or-short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_initialisation, clip_gradients, lower_learning_rate, warm_up
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import LOSS
from fitdoctor.stats import mad_sigma, running_median
from fitdoctor.views.curves import begins_at_start, learning_rate, place
from fitdoctor.views.norms import total_gradient_norm
from fitdoctor.views.plans import whole_length

MOST_EARLY = 160
"""Most points by which the beginning is judged; longer ones are reduced to block medians, in linear time."""


@rule(
    "SCH004",
    "warmup-missing-or-short",
    needs=[LOSS],
    explains=["loss-spikes", "gradient-spikes", "best-epoch"],
    since="0.1.0",
)
def warmup_missing_or_short(
    run: Run,
    *,
    opening: float = 0.05,
    rise: float = 0.1,
    full: float = 0.5,
    slow: float = 0.05,
    sigmas: float = 5.0,
    least: int = 20,
) -> Iterator[Finding]:
    """The loss jumps above its start in the first steps at full learning rate, and recovers slowly.

    Why it matters:
        Curvature is highest at the beginning. Full-size steps there throw the weights far off, and the run
        spends its first part getting back to where it began, sometimes in a worse region.

    How it is measured:
        In the first `opening` of the run, with at least `least` logged losses: the running median of the
        loss stands more than `rise` of the first loss, and `sigmas` standard deviations of the noise, above
        the first loss, while the learning rate is at least `full` of its peak. If the loss is back below
        its start within `slow` of the run it was a catapult, which is healthy. A warning when it takes
        longer; a run that never comes back, or never learns, is left to loss-divergence and lr-too-high.

    Options:
        opening: share of the run that counts as its beginning.
        rise: least rise as a share of the first loss.
        full: least learning rate as a share of its peak.
        slow: share of the run within which a recovery is healthy.
        sigmas: least rise in standard deviations of the noise.
        least: fewest logged losses in the opening.

    When it is wrong:
        A bad initialisation shows itself by a loss far above chance at the first step already. Where no
        learning rate is logged it is taken to be at its peak, and confidence is lower.

    What to do:
        Warm up linearly over the first hundreds of steps; clip gradients; then fix the initialisation.

    References:
        Godbole et al. 2023, Deep Learning Tuning Playbook (watch the first 500 steps); Lewkowycz et al. 2020
        on the catapult; Kalra and Barkeshli 2024 on why warm-up works. Shares are design values.
    """
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    whole = whole_length(run)
    length = whole.last - whole.first
    finite = loss.finite
    early = finite.between(whole.first, whole.first + round(opening * length))
    if not begins_at_start(run, finite) or len(early) < least:
        raise CannotJudge(
            f"{len(early)} losses in the first {opening:.0%} of the run, {least} from its first step on are needed"
        )
    start = float(early.values[0])
    finite = _coarse(finite, max(1, len(early) // MOST_EARLY))
    early = finite.between(early.span.first, early.span.last)
    window = max(3, len(early) // 8) | 1
    smooth = running_median(early.values, window)
    top = int(smooth.argmax())
    noise = mad_sigma(np.diff(finite.values[len(early) :])) / np.sqrt(2) if len(finite) > len(early) + 3 else 0.0
    if smooth[top] - start <= max(rise * abs(start), sigmas * noise) or not _at_full_rate(run, early, top, full):
        return
    if not float(np.median(finite.values[-max(3, len(finite) // 10) :])) < start - 0.1 * abs(start):
        return  # it never learned: the rate is too high throughout, not only at first
    after = finite[finite.steps > early.steps[top]]
    back = np.flatnonzero(running_median(after.values, window) <= start)
    onset = int(early.steps[int(np.argmax(smooth > start + 0.5 * (smooth[top] - start)))])
    if not len(back) or int(after.steps[back[0]]) - onset <= slow * length:
        return
    yield _finding(run, early, finite, Span(onset, int(after.steps[back[0]])), start, float(smooth[top]), length)


def _coarse(series: Series, size: int) -> Series:
    """Medians of blocks of `size` points, each at the first step of its block."""
    count = len(series) // size
    kept = series[: count * size : size]
    return replace(kept, values=np.median(series.values[: count * size].reshape(count, size), axis=1))


def _at_full_rate(run: Run, early: Series, top: int, full: float) -> bool:
    rate = learning_rate(run)
    if rate is None or not len(rate.finite):
        return True
    peak = float(rate.finite.values.max())
    seen = rate.finite.at(early.steps[: top + 1])
    seen = seen[np.isfinite(seen)]
    return peak > 0 and bool(len(seen)) and float(seen.max()) >= full * peak


def _finding(run: Run, early: Series, loss: Series, span: Span, start: float, top: float, length: int) -> Finding:
    norm = total_gradient_norm(run)
    evidence = [
        Evidence.of(
            loss,
            f"{top:.4g} within the first {len(early)} points, back at its start only at {place(run, span.last)}",
            f"no rise above {start:.4g}, or a quick recovery",
            marks=((span.first, "jump"), (span.last, "recovered")),
        )
    ]
    if norm is not None and len(norm.finite) > 2 * len(early):
        first = norm.finite.between(early.span.first, early.span.last).values
        late = float(np.median(norm.finite.values[len(first) :]))
        if len(first) and late > 0:
            evidence.append(Evidence.of(norm, f"peak {first.max():.3g} early, median {late:.3g} later"))
    rate = learning_rate(run)
    return Finding(
        message=f"loss jumped from {start:.3g} to {top:.3g} at {place(run, span.first)}, recovered at {span.last}",
        severity=Severity.WARNING,
        confidence=Confidence.LOW if rate is None else Confidence.MEDIUM,
        span=span,
        evidence=tuple(evidence),
        remedies=(
            warm_up(max(10, round(0.05 * length))),
            clip_gradients(),
            check_initialisation(),
            lower_learning_rate(0.3),
        ),
        could_be=("lr-too-high", "bad initialisation"),
        settle_with="the first 5 % of the run once more with a linear warm-up: no jump settles it",
    )
