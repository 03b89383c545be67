"""GRD001 exploding-gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import check_initialisation, clip_gradients, lower_learning_rate, warm_up
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, IntArray, Run, Series, Span
from fitdoctor.signals import ACTIVATION_GRAD_RMS, GRAD_NORM, LOSS, Signal
from fitdoctor.stats import block_edges, block_medians, median
from fitdoctor.views.curves import Curve, find_curve, place
from fitdoctor.views.depth import FIRST, LATE, depth_profile, hidden_weights
from fitdoctor.views.harm import find_standing
from fitdoctor.views.norms import rise_before, total_gradient_norm


@rule(
    "GRD001",
    "exploding-gradients",
    needs=[(Signal(GRAD_NORM), Signal(GRAD_NORM, layer="*")), LOSS],
    explains=[
        "nonfinite-loss",
        "hidden-nonfinite",
        "loss-divergence",
        "loss-spikes",
        "gradient-spikes",
        "best-epoch",
        "dead-relu",
        "saturated-activations",
        "gradscaler-stuck",
        "logit-drift",
    ],
    since="0.1.0",
)
def exploding_gradients(
    run: Run,
    *,
    decades: float = 1.0,
    hold: int = 3,
    window: int = 50,
    sigmas: float = 5.0,
    harm: float = 0.05,
    slope: float = 0.15,
    depth: float = 2.0,
) -> Iterator[Finding]:
    """The gradient norm grows far above its own past, and the loss with it.

    Why it matters:
        A step is as long as the gradient times the learning rate. When gradients grow tenfold, so do the
        steps of SGD; they leave the region in which the gradient pointed downhill, and the loss breaks away.

    How it is measured:
        On the norm of the whole gradient (or the root of the summed squares of the layers'). Either the
        norm rose by `decades` within the `window` logged points before the loss stopped being finite. Or
        block medians of its logarithm stand `decades` above the median of all blocks before them, for
        `hold` blocks in a row, while the smoothed training loss rises by more than `sigmas` standard
        deviations of its noise and `harm` of the range it had covered, and stays there. Growth of the norm
        alone, with a falling loss, is normal and is not reported. Or, with gradients with respect to the layers'
        outputs: they grow on their way to the input, by `slope` decades per layer and `depth` decades in all, and
        the final training loss is above half of what a model that has learned nothing has (an error above 90 %).

    Options:
        decades: least growth of the norm as a power of ten.
        hold: blocks in a row, of 60 per run.
        window: logged points before a non-finite loss.
        sigmas: least rise of the loss in standard deviations of its noise.
        harm: least rise of the loss as a share of the range it had covered.
        slope: least growth per layer, in decades.
        depth: least growth over all layers, in decades.

    When it is wrong:
        The norm of unscaled mixed-precision gradients contains the loss scale. A learning rate that is too
        high lets the norm grow as a consequence; the two look alike in a log.

    What to do:
        If the norm is already high at the first step, fix initialisation and normalisation. Else warm up,
        clip at the 90th percentile of the sound norms, and lower the learning rate last.

    References:
        Pascanu et al. 2013; Godbole et al. 2023, Deep Learning Tuning Playbook (clipping before a lower
        learning rate). One decade and three blocks are design values, checked on the AlgoPerf logs.
    """
    norm = total_gradient_norm(run)
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    if norm is None:
        raise CannotJudge("layers were logged at different steps, so that there is no norm of the whole gradient")
    found = _before_nonfinite(norm, loss, decades, window) or _sustained(norm, loss, run, decades, hold, sigmas, harm)
    if found is None:
        yield from _along_depth(run, slope, depth)
        if int(np.isfinite(norm.values).sum()) < 12:
            raise CannotJudge(f"{len(norm.finite)} finite gradient norms, 12 are needed")
        return
    onset, before, after = found
    yield _finding(run, norm, loss, onset, before, after)


def _along_depth(run: Run, slope: float, depth: float, *, least: int = 4, order: float = 0.8) -> Iterator[Finding]:
    """The gradient with respect to the layers' outputs grows on its way to the input."""
    layers = hidden_weights(run, ACTIVATION_GRAD_RMS)
    stand = find_standing(run)
    if stand is None or not stand.unsolved:
        return
    for records in (FIRST, LATE):
        p = depth_profile(layers, records=records, least=least)
        if p is not None and -p.slope >= slope and -p.total >= depth and -p.order >= order:
            onset = layers[0].span.first if records is FIRST else int(layers[0].steps[records][0])
            yield Finding(
                message=f"the gradient grows {-p.total:.1f} decades over {len(p.logs)} layers on its way to the input",
                severity=Severity.ERROR if stand.idle else Severity.WARNING,
                confidence=Confidence.HIGH,
                span=Span(onset, layers[0].span.last),
                evidence=(
                    Evidence.of(p.layers[0], f"{10**-p.slope:.2g}-fold per layer: {p}", "within one decade"),
                    Evidence.of(
                        stand.curve.series, f"{stand.curve.final:.4g}, from {stand.curve.start:.4g}", "learned"
                    ),
                ),
                remedies=(check_initialisation(), warm_up(), clip_gradients(), lower_learning_rate()),
                could_be=("bad initialisation",) if records is FIRST else ("lr-too-high",),
            )
            return


def _sound_at_first(run: Run) -> bool:
    """Whether the layers show that gradients were of one scale over all layers before training began."""
    p = depth_profile(hidden_weights(run, ACTIVATION_GRAD_RMS), records=FIRST)
    return p is not None and abs(p.total) < 1


def _before_nonfinite(norm: Series, loss: Series, decades: float, window: int) -> tuple[int, float, float] | None:
    """Onset, level before and level after of a rise that ends in a non-finite loss or norm."""
    ends = [int(s.steps[np.argmax(~np.isfinite(s.values))]) for s in (loss, norm) if not np.isfinite(s.values).all()]
    if not ends or bool(np.isfinite(loss.values).all()):
        return None
    stop = int(np.searchsorted(norm.steps, min(ends)))
    past = norm[:stop].finite
    past = past[past.values > 0]
    if len(past) < 6 or rise_before(norm.values, stop, window) < decades:
        return None
    reference = float(np.median(past.values[: max(len(past) - window, len(past) // 2)]))
    calm = np.flatnonzero(past.values <= reference * 10 ** (0.5 * decades))
    onset = int(past.steps[min(int(calm[-1]) + 1, len(past) - 1)]) if len(calm) else past.span.first
    return onset, reference, float(np.median(past.values[-3:]))


def _sustained(
    norm: Series, loss: Series, run: Run, decades: float, hold: int, sigmas: float, harm: float
) -> tuple[int, float, float] | None:
    """Onset, level before and level after of a lasting rise that took the loss with it."""
    finite = norm.finite
    finite = finite[finite.values > 0]
    curve = find_curve(run, LOSS)
    if len(finite) < 12 or curve is None:
        return None
    steps, logs = _blocks(finite)
    lowest = np.minimum.accumulate(logs)
    for i in range(max(3, len(logs) // 10), len(logs) - hold + 1):
        held = float(logs[i : i + hold].min())
        if held < lowest[i - 1] + decades:  # no median is below the lowest, and this is found sooner
            continue
        before = median(logs[:i])
        if held >= before + decades:
            onset = int(steps[i])
            if _loss_broke_away(curve, onset, sigmas, harm):
                return onset, 10**before, 10 ** median(logs[i:])
    return None


def _blocks(series: Series) -> tuple[IntArray, FloatArray]:
    """First step and median log10 of at most 60 blocks."""
    return series.steps[block_edges(len(series), 60)[:-1]], block_medians(np.log10(series.values), 60)


def _loss_broke_away(curve: Curve, onset: int, sigmas: float, harm: float) -> bool:
    """The loss ends above the best it had reached by the onset."""
    reached = curve.smooth[curve.steps <= onset]
    best = float(reached.min()) if len(reached) else curve.start
    covered = max(curve.start - best, 0.0) or abs(best)
    return curve.final - best > max(sigmas * curve.noise, harm * covered)


def _finding(run: Run, norm: Series, loss: Series, onset: int, before: float, after: float) -> Finding:
    factor = after / before
    optimizer_clips = run.facts.get("clip_norm") is not None
    fixes: tuple[Remedy, ...] = (warm_up(), clip_gradients(before), lower_learning_rate(), check_initialisation())
    could_be: tuple[str, ...] = ("lr-too-high", "bad initialisation", "outlier batches")
    if _sound_at_first(run):
        fixes, could_be = fixes[:3], ("lr-too-high", "outlier batches")
    return Finding(
        message=f"gradient norm grew {factor:.2g}-fold, from {before:.3g} to {after:.3g}, from {place(run, onset)} on",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        span=Span(onset, norm.span.last),
        evidence=(
            Evidence.of(norm, f"{after:.3g}", f"near its past level, {before:.3g}", marks=((onset, "growth begins"),)),
            Evidence.of(loss, "rises with it", "falling, or flat", marks=((onset, "gradient grows"),)),
        ),
        remedies=fixes[:1] + fixes[2:] if optimizer_clips else fixes,
        could_be=could_be,
        settle_with="the gradient norm of the same batch at the initial weights: normal there means the learning rate",
    )
