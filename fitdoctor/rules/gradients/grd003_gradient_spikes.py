"""GRD003 gradient-spikes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import clip_gradients, inspect_batches, warm_up
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import IntArray, Run, Series, Span
from fitdoctor.signals import ADAM_SURPRISE, GRAD_NORM, LOSS, Signal
from fitdoctor.stats import mad_sigma, noise_scale, spike_z
from fitdoctor.views.curves import find_curve, learning_rate, place
from fitdoctor.views.norms import total_gradient_norm


@rule(
    "GRD003",
    "gradient-spikes",
    needs=[(Signal(GRAD_NORM), Signal(GRAD_NORM, layer="*"))],
    explains=["loss-spikes"],
    since="0.1.0",
)
def gradient_spikes(
    run: Run, *, z: float = 6.0, factor: float = 10.0, sigmas: float = 5.0, harm: float = 0.05, settle: int = 20
) -> Iterator[Finding]:
    """The gradient norm jumps far above the values just before it.

    Why it matters:
        One such step can undo many. Whether it did shows in the loss: without a response there the spike
        was clipped, rescaled, or simply one odd batch.

    How it is measured:
        Logged norms more than `z` robust standard deviations of their logarithm above the up to 200 values
        before, and at least `factor` times their median. A spike does harm when the training loss over the
        `settle` logged values after it lies above the level before by `sigmas` standard deviations of the
        noise and `harm` of the range covered so far, and the run ends above that level too. That is a
        warning; spikes without harm are a note. Where the log allows, the largest is traced: to a rise of the
        learning rate to twice its level within the 5 points before; to a batch whose own loss, taken before the
        step, stands out by more than 6 standard deviations; to Adam's second moment, when the gradient was more
        than 5 times its root; and to the layer whose part of the gradient grew most.

    Options:
        z: least robust z-score of the logarithm.
        factor: least size, relative to the median before.
        sigmas: least response of the loss, in standard deviations of its noise.
        harm: least response of the loss, as a share of the range covered.
        settle: logged losses after the spike over which the response is taken.

    When it is wrong:
        Heavy-tailed gradients are normal for rare classes and long sequences. Warm restarts raise the norm on
        purpose.

    What to do:
        Look at the batches of those steps; clip at the 90th percentile of the norms, lower beta2, or warm up
        longer if spikes come early.

    References:
        Huang et al. 2025 (SPAM) report spikes of up to 1000 times the usual norm; Kumar et al. 2025 (ZClip)
        clip at z > 2.5. z > 6 leaves about one false candidate in 1e9 normal values; the rest are design
        values.
    """
    norm = total_gradient_norm(run)
    if norm is None:
        raise CannotJudge("layers were logged at different steps, so that there is no norm of the whole gradient")
    finite = norm.finite
    finite = finite[finite.values > 0]
    if len(finite) < 60:
        raise CannotJudge(f"{len(finite)} gradient norms, 60 are needed to know what a spike is")
    peaks = _peaks(finite, z, factor)
    if not len(peaks):
        return
    loss = run.get(LOSS)
    harmful = [
        int(i) for i in peaks if loss is not None and _harm(run, loss, int(finite.steps[i]), sigmas, harm, settle)
    ]
    yield _finding(run, finite, loss, peaks, harmful)


def _peaks(norm: Series, z: float, factor: float) -> IntArray:
    """Index of the largest norm of each spike; spikes within 20 points are one."""
    n = len(norm)
    window = min(200, max(40, n // 5))
    scores = spike_z(np.log(norm.values), window=window, floor=0.05)
    stride = max(1, window // 4)
    high = np.flatnonzero((scores > z) & (np.arange(n) >= max(stride, n // 20)))
    high = (
        high[[norm.values[i] >= factor * np.median(norm.values[max(0, i - window) : i]) for i in high]]
        if len(high)
        else high
    )
    if not len(high):
        return high
    groups = np.split(high, np.flatnonzero(np.diff(high) > 20) + 1)
    return np.array([int(g[np.argmax(norm.values[g])]) for g in groups], dtype=np.int64)


def _harm(run: Run, loss: Series, step: int, sigmas: float, harm: float, settle: int) -> bool:
    """The loss stays higher after the step, and the run ends higher too."""
    finite = loss.finite
    at = int(np.searchsorted(finite.steps, step))
    before, after = finite.values[max(0, at - 2 * settle) : at], finite.values[at + 1 : at + 1 + settle]
    curve = find_curve(run, LOSS)
    if len(before) < settle or len(after) < settle or curve is None:
        return False
    level = float(np.median(before))
    least = max(sigmas * noise_scale(finite.values) / np.sqrt(settle), harm * max(curve.start - level, 0.0), 1e-12)
    return bool(np.median(after) - level > least and curve.final - level > least)


def _finding(run: Run, norm: Series, loss: Series | None, peaks: IntArray, harmful: list[int]) -> Finding:
    shown = np.array(harmful) if harmful else peaks
    worst = int(shown[np.argmax(norm.values[shown])])
    usual = float(np.median(norm.values[max(0, worst - 200) : worst]))
    steps = norm.steps
    per_thousand = 1000 * len(peaks) / len(norm)
    count = f"{len(peaks)} gradient spike{'s' if len(peaks) > 1 else ''}"
    marks = tuple((int(steps[i]), "spike") for i in sorted(shown, key=lambda i: -norm.values[i])[:5])
    evidence = [
        Evidence.of(
            norm,
            f"{norm.values[worst]:.3g} at {place(run, int(steps[worst]))}, {per_thousand:.2g} spikes per 1000 points",
            f"near the values before, {usual:.3g}",
            marks=marks,
        )
    ]
    if loss is not None:
        evidence.append(Evidence.of(loss, "stays higher after it" if harmful else "does not respond", marks=marks))
    traced = _causes(run, norm, worst, loss)
    evidence += [e for _, e in traced]
    p90 = float(np.quantile(norm.values, 0.9))
    largest = f"up to {norm.values[worst] / usual:.2g} times the usual norm ({place(run, int(steps[worst]))})"
    causes = tuple(cause for cause, _ in traced if cause)
    return Finding(
        message=f"{count}, {largest}",
        severity=Severity.WARNING if harmful else Severity.NOTE,
        confidence=Confidence.MEDIUM if harmful or loss is None else Confidence.HIGH,
        span=Span(int(steps[shown[0]]), int(steps[peaks[-1]])),
        evidence=tuple(evidence),
        remedies=(inspect_batches(), clip_gradients(p90), warm_up()) if harmful else (inspect_batches(),),
        could_be=causes or ("bad batches", "adam-second-moment-lag", "lr-too-high") if harmful else causes,
        settle_with="the gradient norm of the same batch at other weights: as high there means the data"
        if harmful and not causes
        else "",
    )


def _causes(run: Run, norm: Series, worst: int, loss: Series | None) -> list[tuple[str, Evidence]]:
    """What the log shows at the largest spike: a cause, or "" for its place only, with the evidence."""
    step = int(norm.steps[worst])
    found: list[tuple[str, Evidence]] = []
    rate = learning_rate(run)
    if rate is not None:
        now = rate.finite.at(norm.steps[max(0, worst - 5) : worst + 1])
        past = rate.finite.at(norm.steps[max(0, worst - 50) : max(1, worst - 5)])
        if len(past) and np.nanmax(now) >= 2 * np.nanmedian(past) > 0:
            found.append(("lr-too-high", Evidence.of(rate, f"rose to {np.nanmax(now):.3g} just before", "steady")))
    if loss is not None and (own := _own_loss(loss.finite, step)) > 6:
        text = f"that batch's loss, taken before the step, stands out by {own:.1f} standard deviations"
        found.append(("bad batches", Evidence.of(loss, text, "like its neighbours", ((step, "the batch"),))))
    surprise = run.layers(ADAM_SURPRISE)
    near = {name: s.between(step - 5, step + 2).finite.values for name, s in surprise.items()}
    high = {name: float(v.max()) for name, v in near.items() if len(v) and v.max() > 5}
    if high:
        name = max(high, key=lambda n: high[n])
        text = f"the gradient was {high[name]:.3g} times the root of Adam's second moment"
        found.append(("adam-second-moment-lag", Evidence.of(surprise[name], text, "about 1")))
    if (layer := _layer(run, step)) is not None:
        found.append(("", Evidence.of(layer, "the layer whose gradient grew most", marks=((step, "spike"),))))
    return found


def _own_loss(loss: Series, step: int) -> float:
    """By how many robust standard deviations the loss at a step stands above the up to 50 before it."""
    at = int(np.searchsorted(loss.steps, step))
    past = loss.values[max(0, at - 50) : at]
    if at >= len(loss) or loss.steps[at] != step or len(past) < 20:
        return 0.0
    return float((loss.values[at] - np.median(past)) / (mad_sigma(past) + 1e-12 + 1e-3 * abs(float(np.median(past)))))


def _layer(run: Run, step: int) -> Series | None:
    """The layer whose gradient norm grew most at a step, against its own median before; None when not logged then."""
    growth = {}
    for name, s in run.layers(GRAD_NORM).items():
        now = s.between(step, step).finite.values
        past = s.between(s.span.first, step - 1).finite.values[-50:]
        if len(now) and len(past) >= 5 and (usual := float(np.median(past))) > 0:
            growth[name] = float(now[0]) / usual
    if len(growth) < 2:
        return None
    return run.layers(GRAD_NORM)[max(growth, key=lambda n: growth[n])]
