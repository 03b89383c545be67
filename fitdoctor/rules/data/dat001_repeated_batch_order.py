"""DAT001 repeated-batch-order."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import shuffle_batches
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import LOSS
from fitdoctor.views.order import even, period_of, repetition, residual_of, sorted_blocks, two_later
from fitdoctor.views.plans import steps_per_epoch


@rule("DAT001", "repeated-batch-order", needs=[LOSS], since="0.1.0")
def repeated_batch_order(
    run: Run, *, correlation: float = 0.3, z: float = 3.5, epochs: int = 3, batches: int = 20, neighbours: int = 9
) -> Iterator[Finding]:
    """The training loss repeats itself batch by batch in every epoch: the data is not shuffled anew.

    Why it matters:
        With the same batches in the same order, the noise of the gradient repeats as well, and the model
        can learn the order. Sorted data is the worst case: each batch holds one class only.

    How it is measured:
        On training losses logged at evenly spaced steps. What is common to `neighbours` neighbouring batches
        is taken away (with it go trends, and the sawtooth that Adam shows with sound shuffling), the rest is
        scaled to its local spread. Its mean correlation between epochs must exceed `correlation` and `z`
        standard deviations of what independent batches give. The positions that stand out most are left
        out, so that a jump at the start of each epoch is not enough. The rest must be more like itself an epoch later
        than two batches later (half as like at most): a smooth curve, that of full batches or of a loss that explodes,
        and one that swings from step to step repeat themselves without any batches. The epoch length is known from
        the log, or searched for among all periods from `batches` up.

    Options:
        correlation: least mean correlation of the residual loss between epochs.
        z: least correlation in standard deviations of chance; 1.5 more when the epoch length is not known.
        epochs: fewest epochs.
        batches: fewest logged batches in an epoch.
        neighbours: batches over which common changes are taken away.

    When it is wrong:
        Curricula, and batches bucketed by length in a fixed order, repeat on purpose. Logging at a stride that
        does not divide the epoch hides the repetition.

    What to do:
        Shuffle in every epoch; with a DistributedSampler call set_epoch.

    References:
        PyTorch documentation, DistributedSampler.set_epoch: without it the order is the same in every epoch.
        The epochal sawtooth of Adam: arXiv 2410.10056. Thresholds from simulation: one false alarm
        in 4000 shuffled runs of 3 to 11 epochs with 20 to 119 batches.
    """
    loss = run.get(LOSS, per="step") or run.get(LOSS)
    assert loss is not None  # the rule needs it
    values, stride = even(loss)
    if loss.per == "epoch" or run.step_unit == "epoch" or len(values) < epochs * batches:
        raise CannotJudge(f"{len(values)} evenly spaced losses per batch, {epochs} epochs of {batches} are needed")
    residual = residual_of(values, neighbours)
    known = steps_per_epoch(run)
    if known is not None:
        period = round(known / stride)
        if abs(period * stride - known) > 0.01 * stride or period < batches or len(values) < epochs * period:
            raise CannotJudge(f"{len(values)} losses every {stride} steps, {epochs} epochs of {batches} are needed")
    else:
        found = period_of(residual, batches, epochs)
        if found is None:
            return
        period = found
    repeated, deviations = repetition(residual, period)
    # A period that was searched for had many chances to stand out by luck.
    if repeated <= correlation or deviations <= (z if known is not None else z + 1.5):
        return
    if two_later(residual) > 0.5 * repeated:
        return  # smooth, or swinging: of batches that differ, the second next has nothing in common with this one
    if sorted_blocks(run) is not None:
        return  # sorted-batches says more
    length = period * stride
    yield Finding(
        message=f"training loss repeats batch by batch every {length} steps (correlation {repeated:.2f})",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH if repeated > 0.5 and known is not None else Confidence.MEDIUM,
        span=loss.span,
        evidence=(
            Evidence.of(
                loss,
                f"correlation {repeated:.2f} between epochs, {deviations:.0f} standard deviations above chance",
                "about 0 when every epoch has its own order",
                marks=tuple((int(loss.steps[0]) + length * k, "order begins again") for k in range(1, 4)),
            ),
        ),
        remedies=(shuffle_batches(),),
        could_be=("a curriculum, or batches in a fixed order on purpose",),
        settle_with="hash the sample indices of two epochs and compare (two passes over the sampler)",
    )
