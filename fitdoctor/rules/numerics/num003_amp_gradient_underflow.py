"""NUM003 amp-gradient-underflow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding
from fitdoctor.remedies.setup import scale_gradients, use_bfloat16
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import ACTIVATION_GRAD_RMS, LOSS, LOSS_SCALE, LOSS_WEIGHT, Signal
from fitdoctor.views.curves import find_curve, place
from fitdoctor.views.harm import severity_by_harm

SMALLEST = 2.0**-24
"""The smallest number above 0 of float16; half of it and less becomes 0."""


@rule(
    "NUM003",
    "amp-gradient-underflow",
    needs=[Signal(ACTIVATION_GRAD_RMS, layer="*")],
    explains=[
        "no-parameter-updates",
        "no-learning",
        "plateau",
        "underfitting",
        "vanishing-gradients",
        "lr-too-low",
        "lr-too-high",
        "undertrained",
        "class-collapse",
        "adam-epsilon-dominated",
        "lr-noise-floor",
        "best-epoch",
    ],
    since="0.1.0",
)
def amp_gradient_underflow(
    run: Run, *, times: float = 4.0, far: float = 1e3, share: float = 0.5, least: int = 5
) -> Iterator[Finding]:
    """Gradients in float16 are so small that they become 0.

    Why it matters:
        What is 0 in float16 stays 0: layers before it receive nothing from these entries. Training stalls
        or ends above where float32 ends, without a word.

    How it is measured:
        Where the forward pass runs in float16 (autocast or the model's own type): the root mean square of the
        gradient with respect to a layer's output, as it stands in float16 (times what the loss was multiplied
        with before backward, the loss scale included). Below `times` the smallest number above 0 at `share` of the
        records or more, at least a tenth of normally distributed entries become 0, and more of heavier-tailed ones.
        A layer whose gradient is exactly 0 counts unless the layer behind it has one that is `far` times larger
        than that limit: such a layer is dead. A model whose loss has fallen below 5 % of its start has small
        gradients because it is done, and is left alone. An error where training came to nothing, a warning
        otherwise.

    Options:
        times: multiple of the smallest number above 0 of float16, 6e-8.
        far: factor above the limit at which a gradient cannot have underflowed one layer further.
        share: share of the records.
        least: fewest records.

    When it is wrong:
        Gradients that are mostly 0 for another reason, such as masks, have a smaller root mean square than
        their other entries.

    What to do:
        Scale the loss with a GradScaler, or use bfloat16.

    References:
        PyTorch documentation, automatic mixed precision: gradient values with small magnitudes flush to
        zero. Micikevicius et al. 2018, Mixed Precision Training. erf(1 / (2 * 4 * sqrt(2))) = 0.1 for entries
        that round to 0 below half the smallest number.
    """
    half = [run.facts.get(key) for key in ("autocast", "dtype")]
    if half[0] is None and half[1] is None:
        raise CannotJudge("the type of the forward pass is not known; hooks tell it")
    if (half[0] or half[1]) != "float16":
        return
    curve = find_curve(run, LOSS)
    if curve is not None and abs(curve.final) < 0.05 * abs(curve.start):
        return
    layers = run.layers(ACTIVATION_GRAD_RMS)
    longest = max(len(s) for s in layers.values())
    if longest < least:
        raise CannotJudge(f"{longest} records of activation_grad_rms, {least} are needed")
    scale = run.get(LOSS_SCALE)
    lost: list[tuple[float, Series]] = []
    behind = 0.0
    for series in reversed(layers.values()):  # from the output back to the input
        raw = _in_half(_in_half(series.finite.values, series, run.get(LOSS_WEIGHT)), series, scale)
        dead = (raw == 0) & (behind > far * times * SMALLEST)
        if len(raw) and float(np.mean((raw < times * SMALLEST) & ~dead)) >= share:
            lost.append((float(np.median(raw)), series))
        behind = float(np.median(raw)) if len(raw) else behind
    if not lost:
        return
    severity, harmed = severity_by_harm(run)
    least_rms = min(rms for rms, _ in lost)
    scaled = f" times the loss scale {scale.values[-1]:.3g}" if scale is not None else ", without a loss scale"
    message = f"gradients of {len(lost)} of {len(layers)} layers underflow in float16: rms {least_rms:.2g}{scaled}"
    enough = f"above {times * SMALLEST:.1g}"
    yield Finding(
        message=message[:100],
        severity=severity,
        confidence=Confidence.HIGH if scale is None else Confidence.MEDIUM,
        span=lost[0][1].span,
        evidence=(
            *(Evidence.of(s, f"{rms:.2g} in float16, since {place(run, s.span.first)}", enough) for rms, s in lost[:4]),
            *harmed,
        ),
        remedies=(scale_gradients(), use_bfloat16()),
        settle_with="count the zeros of the same batch's gradients in float32 and in float16 (2 backward passes)",
    )


def _in_half(values: FloatArray, at: Series, factor: Series | None) -> FloatArray:
    """Values as they stand in float16: what they were measured with divides the factors of the loss out."""
    if factor is None or not len(factor.finite):
        return values
    known = factor.finite.at(at.finite.steps)
    return np.asarray(values * np.where(np.isfinite(known), known, float(factor.finite.values[0])))
