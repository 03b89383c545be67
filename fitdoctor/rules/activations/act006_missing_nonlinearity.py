"""ACT006 missing-nonlinearity."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.activations import add_nonlinearity
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS
from fitdoctor.views.depth import Layer, layers_of
from fitdoctor.views.harm import find_standing


@rule(
    "ACT006",
    "missing-nonlinearity",
    needs=[LOSS],
    explains=[
        "underfitting",
        "plateau",
        "no-learning",
        "class-collapse",
        "lr-noise-floor",
        "val-set-too-noisy",
        "lr-too-low",
        "undertrained",
    ],
    since="0.1.0",
)
def missing_nonlinearity(run: Run, *, solved: float = 0.1) -> Iterator[Finding]:
    """Two layers of weights follow each other with nothing between them.

    Why it matters:
        Two linear maps in a row are one linear map. The parameters are paid for, the depth is not had; a
        model of linear layers alone is a linear model.

    How it is measured:
        In the first forward pass, by the autograd graph: a linear layer or convolution that takes the
        unchanged output of another one (reshaped or dropped out at most). Such a pair is passed over when
        it is a factor of low rank (the middle is narrower than both ends), when either is a grouped
        convolution, or when the second is the output layer of a model that has other non-linearities. A note; a
        warning when no layer of the model has a non-linearity at all and the final training loss
        is above `solved` of what a model that has learned nothing has: nobody stacks layers to draw a straight line.

    When it is wrong:
        Linear models, deep linear nets and pairs of linear layers that are merged after training are built so on
        purpose. Non-linearities that are applied to weights are not seen.

    Options:
        solved: share of the untrained loss up to which a linear model is good enough.

    What to do:
        Put an activation between them, or make them one layer.

    References:
        Schoop et al. 2021 (UMLAUT) check for it in the program text. Grouped and separable convolutions: Chollet 2017;
        low-rank factors: Hu et al. 2021 (LoRA).
    """
    layers = layers_of(run)
    if not layers:
        raise CannotJudge("the run does not say how its layers are connected; fitdoctor.attach does")
    affine = {layer.name: layer for layer in layers if layer.role == "affine"}
    linear = len(affine) == len(layers) > 1 and all(
        x.source in affine and not affine[x.source].after for x in layers[1:]
    )
    pairs = [(affine[b.source], b) for b in affine.values() if b.source in affine and not affine[b.source].after]
    last = next(reversed(affine.values()), None)
    if not linear:
        pairs = [(a, b) for a, b in pairs if b is not last]
    pairs = [(a, b) for a, b in pairs if not _meant(a, b)]
    if pairs:
        yield _finding(run, pairs, solved, linear=linear)


def _meant(first: Layer, second: Layer) -> bool:
    """A low-rank factor, or part of a separable convolution."""
    if not first.inputs or not second.inputs:  # grouped
        return True
    return first.outputs < min(first.inputs, second.outputs)


def _finding(run: Run, pairs: list[tuple[Layer, Layer]], solved: float, *, linear: bool) -> Finding:
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    stand = find_standing(run)
    harm = linear and stand is not None and stand.left > solved
    first, second = pairs[0]
    names = f"{first.name} and {second.name}"
    message = f"no activation stands between {{}} (such pairs: {len(pairs)})"
    if linear:
        message = f"the model is linear: {len(pairs) + 1} layers of weights without an activation between them"
    reached = f"{float(loss.values[-1]):.4g} at the end"
    return Finding(
        message=message.format(names if len(message) + len(names) <= 100 else "two layers of weights"),
        severity=Severity.WARNING if harm else Severity.NOTE,
        confidence=Confidence.HIGH if linear else Confidence.MEDIUM,
        span=Span(loss.span.first, loss.span.first),
        evidence=(
            Evidence.of(
                loss,
                f"{second.name} takes the output of {first.name} unchanged; training loss {reached}",
                "an activation between them",
            ),
        ),
        remedies=(add_nonlinearity(),),
        could_be=("a linear model on purpose",) if linear else ("a pair that is merged after training",),
    )
