"""LOS002 loss-spikes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import clip_gradients, inspect_batches, lower_learning_rate, warm_up
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series, Span
from fitdoctor.signals import LOSS
from fitdoctor.stats import noise_scale, spike_z
from fitdoctor.views.curves import Curve, make_curve, place


@rule(
    "LOS002",
    "loss-spikes",
    needs=[LOSS],
    explains=["best-epoch"],
    since="0.1.0",
)
def loss_spikes(
    run: Run, *, z: float = 6.0, sigmas: float = 5.0, share: float = 0.05, recover: float = 0.02
) -> Iterator[Finding]:
    """The training loss jumps suddenly, out of proportion to its noise.

    Why it matters:
        A spike that recovers costs a few steps. A spike after which the loss stays higher costs the run.

    How it is measured:
        Each logged training loss is compared with the 50 to 200 values before it (a twentieth of the run), in
        robust standard deviations of its logarithm (above `z`), and must exceed them by `sigmas` standard
        deviations of the noise and by `share` of the range that training covered. Neighbouring points are one spike.
        It lingers when the loss has not come back within 3 standard deviations after `recover` of the run
        (at least 50 logged values); that is a warning if the run also ends above the level before it.
        Spikes that recover are a note.

    Options:
        z: least robust z-score, in standard deviations.
        sigmas: least height in standard deviations of the noise.
        share: least height as a share of the range that training covered.
        recover: share of the run within which a spike has to be over.

    When it is wrong:
        Warm restarts and new data phases raise the loss on purpose; the first tenth of a run is not
        judged because the past is too short.

    What to do:
        Nothing for spikes that recover. For lingering ones: look at the batches, clip gradients at the
        90th percentile of their norms, lower beta2 of Adam, or lengthen the warm-up.

    References:
        Chowdhery et al. 2022 (PaLM) skipped 200-500 batches around spikes; Molybog et al. 2023 on batch
        and state together causing them. z > 6 leaves one false candidate in 1e9 normal values; the other
        floors are design values.
    """
    series = run.get(LOSS)
    assert series is not None  # the rule needs it
    finite = series.finite
    if len(finite) < 60:
        raise CannotJudge(f"{len(finite)} finite values of train loss, 60 are needed to know what a spike is")
    curve = make_curve(finite)
    values = finite.values
    height = max(sigmas * noise_scale(values), share * curve.swing)
    spikes = _spikes(values, z, height)
    if not spikes:
        return
    patience = max(50, round(recover * len(values)))
    lingering = [s for s in spikes if not _recovers(values, s, patience)]
    harmful = [s for s in lingering if curve.final > _level_before(values, s) + 3 * curve.noise + 0.01 * curve.swing]
    worst = max(harmful or spikes, key=lambda s: values[s])
    yield _finding(run, finite, curve, spikes, harmful, worst)


def _spikes(values: FloatArray, z: float, height: float) -> list[int]:
    """Index of the peak of each spike."""
    n = len(values)
    base = values - values.min() + max(float(np.ptp(values)), 1e-300) * 0.01 if values.min() <= 0 else values
    scores = spike_z(np.log(base), window=min(200, max(50, n // 20)))
    candidates = [int(i) for i in np.nonzero(scores > z)[0] if i >= n // 10]
    peaks: list[int] = []
    for i in candidates:
        if values[i] - _level_before(values, i) < height:
            continue
        if peaks and i - peaks[-1] <= 20:
            if values[i] > values[peaks[-1]]:
                peaks[-1] = i
        else:
            peaks.append(i)
    return peaks


def _level_before(values: FloatArray, index: int) -> float:
    return float(np.median(values[max(0, index - 40) : max(1, index - 2)]))


def _recovers(values: FloatArray, index: int, patience: int) -> bool:
    before = values[max(0, index - 40) : max(1, index - 2)]
    after = values[index + 1 : index + 1 + patience]
    if len(after) < 3:
        return True  # the log ends here: not known to linger
    limit = float(np.median(before)) + 3 * noise_scale(before, burn_in=0.0)
    return bool(np.median(after[-max(3, len(after) // 5) :]) <= max(limit, np.median(before) * 1.02))


def _finding(run: Run, series: Series, curve: Curve, spikes: list[int], harmful: list[int], worst: int) -> Finding:
    steps, values = series.steps, series.values
    first = int(steps[(harmful or spikes)[0]])
    top = f"{values[worst]:.4g} at {place(run, int(steps[worst]))}"
    count = f"{len(spikes)} spike{'s' if len(spikes) > 1 else ''} of the training loss"
    message = (
        f"{count}, {len(harmful)} not recovered, highest {top}" if harmful else f"{count}, all recovered, highest {top}"
    )
    evidence = Evidence.of(
        series,
        f"{top}, from {_level_before(values, worst):.4g}",
        f"within 6 standard deviations of the values before (noise {curve.noise:.2g})",
        marks=tuple((int(steps[i]), "spike") for i in sorted(spikes, key=lambda i: -values[i])[:5]),
    )
    remedies = (
        (inspect_batches(), clip_gradients(), warm_up(), lower_learning_rate(0.3)) if harmful else (inspect_batches(),)
    )
    return Finding(
        message=message,
        severity=Severity.WARNING if harmful else Severity.NOTE,
        confidence=Confidence.MEDIUM if harmful else Confidence.HIGH,
        span=Span(first, int(steps[spikes[-1]])),
        evidence=(evidence,),
        remedies=remedies,
        could_be=("adam-second-moment-lag", "bad batches", "lr-too-high") if harmful else (),
        settle_with="replay the batches of those steps from the checkpoint before: same jump, then data"
        if harmful
        else "",
    )
