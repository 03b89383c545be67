"""LRN007 adam-epsilon-dominated."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.optimizer import lower_epsilon
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ADAM_TINY_FRACTION, UPDATE_NORM, Signal
from fitdoctor.views.curves import learning_rate
from fitdoctor.views.norms import is_matrix
from fitdoctor.views.steps import left_over, step_quality, training_curve


@rule(
    "LRN007",
    "adam-epsilon-dominated",
    needs=[Signal(ADAM_TINY_FRACTION, layer="*")],
    explains=["lr-too-low", "undertrained", "no-learning", "plateau", "underfitting", "vanishing-gradients"],
    since="0.1.0",
    state=True,
)
def adam_epsilon_dominated(run: Run, *, share: float = 0.5, short: float = 0.1, poor: float = 0.2) -> Iterator[Finding]:
    """Gradients are so small that epsilon, not the second moment, sets the length of Adam's steps.

    Why it matters:
        Adam's steps do not depend on the scale of the loss only as long as the root of its second moment is well
        above epsilon. Below it the step is the gradient times lr / epsilon: tiny, and smaller the better it gets.

    How it is measured:
        In at least half of the weight matrices more than `share` of the sampled entries have a root of the second
        moment below ten times epsilon (median over the second half of the looks); steps are shorter than `short` of
        what Adam makes of that rate, rate times the root of the number of parameters; and the training loss is
        still above `poor` of where it began. All three have to hold: weights of inputs that are always zero
        have no gradient in sound networks too, and a solved task has tiny gradients.

    Options:
        share: share of entries with a second moment swamped by epsilon.
        short: length of the steps as a share of rate times root of the number of parameters.
        poor: share of the first loss that must be left.

    When it is wrong:
        Sparse features and rarely used embeddings hold most entries still on purpose; they leave the dense layers
        alone, which is why half of the matrices must be concerned.

    What to do:
        Lower epsilon (1e-12), or undo what scales the loss down. In half precision keep the states in float32.

    References:
        Wortsman et al. 2023, Small-scale proxies (epsilon too large for large models); Kingma and Ba 2015. A noise
        dominated Adam step is 0.2 of rate times root of parameters, (1 - beta1) / (1 + beta1) under the root.
    """
    layers = {n: s for n, s in run.layers(ADAM_TINY_FRACTION).items() if is_matrix(n) and len(s) >= 3}
    if not layers:
        raise CannotJudge("fewer than 3 looks at Adam's second moment")
    curve = training_curve(run)
    swamped = {n: float(np.median(s.finite.values[len(s) // 2 :])) for n, s in layers.items() if len(s.finite) >= 3}
    concerned = [n for n, value in swamped.items() if value > share]
    if 2 * len(concerned) < len(layers) or left_over(run, curve) < poor:
        return
    length = _relative_length(run)
    quality = step_quality(run)
    if length is None and quality is None:
        raise CannotJudge("neither update_norm and learning rate nor step_quality are logged")
    if (length is not None and length > short) or (quality is not None and quality.late < 0.9):
        return
    eps = run.facts.get("eps")
    worst = max(concerned, key=lambda n: swamped[n])
    usual = 1e-8 if isinstance(eps, (int, float)) and eps > 1e-7 else 1e-12  # PyTorch's own, where it was raised
    named = f" ({float(eps):g})" if isinstance(eps, (int, float)) else ""
    evidence = [
        Evidence.of(
            layers[worst],
            f"{swamped[worst]:.0%} of the entries of {worst}; above {share:.0%} in {len(concerned)} of {len(layers)}",
            f"below {share:.0%}",
        ),
        Evidence.of(curve.series, f"{curve.final:.4g} at the end, from {curve.start:.4g}"),
    ]
    updates = run.get(UPDATE_NORM)
    if length is not None and updates is not None:
        evidence.append(Evidence.of(updates, f"{length:.2g} of lr x sqrt(parameters)", f"above {short:g}"))
    yield Finding(
        message=f"epsilon{named} swamps Adam's second moment in {len(concerned)} of {len(layers)} weight matrices",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH if length is not None else Confidence.MEDIUM,
        span=Span(layers[worst].span.first, layers[worst].span.last),
        evidence=tuple(evidence),
        remedies=(lower_epsilon(usual),),
        settle_with=f"train a tenth of the steps with epsilon {usual:g}: a faster fall settles it",
    )


def _relative_length(run: Run) -> float | None:
    """Median length of the steps over rate times root of the number of parameters; None where unknown."""
    updates, rate, count = run.get(UPDATE_NORM), learning_rate(run), run.facts.get("trainable_parameters")
    if updates is None or rate is None or not isinstance(count, (int, float)) or count < 1:
        return None
    used = rate.at(updates.steps) * math.sqrt(float(count))
    good = np.isfinite(updates.values) & (used > 0)
    return float(np.median(updates.values[good] / used[good])) if good.any() else None
