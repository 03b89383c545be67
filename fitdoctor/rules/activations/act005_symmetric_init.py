"""ACT005 symmetric-init."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.activations import break_symmetry
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import LOSS, WEIGHT_ROWS_ALIKE, Signal
from fitdoctor.views.curves import place
from fitdoctor.views.depth import layers_of, weight_of
from fitdoctor.views.harm import need_standing


@rule(
    "ACT005",
    "symmetric-init",
    needs=[Signal(WEIGHT_ROWS_ALIKE, layer="*"), LOSS],
    explains=[
        "dead-relu",
        "input-collapse",
        "vanishing-gradients",
        "exploding-gradients",
        "saturated-activations",
        "wrong-initial-loss",
        "poor-init-scale",
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "layerwise-update-imbalance",
        "adam-epsilon-dominated",
        "lr-noise-floor",
        "undertrained",
        "lr-too-low",
        "lr-too-high",
    ],
    since="0.1.0",
)
def symmetric_init(run: Run, *, share: float = 0.9, steps: int = 16) -> Iterator[Finding]:
    """All units of a hidden layer carry the same weights, and training keeps them the same.

    Why it matters:
        Equal units compute the same and get the same gradient. A layer of a thousand of them can do what a layer
        of one can, however long it trains.

    How it is measured:
        On pairs of rows of each weight: the share that is equal up to 1e-4 of the largest entry. It must be
        `share` at least at every look, the last of them after step `steps` or later, in a layer with weights
        before the last one. Zeros in the last layer, or in the last layer of a residual branch, are gone after
        one step, since what reaches their units differs. An error when the final training loss is above half of
        what a model that has learned nothing has, and a warning otherwise.

    Options:
        share: least share of pairs that are equal.
        steps: training steps after which they must still be equal.

    When it is wrong:
        Weights that are shared between units on purpose, and written out as a full matrix, look the same.

    What to do:
        Draw the initial weights at random.

    References:
        Goodfellow et al. 2016, Deep Learning, section 8.4 (initial parameters must break symmetry). Rows of random
        weights are never equal to 1e-4 on 64 entries; 16 steps is a design value.
    """
    affine = [layer for layer in layers_of(run) if layer.role == "affine"]
    if not affine:
        raise CannotJudge("the run does not say which weights belong to which layers; fitdoctor.attach does")
    alike = run.layers(WEIGHT_ROWS_ALIKE)
    hidden = [alike[name] for layer in affine[:-1] if (name := weight_of(layer, alike))]
    if not hidden:
        return
    if max(s.span.last for s in hidden) < steps:
        raise CannotJudge(
            f"the weights were looked at up to step {max(s.span.last for s in hidden)}, {steps} is needed"
        )
    equal = [s for s in hidden if s.span.last >= steps and bool((s.values >= share).all())]
    if not equal:
        return
    stand = need_standing(run)
    yield _finding(run, equal, len(hidden), Severity.ERROR if stand.unsolved else Severity.WARNING)


def _finding(run: Run, equal: list[Series], hidden: int, severity: Severity) -> Finding:
    first = equal[0]
    name = first.signal.layer.removesuffix(".weight").removesuffix("/kernel")
    message = f"all units of {{}} have equal weights, still at {place(run, first.span.last)} (layers so: {len(equal)})"
    return Finding(
        message=message.format(name if len(message) + len(name) <= 100 else "a layer"),
        severity=severity,
        confidence=Confidence.HIGH,
        span=Span(first.span.first, first.span.last),
        evidence=(
            Evidence.of(first, f"{first.values[-1]:.0%} of pairs of units are equal", "none after the first step"),
            *(Evidence.of(s, f"{s.values[-1]:.0%}, one of {len(equal)} of {hidden} layers") for s in equal[1:3]),
        ),
        remedies=(break_symmetry(),),
    )
