"""LRN005 edge-of-stability."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import STEP_QUALITY
from fitdoctor.views.curves import learning_rate
from fitdoctor.views.norms import adaptive_optimizer
from fitdoctor.views.steps import progress, step_quality, training_curve


@rule("LRN005", "edge-of-stability", needs=[STEP_QUALITY], explains=["loss-spikes"], since="0.1.0", state=True)
def edge_of_stability(run: Run, *, edge: float = 0.5, gain: float = 0.03) -> Iterator[Finding]:
    """Steps are about as long as the curvature allows, the loss jitters, and training gets on.

    Why it matters:
        It looks like a rate that is too high and is not one: at the edge of stability the loss oscillates from
        step to step and falls in the long run. A lower rate would only make it slower.

    How it is measured:
        The median step quality (actual over promised decrease of the same batch) is below `edge` in the second
        half of the steps at full rate, while the training loss, of a fixed batch in eval mode where there is one,
        falls significantly over the last 60 % by at least `gain` of its range (or ten times that share of its level
        there, where little of the range is left). Always a note, and with it
        lr-too-high says nothing of short steps. Not judged for adaptive optimizers, whose preconditioned edge the
        step quality does not show.

    Options:
        edge: median step quality below which steps are near the edge: at 0.5 within a factor of two.
        gain: least progress over the last 60 %, as a share of the range.

    When it is wrong:
        A rate that is being annealed leaves the edge by itself; only steps above half the peak rate count.

    What to do:
        Nothing. Do not lower the rate because of the oscillation; anneal it at the end, as for any run.

    References:
        Cohen et al. 2021 (sharpness hovers at 2 / rate); Xing et al. 2018, A Walk with SGD; Lewkowycz et al. 2020
        (catapult). On quadratics the quality is 0.16 to 0.23 at 0.9 of the stable rate and 0.8 at 0.3 of it.
    """
    quality = step_quality(run)
    if quality is None:
        raise CannotJudge("fewer than 10 probed steps (step_quality) at more than half the peak learning rate")
    adaptive = adaptive_optimizer(run)
    if adaptive is None:
        raise CannotJudge("the optimizer is not known; set the fact optimizer")
    if adaptive or not quality.late < edge:
        return
    curve = training_curve(run)
    gained = progress(curve, 0.6)
    before = float(np.median(curve.values[: max(3, round(0.4 * len(curve)))][-3:]))
    if (
        max(gained, 0.1 * (1 - curve.final / before) if gained > 0 < before else 0.0) < gain
        or curve.final > curve.start
    ):
        return
    rate = learning_rate(run)
    evidence = [
        Evidence.of(
            quality.series, f"median {quality.late:.2g} over the second half", f"{edge:g} to 1 far from the edge"
        ),
        Evidence.of(curve.series, f"fell by {gained:.0%} of its range over the last 60 %", f"at least {gain:.0%}"),
    ]
    if rate is not None and len(rate.finite):
        evidence.append(Evidence.of(rate, f"peak {float(rate.finite.values.max()):.3g}"))
    yield Finding(
        message=f"steps are at the edge of stability (quality {quality.late:.2g}), and training gets on",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH if quality.late < edge / 2 else Confidence.MEDIUM,
        span=Span(int(quality.series.steps[len(quality.series) // 2]), int(quality.series.steps[-1])),
        evidence=tuple(evidence),
    )
