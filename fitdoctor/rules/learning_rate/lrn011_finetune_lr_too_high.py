"""LRN011 finetune-lr-too-high."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import warm_up
from fitdoctor.remedies.optimizer import fine_tune_gently
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, UPDATE_RATIO
from fitdoctor.stats import running_median
from fitdoctor.views.curves import begins_at_start, chance_loss, find_curve, held_out, learning_rate, need_curve, place
from fitdoctor.views.steps import first_updates


@rule(
    "LRN011",
    "finetune-lr-too-high",
    needs=[LOSS],
    explains=[
        "lr-too-high",
        "loss-divergence",
        "loss-spikes",
        "warmup-missing-or-short",
        "no-learning",
        "underfitting",
        "class-collapse",
        "dead-relu",
        "input-collapse",
        "saturated-activations",
        "best-epoch",
        "exploding-gradients",
        "undertrained",
        "plateau",
    ],
    since="0.1.0",
)
def finetune_lr_too_high(
    run: Run, *, trained: float = 0.5, rise: float = 0.2, worse: float = 0.05, early: float = 0.1
) -> Iterator[Finding]:
    """Fine-tuning began with what a pretrained model knew and lost it in the first steps.

    Why it matters:
        What pretraining learned is worth more than the fine-tuning data; a few long steps overwrite it, and
        the run then trains a random start on a small data set.

    How it is measured:
        The run starts pretrained: the fact ``pretrained`` says so, or the loss logged at the first step is below
        `trained` of that of guessing, ln(classes). The training loss then climbs within the first `early` of the run
        above its first value by `rise` of the loss of guessing (medians of three, so one batch does not count), and the
        run pays for it: the last tenth of the training loss, or of the validation loss, lies above where the
        run began by `worse` of the loss of guessing.

    Options:
        trained: share of the loss of guessing below which a first loss is that of a trained model.
        rise: early rise, as a share of the loss of guessing.
        worse: how much higher the run ends than it began, as a share of the loss of guessing.
        early: share of the run that counts as its beginning.

    When it is wrong:
        A resumed run whose state was not restored looks alike (restart-discontinuity); a new task whose head is
        untrained starts at the loss of guessing and is not judged, unless the fact says that it is pretrained.

    What to do:
        A tenth or a hundredth of the rate with a warm-up, Adam with bias correction, the head first.

    References:
        Mosbach et al. 2021 (failed fine-tuning is an optimisation failure: small rate, warm-up, bias correction);
        Kumar et al. 2022 (head first); Howard and Ruder 2018 (rates by depth). Thresholds are design values.
    """
    curve = need_curve(run, LOSS)
    series = curve.series
    chance = chance_loss(run)
    told = run.facts.get("pretrained")
    begins = begins_at_start(run, series)
    if not told and (chance is None or not begins):
        raise CannotJudge(
            "whether the model is pretrained is unknown: set the fact pretrained, or log the loss of the first steps "
            "and the number of classes"
        )
    level = float(series.values[0])  # measured before the first update
    unit = chance if chance is not None else max(abs(level), abs(curve.start))
    if told is False or (not told and level > trained * unit):
        return
    span = series.span
    head = series.between(span.first, round(span.first + early * (span.last - span.first)))
    if len(head) < 4:
        return
    heights = running_median(head.values, 3)  # one bad batch is no fall
    peak_index = int(np.argmax(heights))
    peak = float(heights[peak_index])
    if peak < level + rise * unit:
        return
    split = held_out(run)
    val = find_curve(run, LOSS, split) if split else None
    ends = {"training": curve.final, **({split: val.final} if val is not None else {})}
    which = max(ends, key=lambda k: ends[k])
    if ends[which] < level + worse * unit:
        return
    rate = learning_rate(run)
    current = float(rate.finite.values.max()) if rate is not None and len(rate.finite) else None
    evidence = [
        Evidence.of(
            series,
            f"{peak:.4g} at {place(run, int(head.steps[peak_index]))}, {curve.final:.4g} at the end",
            f"staying near {level:.4g}, where the pretrained model began",
        )
    ]
    if which != "training" and val is not None:
        evidence.append(Evidence.of(val.series, f"{val.final:.4g} at the end", f"below {level:.4g}"))
    moved, ratio = first_updates(run), run.get(UPDATE_RATIO)
    if moved is not None and ratio is not None:
        evidence.append(Evidence.of(ratio, f"the first updates changed the weights by up to {moved:.2g}"))
    yield Finding(
        message=f"pretrained: loss {level:.3g} at first, {peak:.3g} soon after; {which} loss ends at {ends[which]:.3g}",
        severity=Severity.ERROR if ends[which] > level + 0.2 * unit else Severity.WARNING,
        confidence=Confidence.HIGH if told else Confidence.MEDIUM,
        span=Span(int(head.steps[0]), span.last),
        evidence=tuple(evidence),
        remedies=(fine_tune_gently(0.01 * current if current else None), warm_up()),
        could_be=() if told else ("restart-discontinuity",),
        settle_with="" if told else "resume for 5 % of the steps at a hundredth of the rate: no rise settles it",
    )
