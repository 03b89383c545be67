"""DAT002 outlying-batches."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import clip_gradients, inspect_batches
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACTIVATION_RMS, LOSS, WEIGHT_NORM, Signal
from fitdoctor.views.curves import find_curve, place
from fitdoctor.views.harm import find_standing, untrained_loss
from fitdoctor.views.inputs import Outliers, outlying_inputs


@rule(
    "DAT002",
    "outlying-batches",
    needs=[Signal(ACTIVATION_RMS, layer="*"), Signal(WEIGHT_NORM, layer="*")],
    explains=[
        "lr-too-high",
        "lr-too-low",
        "loss-spikes",
        "gradient-spikes",
        "loss-divergence",
        "nonfinite-loss",
        "hidden-nonfinite",
        "exploding-gradients",
        "gradient-clipping-saturated",
        "dead-relu",
        "saturated-activations",
        "input-collapse",
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "undertrained",
        "lr-noise-floor",
        "adam-second-moment-lag",
        "repeated-batch-order",
        "val-better-than-train",
        "logit-drift",
    ],
    since="0.1.0",
)
def outlying_batches(run: Run, *, times: float = 5.0, alone: float = 3.0, taken: float = 0.25) -> Iterator[Finding]:
    """Some batches hold inputs of quite another size than the others, and the loss pays for it.

    Why it matters:
        A batch whose inputs are a hundred times too large gives a gradient that is as much longer. One such step
        throws a model away; many of them are what the optimizer works on, in place of the data.

    How it is measured:
        The outputs of the first layer that has weights, over the size of these, follow the size of the inputs. A
        recorded batch is outlying where that is `times` what the nine records around it have, and 8 robust standard
        deviations of such ratios. Records are a sample: most outlying batches are never seen so. A note by itself. A
        warning where losses of single steps lie above `alone` times the loss of guessing and are together more than
        `taken` of all that was summed over the run, or less than half of what there is to learn was learned; an error
        where nothing was learned.

    Options:
        times: least size of the inputs of a batch, as a multiple of those around it.
        alone: loss of a step, in losses of guessing, that no sound batch has.
        taken: share of the sum of all training losses.

    When it is wrong:
        Sizes that belong to the data: prices, energies, counts with heavy tails; then their logarithm is the remedy.
        A model whose first layer works on something else than the inputs is not judged.

    What to do:
        Look at the batches at those steps: samples in other units, a step of preprocessing left out, corrupt files.
        Remove or mend them; clip inputs or gradients where they belong to the data.

    References:
        Huber 1964 (what a single outlier does to a mean); Chowdhery et al. 2022 (PaLM) left out batches at spikes. On
        trainings with every 37th batch multiplied by 3 to 1000, a quarter of the summed loss separates those whose
        held-out loss suffers from those that get over it.
    """
    seen = outlying_inputs(run, times=times)
    if seen is None:
        raise CannotJudge("too few records of a first layer that sees the inputs as they are; 20 are needed")
    if not len(seen.steps):
        return
    severity, evidence = _harm(run, alone, taken)
    yield Finding(
        message=f"inputs of {len(seen.steps)} of {len(seen.outputs)} recorded batches are up to {seen.times:.2g} times "
        "as large as others",
        severity=severity,
        confidence=Confidence.MEDIUM if severity is Severity.NOTE or len(seen.steps) == 1 else Confidence.HIGH,
        span=Span(seen.outputs.span.first, int(seen.steps[-1])),
        evidence=(_shown(run, seen), *evidence),
        remedies=(inspect_batches(), clip_gradients()),
        could_be=("data with heavy tails",) if severity is Severity.NOTE else (),
        settle_with="train a tenth of the steps with inputs cut at 5 standard deviations: no more jumps, then the data",
    )


def _shown(run: Run, seen: Outliers) -> Evidence:
    first = place(run, int(seen.steps[0]))
    return Evidence.of(
        seen.outputs,
        f"{seen.times:.3g} times those around at most, first at {first}",
        "outputs of the first layer within a factor of 2 from batch to batch",
        marks=tuple((int(step), "outlying batch") for step in seen.steps[:5]),
    )


def _harm(run: Run, alone: float, taken: float) -> tuple[Severity, tuple[Evidence, ...]]:
    """What the losses of single steps show of it."""
    loss, curve, stand = run.get(LOSS, per="step") or run.get(LOSS), find_curve(run, LOSS), find_standing(run)
    untrained = None if curve is None else untrained_loss(run, curve)
    if loss is None or untrained is None or stand is None or loss.per == "epoch":
        return Severity.NOTE, ()
    values = loss.finite.values
    high = values > alone * untrained
    share = float(values[high].sum() / max(values.sum(), 1e-300))
    if not high.any() or not (share > taken or (stand.unsolved and stand.mature)):
        return Severity.NOTE, ()
    worst = int(loss.finite.steps[int(values.argmax())])
    told = Evidence.of(
        loss,
        f"{int(high.sum())} steps above {alone:g} times the loss of guessing, up to {values.max():.4g}: "
        f"{share:.0%} of all loss",
        f"below {alone * untrained:.3g}",
        marks=((worst, "highest"),),
    )
    return Severity.ERROR if stand.idle else Severity.WARNING, (told,)
