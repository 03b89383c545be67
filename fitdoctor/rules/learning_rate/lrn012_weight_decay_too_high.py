"""LRN012 weight-decay-too-high."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.optimizer import lower_weight_decay
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, WEIGHT_DECAY, WEIGHT_NORM
from fitdoctor.views.curves import learning_rate
from fitdoctor.views.harm import find_standing
from fitdoctor.views.norms import adaptive_optimizer, is_matrix, total_gradient_norm
from fitdoctor.views.steps import UNDONE, first_updates, left_over, progress, training_curve

GROWN = 3.0
"""Growth of the weights over their first norm that no decay explains."""
HALF = 0.5
"""Share of the norm below which more than half of what the weights were is gone."""


@rule(
    "LRN012",
    "weight-decay-too-high",
    needs=[LOSS, WEIGHT_NORM],
    explains=[
        "underfitting",
        "plateau",
        "no-learning",
        "class-collapse",
        "vanishing-gradients",
        "lr-noise-floor",
        "lr-too-low",
        "undertrained",
        "input-collapse",
        "dead-relu",
        "val-better-than-train",
        "best-epoch",
        "lr-too-high",
    ],
    since="0.1.0",
    state=True,
)
def weight_decay_too_high(
    run: Run,
    *,
    pull: float = 0.35,
    shrunk: float = 0.9,
    forgets: float = 1.0,
    poor: float = 0.2,
    gone: float = 0.1,
) -> Iterator[Finding]:
    """Weight decay shrinks the weights faster than the gradient can hold them up.

    Why it matters:
        Decay that is too strong keeps the model from fitting even its training data, which looks like a
        model that is too small.

    How it is measured:
        The decay must have had the time to act: rate times decay, summed over the steps, is at least `forgets`
        time constants (decay multiplies the weights by 1 - rate * decay per step; momentum lengthens that step; Adam
        with L2 sets its own pace, so this is not asked of it).
        The weights of at least half of the matrices have shrunk below `shrunk` of their largest norm. The
        decay pulls about as hard as the gradient: decay * norm of the weights is above `pull` times the norm of the
        gradient (SGD, Adam with L2), or for decoupled decay (AdamW) rate * decay * norm of the weights is above `pull`
        times the norm of the update. A third of that is enough where less than half of the norm is left, for the noise
        of the batches hides the pull; and decoupled decay that pulls harder than a step of Adam need not have shrunk
        anything. And the training loss, of the fixed batch where there is one, is above `poor` of
        where it began, and has come to rest or had three times as long.

        Weights of which no more than `gone` is left after three time constants need no such comparison: nothing but
        the decay takes all of them to zero, and what is left of the gradient then is the noise of the batches. An error
        when next to nothing was learned. Where a decay of 0.1 or less (1e-3, where it is L2) goes with first updates of
        30 % of the weights or more, it is the rate that makes it so fast, and it is left to
        lr-too-high; so are weights that first grew threefold.

        At rest the decay balances the mean gradient; the noise of the batches comes on top of that, so a pull of a
        third is already most of what the mean gradient can do.

    Options:
        pull: decay over gradient, in the norms of the step they make.
        shrunk: norm of the weights as a share of their largest.
        forgets: least time constants of the decay within the run.
        poor: share of the first loss that must be left.
        gone: norm of the weights as a share of their largest below which they have collapsed.

    When it is wrong:
        Weights followed by a normalisation lose norm without losing anything: there the loss is good, and it is
        not reported. Noise in the gradient hides the pull of the decay in small batches.

    What to do:
        A tenth of the decay, none on norms and biases, AdamW in place of Adam with L2.

    References:
        Wang and Aitchison 2024 (time scale 1 / (rate * decay) of AdamW: not below an epoch); Loshchilov and Hutter
        2019. On the digits the pull was 0.4 to 3 where the decay cost a factor of 9 and more in training loss, 0.25 and
        less where it cost none.
    """
    decay, rate, weights = run.get(WEIGHT_DECAY), learning_rate(run), run.get(WEIGHT_NORM)
    assert weights is not None  # the rule needs it
    strength = _strength(run) if decay is None else float(np.median(decay.finite.values)) if len(decay.finite) else None
    if strength is None or rate is None:
        raise CannotJudge("no weight decay or learning rate logged; set the fact weight_decay")
    if strength <= 0 or len(weights.finite) < 5:
        return
    curve = training_curve(run)
    weights = weights.finite
    lasted = _time_constants(run, strength)
    if (lasted < forgets and not _coupled_adaptive(run)) or left_over(run, curve) < poor:
        return
    if not lasted >= 3 * forgets and progress(curve, 0.3) > 0.05:
        return  # the start is not forgotten yet, and the loss still falls
    matrices = [s.finite.values for n, s in run.layers(WEIGHT_NORM).items() if is_matrix(n) and len(s.finite) >= 5]
    left = [float(v[-1]) / float(v.max()) for v in matrices or [weights.values] if v.max() > 0]
    pulled = _pull(run, strength)
    outrun = _decoupled(run) and pulled is not None and pulled > 1
    if not left or (float(np.median(left)) > shrunk and not outrun):
        return
    grown = [float(v.max()) / float(v[0]) for v in matrices or [weights.values] if v[0] > 0]
    if grown and float(np.median(grown)) > GROWN:
        return  # steps threw the weights far out first; what decay then does to units that are dead is a consequence
    change = float(np.median(left))
    collapsed = change < gone and (lasted >= 3 * forgets or _coupled_adaptive(run))
    first = first_updates(run)
    if collapsed and first is not None and first >= UNDONE and strength <= 10 * (0.01 if _decoupled(run) else 1e-4):
        return  # an ordinary decay, made fast by a rate whose first steps undo the weights
    if not collapsed and (pulled is None or pulled < (pull if change > HALF else pull / 3)):
        return
    stand = find_standing(run)
    idle = collapsed and stand is not None and stand.idle
    size = (
        "" if change > shrunk else f" shrank the weights {f'to {change:.0%}' if change >= 0.01 else 'to less than 1%'}"
    )
    pulls = "" if pulled is None else f"the decay pulls {pulled:.2g} times as hard as the gradient"
    yield Finding(
        message=f"weight decay {strength:.2g}{size or ' outpulls the steps'}; the loss rests at {curve.final:.3g}",
        severity=Severity.ERROR if idle else Severity.WARNING,
        confidence=Confidence.HIGH if collapsed or (pulled is not None and pulled > 2 * pull) else Confidence.MEDIUM,
        span=Span(weights.span.first, weights.span.last),
        evidence=(
            Evidence.of(weights, f"{change:.2g} of the largest norm is left", f"above {gone:g}")
            if collapsed
            else Evidence.of(weights, pulls, f"below {pull:g}"),
            Evidence.of(curve.series, f"{curve.final:.4g} at the end, from {curve.start:.4g}"),
            Evidence.of(rate, f"{lasted:.2g} time constants of the decay within the run"),
        ),
        remedies=(lower_weight_decay(strength, usual=0.01 if _decoupled(run) else 1e-4),),
        could_be=("underfitting",),
        settle_with="train a tenth of the steps from the last checkpoint without decay: a lower loss settles it",
    )


def _strength(run: Run) -> float | None:
    known = run.facts.get("weight_decay")
    return float(known) if isinstance(known, (int, float)) else None


def _decoupled(run: Run) -> bool:
    name = str(run.facts.get("optimizer", "")).lower()
    return any(part in name for part in ("adamw", "lion", "lamb"))


def _coupled_adaptive(run: Run) -> bool:
    """Whether the decay is an L2 term inside an adaptive step."""
    return adaptive_optimizer(run) is True and not _decoupled(run)


def _time_constants(run: Run, strength: float) -> float:
    """Rate times decay summed over the steps, with the factor that momentum puts on SGD's steps."""
    rate = learning_rate(run)
    span = run.steps
    if rate is None or span is None or not len(rate.finite):
        return 0.0
    momentum = run.facts.get("momentum")
    slowed = 1 - float(momentum) if isinstance(momentum, (int, float)) and 0 <= momentum < 1 else 1.0
    steps = span.last - span.first
    return float(rate.finite.values.mean()) * strength * steps / slowed


def _pull(run: Run, strength: float) -> float | None:
    """Median over the second half of decay over gradient, or of decay over update where decay is decoupled."""
    weights, grads = run.get(WEIGHT_NORM), total_gradient_norm(run)
    rate = learning_rate(run)
    if weights is None or grads is None or rate is None:
        return None
    at = grads.finite.steps[len(grads.finite) // 2 :]
    norm, gradient = weights.at(at), grads.finite.values[len(grads.finite) // 2 :]
    if _decoupled(run):
        count = run.facts.get("trainable_parameters")
        if not isinstance(count, (int, float)) or count < 1:
            return None
        gradient = np.full(len(at), 0.2 * math.sqrt(float(count)))  # a noise-dominated Adam step over its rate
    good = np.isfinite(norm) & (gradient > 0)
    return float(np.median(strength * norm[good] / gradient[good])) if good.any() else None
