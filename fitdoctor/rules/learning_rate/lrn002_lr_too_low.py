"""LRN002 lr-too-low."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import raise_learning_rate, search_learning_rate, stretch_schedule
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOSS, PROBE_LOSS, UPDATE_RATIO
from fitdoctor.stats import noise_scale, trend
from fitdoctor.views.curves import (
    Curve,
    chance_loss,
    find_curve,
    held_out,
    learning_rate,
    need_curve,
    place,
    rate_clock,
)
from fitdoctor.views.harm import find_standing
from fitdoctor.views.pace import FACTOR, pace
from fitdoctor.views.steps import Quality, left_over, step_quality, training_curve


@rule(
    "LRN002",
    "lr-too-low",
    needs=[LOSS],
    explains=["no-learning", "undertrained", "underfitting", "val-better-than-train", "val-set-too-noisy", "plateau"],
    since="0.1.0",
    state=True,
    live=False,
)
def lr_too_low(
    run: Run,
    *,
    straight: float = 0.25,
    moved: float = 0.5,
    quiet: float = 0.05,
    worth: float = 0.03,
    solved: float = 0.05,
    way: float = 0.01,
) -> Iterator[Finding]:
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
        more than its noise. A rate that drops at once to half or less is not judged so (its noise floor falls with it),
        nor are held-out losses that begin after most was learned. A log alone cannot tell this from a run that is
        merely too short; the finding says so.
        The hooks can, by the step quality (actual over promised decrease of the loss of the same batch). How the loss
        fell while the sum of the rates tripled, up to the end, tells what three times the rate would have gained by the
        end, as a share of the range (`fitdoctor.views.pace`): on the training loss and on the held-out loss, of which
        the smaller counts, and not more than is left of the loss. From this is taken what such steps lose in quality:
        three times the distance of the lower median quality (of both halves of the steps at full rate) to 1. A finding
        needs `worth` of what remains, a significant fall of both losses over that stretch, and more than `solved` of
        the first loss left, which must not have been that of a trained model.
        Steps so short that their quality is only rounding are told by their sum: where all updates of the run together
        could have moved the weights by less than `way` of their size, and less than a tenth of what there is to learn
        was learned, it is an error.

    Options:
        straight: gain of the last third over gain of the first third.
        moved: largest share of the first loss that may already be gone.
        quiet: largest jitter as a share of the range covered.
        worth: least net gain of three times the rate, as a share of the range of the loss.
        solved: share of the first loss below which nothing is left to gain.
        way: length of the whole way of the weights, relative to their size, that is too short to get anywhere.

    When it is wrong:
        Long plateaus before a drop, curricula, and warm-ups that last a third of the run bend the curve the
        same way; fine-tuning uses small rates on purpose.

    What to do:
        A range test, or raise the rate threefold until the loss turns rough, then step back once. If the
        rate is at its edge already, train longer.

    References:
        Smith 2017 (range test); Godbole et al. 2023. The ratio of thirds was calibrated on DeepOBS
        cifar10_3c3d (Schneider et al. 2019): 0.37-1.1 at rates labelled too low, at most 0.11 at healthy ones.
        That a loss at small steps depends on the sum of the rates: gradient flow; that it falls about as a power of it:
        Viering and Loog 2022. The rule was written on grids of rates of 22 small problems (SGD, momentum, Adam, AdamW;
        constant, cosine, linear, step): without a threshold on the quality itself it finds four of five rates that
        cost 6 % of the range or more, and 2 of 400 runs at good rates, one of them with data that are mostly noise.
    """
    train = need_curve(run, LOSS, least=12)
    if run.finished is False and run.facts.get("planned_steps"):
        planned = float(run.facts["planned_steps"])
        if planned > 1.5 * train.steps[-1]:
            raise CannotJudge(f"the run is at {place(run, int(train.steps[-1]))} of {planned:.0f} planned steps")
    first, end = train.series.span.first, train.series.span.last
    if first > end - first:
        raise CannotJudge(f"the log begins at {place(run, first)}; how far the loss had come before is not in it")
    stuck = _no_way(run, train, way)
    if stuck is not None:
        yield stuck
        return
    quality = step_quality(run)
    if quality is not None:
        yield from _short_steps(run, quality, worth, solved)
        return
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=12) if split else None
    curve = min((c for c in (train, val) if c is not None), key=lambda c: c.noise / max(c.swing, 1e-300))
    if curve is val and train.start - float(np.interp(val.steps[0], train.steps, train.smooth)) > val.swing:
        return  # most of what was learned was learned before the first evaluation
    if _annealed_gain(run, curve):
        return  # a loss that falls as the rate does: its noise floor fell
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


def _no_way(run: Run, curve: Curve, way: float) -> Finding | None:
    """All steps together, even in one direction, would have moved the weights by next to nothing, and nothing came."""
    ratio, stand = run.get(UPDATE_RATIO), find_standing(run)
    if ratio is None or len(ratio.finite) < 5 or stand is None or not (stand.idle and math.isfinite(stand.left)):
        return None
    seen = ratio.finite
    between = (seen.values[1:] + seen.values[:-1]) / 2
    mean = float(np.average(between, weights=np.diff(seen.steps)))
    whole = mean * (curve.series.span.last - curve.series.span.first + 1)
    if not 0 < whole < way:
        return None
    rate = learning_rate(run)
    current = float(rate.finite.values.max()) if rate is not None and len(rate.finite) else None
    decades = min(3, max(1, math.floor(math.log10(way / whole)) + 1))
    return Finding(
        message=f"all steps together move the weights by at most {whole:.1g} of their size; nothing is learned",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(seen, f"{mean:.2g} of the weights per step", f"a way of more than {way:g} over the run"),
            Evidence.of(stand.curve.series, f"{stand.curve.final:.4g} at the end, {stand.left:.0%} of what it was"),
        ),
        remedies=(raise_learning_rate(10.0**decades, current=current), search_learning_rate()),
        could_be=("gradients that are too small for plain SGD: a scaled loss, vanishing-gradients",),
        settle_with="train a hundred steps at 100 times the rate: a loss that falls settles it",
    )


def _short_steps(run: Run, quality: Quality, worth: float, solved: float) -> Iterator[Finding]:
    """Steps so short that three times the rate would gain more than it would lose."""
    curve = training_curve(run, least=12)
    chance = chance_loss(run)
    left = left_over(run, curve)
    if left < solved or (chance is not None and curve.final / left < 0.5 * chance) or curve.final >= curve.start:
        return
    split = held_out(run)
    val = find_curve(run, LOSS, split) if split else find_curve(run, PROBE_LOSS, "val")
    seen = [pace(run, c) for c in (curve, val) if c is not None]
    # What is left of the training loss may be what the data do not tell, and to fit that sooner is worth nothing.
    paces = [p for p in seen if p is not None]
    if not paces or len(paces) < len(seen) or max(p.p_down for p in paces) > 0.02:
        return
    steady = float(np.mean(np.diff(curve.values) < 0)) >= 0.9
    if not steady and paces[0].last * curve.swing < 4 * curve.noise:
        return
    ahead = min(p.ahead for p in paces)
    room = 1 - min(quality.early, quality.late)
    if ahead - FACTOR * room < worth:
        return
    rate = learning_rate(run)
    current = float(rate.finite.values.max()) if rate is not None and len(rate.finite) else None
    factor = float(f"{min(30.0, max(FACTOR, 0.1 / max(room, 1e-9))):.1g}")
    yield Finding(
        message=f"steps are too short: {FACTOR:g} times the rate would gain {ahead:.0%} of the range of the loss "
        f"(step quality {min(quality.early, quality.late):.3f})",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                quality.series,
                f"median {quality.early:.3f} and {quality.late:.3f} over the halves of the run",
                "0.2 to 0.95 at a rate that uses the budget",
            ),
            Evidence.of(
                curve.series,
                f"{paces[0].last:.0%} of its range gained while the sum of the learning rates tripled, up to the end",
                f"{left:.0%} of the loss is left",
            ),
        ),
        remedies=(raise_learning_rate(factor, current=current), search_learning_rate()),
    )


def _annealed_gain(run: Run, curve: Curve) -> bool:
    """Whether the rate dropped at once, from near its peak to half of it or less."""
    rate = learning_rate(run)
    if rate is None or not len(rate.finite):
        return False
    used = rate.finite.at(curve.steps)
    peak = float(rate.finite.values.max())
    return bool(np.any((used[:-1] >= 0.9 * peak) & (used[1:] <= 0.5 * peak)))


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
