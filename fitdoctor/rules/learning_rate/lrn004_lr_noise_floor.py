"""LRN004 lr-noise-floor."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import average_weights, decay_learning_rate
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, PROBE_LOSS
from fitdoctor.views.curves import find_curve, held_out, jitter, learning_rate, need_curve, rate_left, settled_after
from fitdoctor.views.steps import step_quality


@rule(
    "LRN004",
    "lr-noise-floor",
    needs=[LOSS],
    explains=["plateau", "val-set-too-noisy"],
    since="0.1.0",
    state=True,
    live=False,
)
def lr_noise_floor(run: Run, *, share: float = 0.3, jump: float = 0.01) -> Iterator[Finding]:
    """The loss rests on a floor of noise that a constant learning rate keeps up.

    Why it matters:
        At a constant rate the weights do not settle: they wander in a ball around the minimum, and the loss
        stays above it. Annealing at the end is often the cheapest gain left.

    How it is measured:
        The learning rate is logged and stays above 30 % of its peak; over the last `share` of the run the
        loss has no significant trend, while the loss on the same validation data still jumps by more than
        `jump` of its range from evaluation to evaluation. A fixed batch (``probe_train``) that the hooks evaluate
        shows the trend without the noise of the batches, and stands in for validation data that are evaluated too
        rarely; a step quality of 0.98 or more acquits the rate. A note: only an annealed branch shows the gain.

    Options:
        share: share of the run at its end.
        jump: least jitter of the validation loss as a share of the range covered.

    When it is wrong:
        A small validation set magnifies tiny changes of the weights.

    What to do:
        Decay the rate to about zero, or average the weights.

    References:
        Godbole et al. 2023 (variance late in training: decay, averaging, larger batches); Izmailov et al.
        2018 (weight averaging). Thresholds are design values.
    """
    rate = learning_rate(run)
    curve = need_curve(run, LOSS, least=20)
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=20) if split else None
    probed = find_curve(run, PROBE_LOSS, least=20)
    val = val or probed
    left = rate_left(run, share)
    if rate is None or left is None:
        raise CannotJudge("no learning rate logged")
    if val is None:
        raise CannotJudge("fewer than 20 evaluations of a held-out loss")
    if left < 0.3 or val.swing <= 0 or curve.swing <= 0:
        return
    quality = step_quality(run)
    if quality is not None and quality.late >= 0.98:
        return  # steps too short to keep up any noise
    flat = (probed or curve).tail_trend(share)
    if min(flat.p_down, flat.p_up) < 0.05 or jitter(val, share) < jump * val.swing:
        return
    since = int(curve.steps[min(len(curve) - 1, round(settled_after(curve) * len(curve)))])
    yield Finding(
        message=f"loss rests at {curve.final:.4g} and jitters at a constant learning rate",
        severity=Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=Span(since, int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"jitter {jitter(val, share):.2g}, {jitter(val, share) / val.swing:.1%} of its range",
            ),
            Evidence.of(rate, f"{left:.0%} of its peak over the last {share:.0%}", "annealed to about zero"),
        ),
        remedies=(decay_learning_rate(), average_weights()),
        could_be=("converged",),
        settle_with="anneal the rate to 0 over 5-10 % of the budget from the last checkpoint",
    )
