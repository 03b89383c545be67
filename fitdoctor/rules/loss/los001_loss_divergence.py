"""LOS001 loss-divergence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import lower_learning_rate, overfit_one_batch
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS
from fitdoctor.views.curves import Curve, find_curve, held_out, need_curve, place


@rule(
    "LOS001",
    "loss-divergence",
    needs=[LOSS],
    explains=["nonfinite-loss", "plateau", "best-epoch", "underfitting", "val-set-too-noisy", "undertrained"],
    since="0.1.0",
    vital=True,
)
def loss_divergence(
    run: Run, *, rise: float = 0.2, returned: float = 0.5, sigmas: float = 5.0, hold: float = 0.1
) -> Iterator[Finding]:
    """The training loss ends far above its best value.

    Why it matters:
        Training undid what it had learned. A rising training loss is never what the optimizer was asked
        for: it means steps that are too long, a bug, or damaged numerics.

    How it is measured:
        On the smoothed training loss. The level of the last `hold` of the run is compared with the best
        value before. It diverged when the rise exceeds `sigmas` noise standard deviations and either
        `rise` of the first logged loss (of the gain, where the loss fell below zero) or `returned` of all that
        training had gained. A note where the held-out loss is at its best at the end: then the training data turned
        harder. A loss below zero of an unknown kind is not judged where no held-out loss is logged.

    Options:
        rise: share of the first logged loss.
        returned: share of the gain (first value minus best) that was lost again.
        sigmas: least rise in standard deviations of the curve's noise.
        hold: share of the run at its end over which the level is taken.

    When it is wrong:
        A run stopped in the middle of a recoverable spike, or just after a warm restart of the
        learning rate, looks the same; curricula that turn harder raise the loss on purpose.

    What to do:
        Go back to the last good checkpoint with a lower learning rate; if the loss rises at any rate,
        overfit one batch to find the bug.

    References:
        Godbole et al. 2023, Deep Learning Tuning Playbook: a rising training loss usually indicates a bug.
        The 20 % and 5-sigma floors are design values, checked on the DeepOBS learning-rate grids.
    """
    curve = need_curve(run, LOSS)
    best, index = curve.best, curve.best_index
    level = float(np.median(curve.tail(hold)))
    lost = level - best
    gained = max(curve.start - best, 0.0)
    size = max(abs(curve.start), gained)  # a loss that falls below zero has no zero to be measured from
    enough = lost > rise * size or (gained > 0 and lost > max(returned * gained, rise * abs(best)))
    if index >= len(curve) - 3 or lost <= sigmas * curve.noise or not enough:
        return
    if level < 0 and "loss_function" not in run.facts and not held_out(run):
        raise CannotJudge(
            "a loss below zero that shrinks, as the surrogate of a policy gradient does where it succeeds; "
            "log the reward, or a held-out loss"
        )
    harmless = _held_out_best_at_the_end(run)
    onset = _onset(curve, index, best + 0.5 * min(lost, rise * size + sigmas * curve.noise))
    yield Finding(
        message=f"training loss rose from {best:.4g} to {level:.4g} after {place(run, curve.best_step)}",
        severity=Severity.NOTE if harmless else Severity.ERROR,
        confidence=Confidence.MEDIUM if harmless else Confidence.HIGH,
        span=Span(onset, int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                curve.series,
                f"{level:.4g} over the last {hold:.0%} of the run",
                f"near its best, {best:.4g} ({place(run, curve.best_step)})",
                marks=((curve.best_step, "best"), (onset, "onset")),
            ),
        ),
        remedies=(lower_learning_rate(), overfit_one_batch()),
        could_be=("data that turn harder, as in a curriculum",)
        if harmless
        else ("lr-too-high", "exploding-gradients", "a bug in the loss"),
        settle_with="resume from the best checkpoint at a tenth of the learning rate for 5 % of the steps",
    )


def _held_out_best_at_the_end(run: Run) -> bool:
    """Whether the held-out loss fell, and ends within its noise of its best."""
    split = held_out(run)
    val = find_curve(run, LOSS, split) if split else None
    if val is None or val.start - val.final < 5 * val.noise:
        return False
    return val.final - val.best <= max(3 * val.noise, 0.05 * val.swing) and val.best_index > 0.6 * len(val)


def _onset(curve: Curve, after: int, threshold: float) -> int:
    above = np.nonzero(curve.smooth[after:] <= threshold)[0]
    last_below = after + int(above[-1]) if len(above) else after
    return int(curve.steps[min(last_below + 1, len(curve) - 1)])
