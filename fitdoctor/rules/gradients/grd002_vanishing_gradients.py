"""GRD002 vanishing-gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_initialisation, shorten_gradient_path
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, IntArray, Run, Series, Span
from fitdoctor.signals import ACTIVATION_GRAD_RMS, GRAD_NORM, LOSS, UPDATE_RATIO, Signal
from fitdoctor.views.curves import Curve, need_curve, place
from fitdoctor.views.depth import FIRST, LATE, DepthProfile, depth_profile, hidden_weights, weights_in_order
from fitdoctor.views.harm import find_standing
from fitdoctor.views.norms import adaptive_optimizer, total_gradient_norm


@rule(
    "GRD002",
    "vanishing-gradients",
    needs=[(Signal(GRAD_NORM, layer="*"), Signal(GRAD_NORM)), LOSS],
    explains=[
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "lr-noise-floor",
        "lr-too-low",
        "undertrained",
        "input-collapse",
        "layerwise-update-imbalance",
        "adam-epsilon-dominated",
    ],
    since="0.1.0",
)
def vanishing_gradients(
    run: Run, *, decades: float = 3.0, order: float = 0.8, unsolved: float = 0.5, least: int = 4
) -> Iterator[Finding]:
    """Early layers get next to no gradient while the task is unsolved.

    Why it matters:
        Layers without gradient stay as they were initialised. The layers behind them learn from random
        features, and depth becomes a burden.

    How it is measured:
        With gradient norms per layer: among at least `least` comparable layers, the norm falls by `decades`
        from the last to the first third, ordered along depth (rank correlation at least `order`), in the
        first tenth of the run and over the whole of it, while the training loss is above `unsolved` of its
        first value at the end. An error if the loss has hardly moved at all. Adaptive optimizers rescale
        each layer's step, so there it is a note, unless the update ratios of the layers show that the
        first third moves less than a hundredth as much as the last. With gradients with respect to the layers'
        outputs, their fitted slope along depth counts in the same way, together with the update ratios: weight
        gradients alone miss a fault of scale that all layers share. With the norm of the whole gradient alone: it
        falls by `decades` below its early level while the loss has gained less than a tenth.

    Options:
        decades: least fall of the norm, as a power of ten.
        order: least rank correlation of depth and log norm.
        unsolved: loss above this share of its first value counts as unsolved.
        least: fewest comparable layers.

    When it is wrong:
        A converged run has small gradients in all layers alike, and its loss is low. Frozen layers have none
        and are left out. When fine-tuning, smaller gradients in early layers are normal.

    What to do:
        Residual connections, normalisation, initialisation matched to the activation, ReLU-like activations.
        A higher learning rate over-drives the late layers instead.

    References:
        Glorot and Bengio 2010; He et al. 2015 and 2016. Three decades lie beyond the spread of any sound
        network of up to 20 layers that we measured; they and the hundredth are design values.
    """
    curve = need_curve(run, LOSS)
    layers = [s.finite for s in weights_in_order(run, GRAD_NORM)]
    layers = [s for s in layers if len(s) and float(s.values.max()) > 0]
    if len(layers) >= least:
        found = list(_along_depth(run, curve, layers, decades, order, unsolved))
        yield from found or _backward_signal(run, decades, order, least)
        return
    norm = total_gradient_norm(run)
    if norm is None or len(norm.finite) < 20:
        raise CannotJudge(f"gradient norms of {len(layers)} comparable layers, {least} are needed")
    yield from _over_time(run, curve, norm.finite, decades)


@dataclass(frozen=True, slots=True)
class _Profile:
    """Gradient norm along depth.

    Attributes:
        logs: median log10 norm of each layer, input first.
        fall: decades from the last third to the first.
        correlation: rank correlation of depth and log norm.
    """

    logs: FloatArray
    fall: float
    correlation: float


def _profile(layers: list[Series], last: int) -> _Profile:
    logs = np.array([_median_log(s[s.steps <= last] if (s.steps <= last).any() else s[:1]) for s in layers])
    third = max(1, len(logs) // 3)
    depth = np.arange(len(logs))
    correlation = 0.0 if np.ptp(logs) == 0 else float(np.corrcoef(depth, np.argsort(np.argsort(logs)))[0, 1])
    return _Profile(logs, float(np.median(logs[-third:]) - np.median(logs[:third])), correlation)


def _median_log(series: Series) -> float:
    positive = series.values[series.values > 0]
    return float(np.median(np.log10(positive))) if len(positive) else -45.0  # below float32's smallest number


def _along_depth(
    run: Run, curve: Curve, layers: list[Series], decades: float, order: float, unsolved: float
) -> Iterator[Finding]:
    first, last = layers[0].span.first, max(s.span.last for s in layers)
    early = _profile(layers, first + (last - first) // 10)
    whole = _profile(layers, last)
    vanishes = min(early.fall, whole.fall) >= decades and min(early.correlation, whole.correlation) >= order
    if not vanishes or curve.start <= 0 or curve.final <= unsolved * curve.start:
        return
    idle = curve.final > 0.9 * curve.start
    still = _early_layers_rest(run)
    adaptive = adaptive_optimizer(run) if still is None else not still  # what moves is measured, not guessed
    severity = Severity.NOTE if adaptive else Severity.ERROR if idle and adaptive is False else Severity.WARNING
    names = layers[0].signal.layer, layers[-1].signal.layer
    norms = 10 ** float(whole.logs[0]), 10 ** float(whole.logs[-1])
    message = f"gradient norm falls {whole.fall:.1f} decades over {len(layers)} layers, to {norms[0]:.1e}"
    yield Finding(
        message=message + (f" in {names[0]}" if len(message) + len(names[0]) < 96 else ""),
        severity=severity,
        confidence=Confidence.MEDIUM if adaptive is None else Confidence.HIGH,
        span=Span(first, last),
        evidence=(
            Evidence.of(layers[0], f"median {norms[0]:.2e}", f"within two decades of {names[1]}"),
            Evidence.of(layers[-1], f"median {norms[1]:.2e}"),
            Evidence.of(
                curve.series, f"{curve.final:.4g} at the end", f"below {unsolved * curve.start:.4g}, half of its start"
            ),
        ),
        remedies=(shorten_gradient_path(), check_initialisation()),
        could_be=() if adaptive is False else ("an adaptive optimizer that rescales each layer's step",),
        settle_with=""
        if adaptive is False
        else "log the update ratio per layer: below a hundredth of the others' settles it",
    )


def _early_layers_rest(run: Run) -> bool | None:
    """Whether the first third of the layers moves less than a hundredth as much as the last; None when unknown."""
    ratios = [s.finite for s in weights_in_order(run, UPDATE_RATIO)]
    levels = [float(np.median(s.values)) for s in ratios if len(s)]
    if len(levels) < 3:
        return None
    third = len(levels) // 3
    return float(np.median(levels[:third])) < 0.01 * float(np.median(levels[-third:]))


def _backward_signal(run: Run, decades: float, order: float, least: int) -> Iterator[Finding]:
    """The gradient with respect to the layers' outputs fades on its way to the input, and the early layers rest."""
    layers = hidden_weights(run, ACTIVATION_GRAD_RMS)
    first = depth_profile(layers, records=FIRST, least=least)
    late = depth_profile(layers, records=LATE, least=least)
    stand = find_standing(run)
    if first is None or late is None or stand is None or not stand.unsolved or not _early_layers_rest(run):
        return

    def fades(p: DepthProfile) -> bool:
        return p.total >= decades and p.order >= order

    if fades(first) and fades(late):
        yield Finding(
            message=f"the gradient fades {late.total:.1f} decades over {len(late.logs)} layers on its way to the input",
            severity=Severity.ERROR if stand.idle else Severity.WARNING,
            confidence=Confidence.HIGH,
            span=Span(layers[0].span.first, layers[0].span.last),
            evidence=(
                Evidence.of(late.layers[0], f"from output to input {10**-late.slope:.2g}-fold per layer: {late}"),
                Evidence.of(stand.curve.series, f"{stand.curve.final:.4g}, from {stand.curve.start:.4g}", "learned"),
            ),
            remedies=(shorten_gradient_path(), check_initialisation()),
        )


def _over_time(run: Run, curve: Curve, norm: Series, decades: float) -> Iterator[Finding]:
    """The whole gradient dies while nothing has been learned."""
    early = norm.values[: max(3, len(norm) // 10)]
    level = float(np.median(early))
    tail = norm.values[-max(3, len(norm) // 10) :]
    now = float(np.median(tail))
    learned = curve.start - curve.final > 0.1 * abs(curve.start)
    if level <= 0 or now > level * 10**-decades or learned:
        return
    onset = _onset(norm.steps, norm.values, level * 10 ** (-decades / 2))
    yield Finding(
        message=f"gradient norm fell from {level:.2g} to {now:.2g} by {place(run, norm.span.last)}, loss not learned",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(onset, norm.span.last),
        evidence=(
            Evidence.of(norm, f"{now:.2e} at the end", f"near its early level, {level:.2e}", marks=((onset, "fades"),)),
            Evidence.of(curve.series, f"{curve.final:.4g}, from {curve.start:.4g}", "learned before gradients fade"),
        ),
        remedies=(shorten_gradient_path(), check_initialisation()),
        could_be=("dead-relu", "saturated outputs", "lr-too-high"),
        settle_with="log gradient norms per layer and the share of dead units, for 100 steps",
    )


def _onset(steps: IntArray, values: FloatArray, threshold: float) -> int:
    above = np.flatnonzero(values > threshold)
    return int(steps[min(int(above[-1]) + 1, len(steps) - 1)]) if len(above) else int(steps[0])
