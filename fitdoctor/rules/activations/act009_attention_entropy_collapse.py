"""ACT009 attention-entropy-collapse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import lower_learning_rate, warm_up
from fitdoctor.remedies.activations import bound_attention_weights, normalise_queries, rescale_queries
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ATTENTION_ENTROPY, ATTENTION_LOGIT_ABSMAX, ATTENTION_SHARP_FRACTION, LOSS, Signal
from fitdoctor.views.curves import Curve, make_curve, place
from fitdoctor.views.harm import harm, need_standing


@rule(
    "ACT009",
    "attention-entropy-collapse",
    needs=[Signal(ATTENTION_ENTROPY, layer="*"), LOSS],
    explains=[
        "loss-divergence",
        "no-learning",
        "plateau",
        "underfitting",
        "undertrained",
        "lr-noise-floor",
        "loss-spikes",
        "gradient-spikes",
        "vanishing-gradients",
        "layerwise-update-imbalance",
        "best-epoch",
        "class-collapse",
    ],
    since="0.1.0",
)
def attention_entropy_collapse(
    run: Run, *, low: float = 0.1, heads: float = 0.75, open_: float = 0.3, flat: float = 0.05, least: int = 10
) -> Iterator[Finding]:
    """Most heads of an attention come to look at a single key, and the training loss no longer falls.

    Why it matters:
        A softmax that gives everything to one key has no slope: queries and keys get no gradient, and the attention
        can neither average nor look elsewhere. In large transformers it goes with oscillation and divergence.

    How it is measured:
        On sampled queries, the entropy of the shares that they give to their keys, over the logarithm of the number
        of keys that the mask lets them see: 1 is even, 0 is one key. It is reported where for the last `least`
        records the mean of an attention is below `low`, and `heads` of its heads are.
        Sharp heads are what some tasks need. So training must have failed: an error where the loss blew up or never
        came down, a warning where less than half of what there is to learn was learned and the loss has fallen by
        less than `flat` of its range between the second and the last third of the steps since.

    Options:
        low: normalised entropy below which an attention is sharp.
        heads: least share of its heads that are.
        open_: normalised entropy above which an attention was open, so that it collapsed in training.
        flat: share of the range of the loss.
        least: fewest records in a row, at the end, and least number in all.

    When it is wrong:
        Attention that copies or looks up is sharp, and right; it is then reported only if the loss stalls high for
        another reason, and with low confidence where it was sharp from the start. Attention inside torch.compile, in
        checkpointed segments or by kernels of other libraries is not measured.

    What to do:
        Normalise queries and keys. Where it was sharp from the start, begin with smaller query and key weights;
        where it collapsed, warm up and lower the rate.

    References:
        Zhai et al. 2023, Stabilizing Transformer Training by Preventing Attention Entropy Collapse; Dehghani et al.
        2023 (ViT-22B), query-key normalisation; Wortsman et al. 2023. Limits are design values, above what heads of
        sound trainings show that have to look up one token of eight (0.3) and below those that do not learn to (0.02).
    """
    entropies = run.layers(ATTENTION_ENTROPY)
    longest = max(len(s.finite) for s in entropies.values())
    if longest < least:
        raise CannotJudge(f"{longest} records of attention, {least} are needed")
    stand = need_standing(run)
    shares = run.layers(ATTENTION_SHARP_FRACTION)
    found = {
        name: since for name, s in entropies.items() if (since := _low_since(s, shares.get(name), low, heads, least))
    }
    if not found:
        return
    onset = min(found.values())
    harmed = harm(run)
    if harmed is None and not (stand.unsolved and stand.mature and _stalled(stand.curve, onset, flat)):
        return
    name = min(found, key=lambda n: (found[n], n))
    series = entropies[name].finite
    born = not (series.between(series.span.first, onset).values > open_).any()
    end = float(np.median(series.values[-least:]))
    evidence = [
        Evidence.of(
            series,
            f"{end:.2g} at the end, {series.values[0]:.2g} at first",
            f"above {low:g}, as heads have that look at more than one key",
            ((onset, "sharp from here on"),),
        )
    ]
    largest = run.layers(ATTENTION_LOGIT_ABSMAX).get(name)
    if largest is not None:
        evidence.append(Evidence.of(largest, f"up to {largest.finite.values.max():.3g}", "about 10 or less"))
    left = f"{stand.curve.final:.4g} at the end, {stand.left:.0%} of that of an untrained model"
    evidence.append(harmed or Evidence.of(stand.curve.series, left, "falling, or below half"))
    where = "from the start" if born else f"since {place(run, onset)}"
    more = f" (and {len(found) - 1} of {len(entropies) - 1} more)" if len(found) > 1 else ""
    yield Finding(
        message=f"{name[-40:]} looks at one key alone: entropy {end:.2g} of 1 {where}{more}"[:100],
        severity=Severity.WARNING if harmed is None else Severity.ERROR,
        confidence=Confidence.LOW if born and harmed is None else Confidence.MEDIUM,
        span=Span(onset, series.span.last),
        evidence=tuple(evidence),
        remedies=_remedies(run, born=born),
        could_be=("a task that needs hard attention, and another fault",) if born else ("lr-too-high",),
        settle_with="a tenth of the steps with normalised queries and keys: a loss that falls further settles it",
    )


def _remedies(run: Run, *, born: bool) -> tuple[Remedy, ...]:
    if born:
        return rescale_queries(), normalise_queries(), bound_attention_weights()
    return lower_learning_rate(), warm_up(), normalise_queries(), bound_attention_weights()


def _low_since(series: Series, shares: Series | None, low: float, heads: float, least: int) -> int | None:
    """The step from which on an attention stays sharp to its end, or None."""
    kept = series.finite
    sharp = kept.values < low
    if shares is not None:
        share = shares.finite.at(kept.steps) if len(shares.finite) else np.zeros(len(kept))
        sharp &= share >= heads
    open_at = np.flatnonzero(~sharp)
    first = int(open_at[-1]) + 1 if len(open_at) else 0
    return int(kept.steps[first]) if len(kept) - first >= least else None


def _stalled(curve: Curve, onset: int, flat: float) -> bool:
    """The loss falls by next to nothing between the second and the last third of what follows the onset."""
    part = curve.series.between(onset, curve.series.span.last)
    if len(part.finite) < 9:
        return False
    tail = make_curve(part, least=1)
    thirds = np.array_split(tail.smooth, 3)
    gain = float(np.median(thirds[1])) - float(np.median(thirds[2]))
    return gain < max(flat * curve.swing, tail.noise)
