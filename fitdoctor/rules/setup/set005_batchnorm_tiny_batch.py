"""SET005 batchnorm-tiny-batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import replace_batch_norm
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import LOSS, NORM_SAMPLES, PROBE_LOSS


@rule(
    "SET005",
    "batchnorm-tiny-batch",
    needs=[NORM_SAMPLES],
    explains=[
        "val-set-too-noisy",
        "overfitting",
        "loss-spikes",
        "lr-noise-floor",
        "underfitting",
        "best-epoch",
        "distribution-shift",
        "no-learning",
    ],
    since="0.1.0",
)
def batchnorm_tiny_batch(
    run: Run, *, few: int = 16, tiny: int = 4, gap: float = 0.2, least: int = 3
) -> Iterator[Finding]:
    """Batch norm normalises over a handful of values.

    Why it matters:
        A mean and a variance of a few values are mostly noise. The model trains with that noise and is
        evaluated with running averages that fit no batch, so it is worse in eval mode than in training.

    How it is measured:
        The values per channel (batch times positions) that each batch norm layer in train mode takes its
        statistics over, on one process; the fewest of all layers. Below `few` it is a note; below `tiny`, or
        where the loss of the fixed training batch in eval mode ends more than `gap` above the training loss of a
        model without dropout, it is a warning. Batch norm that is frozen, or synchronised over processes, is not
        looked at.

    Options:
        few: values per channel.
        tiny: values per channel at which no measured harm is asked for.
        gap: relative distance of the loss in eval mode.
        least: fewest records.

    When it is wrong:
        A short last batch, where records fall on it alone; the median of the records is taken.

    What to do:
        Group or layer norm, a larger batch per process, or statistics over all processes.

    References:
        Wu and He 2018, Group Normalization: at 2 images per device batch norm has 34.7 % error on ImageNet,
        group norm 24.1 %; they differ from 16 per device downwards. The gap is a design value.
    """
    samples = run.get(NORM_SAMPLES)
    assert samples is not None  # the rule needs it
    if len(samples.finite) < least:
        raise CannotJudge(f"{len(samples.finite)} records of norm_samples, {least} are needed")
    count = float(np.median(samples.finite.values))
    if not 0 < count < few:
        return
    apart = _gap(run)
    warn = count < tiny or (apart is not None and apart[0] > gap)
    yield Finding(
        message=f"batch norm takes its statistics over {count:g} values per channel",
        severity=Severity.WARNING if warn else Severity.NOTE,
        confidence=Confidence.HIGH if apart is not None and apart[0] > gap else Confidence.MEDIUM,
        span=samples.span,
        evidence=(
            Evidence.of(samples, f"{count:g} in the median", f"{few} or more"),
            *((apart[1],) if apart is not None else ()),
        ),
        remedies=(replace_batch_norm(),),
        could_be=() if warn else ("harmless here",),
        settle_with="" if apart is not None else "evaluate one training batch in train and in eval mode (2 passes)",
    )


def _gap(run: Run) -> tuple[float, Evidence] | None:
    """How far the loss in eval mode lies above that in train mode, where dropout does not part them too."""
    probe, loss = run.get(PROBE_LOSS), run.get(LOSS)
    if probe is None or loss is None or run.facts.get("dropout_layers", 0) != 0:
        return None
    late, usual = probe.finite.values[-3:], loss.finite.values[-max(10, len(loss) // 5) :]
    if len(late) < 3 or len(usual) < 10 or np.median(usual) <= 0:
        return None
    ratio = float(np.median(late) / np.median(usual)) - 1
    seen = f"{np.median(late):.4g} on a fixed training batch in eval mode, {np.median(usual):.4g} in training"
    return ratio, Evidence.of(probe, seen, "about the same")
