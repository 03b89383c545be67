"""DAT003 sorted-batches."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import shuffle_batches
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import LOSS
from fitdoctor.views.harm import find_standing
from fitdoctor.views.order import BATCHES, EPOCHS, even, sorted_blocks


@rule(
    "DAT003",
    "sorted-batches",
    needs=[LOSS],
    explains=[
        "repeated-batch-order",
        "lr-too-high",
        "loss-spikes",
        "gradient-spikes",
        "loss-divergence",
        "dead-relu",
        "saturated-activations",
        "input-collapse",
        "no-learning",
        "class-collapse",
        "plateau",
        "underfitting",
        "undertrained",
        "lr-noise-floor",
        "lr-too-low",
        "val-better-than-train",
        "warmup-missing-or-short",
        "distribution-shift",
        "overconfidence-drift",
        "overfitting",
        "best-epoch",
        "logit-drift",
        "val-set-too-noisy",
    ],
    since="0.1.0",
    state=True,
)
def sorted_batches(run: Run, *, alike: float = 0.35, again: float = 0.45) -> Iterator[Finding]:
    """Batches come sorted: each is like the one before it, in the same order in every epoch.

    Why it matters:
        A batch that holds one class teaches the model to name that class, and the next one to forget it. Statistics of
        BatchNorm are those of one class. What is learned at the end of an epoch is what came last.

    How it is measured:
        On training losses of single steps, in the second half of the run. What is left of their logarithm when the
        average over an epoch and a smooth curve within it are taken away must correlate with the next batch (`alike`)
        and with the same place an epoch later (`again`). In data that were shuffled once, and come in that order ever
        after, neighbours have nothing in common: that is repeated-batch-order. The length of an epoch is known from the
        log, else the distance of evaluations, else searched for. An error where nothing was learned.

    Options:
        alike: least correlation of the loss of a batch with that of the next.
        again: least correlation of the loss of a batch with that at the same place in the next epoch.

    When it is wrong:
        Curricula and batches bucketed by length in a fixed order repeat on purpose. Long recordings read in order (time
        series, video) are alike by nature; shuffling them helps as well, where the model keeps no state across batches.

    What to do:
        Shuffle in every epoch. An IterableDataset needs a shuffle buffer much longer than a block.

    References:
        Bengio 2012, Practical Recommendations (shuffling); PyTorch documentation, DataLoader (shuffle=False is the
        default). Written on trainings whose data were sorted by class in part or as a whole: 0.44 to 0.66 and 0.5 to
        0.94 where that did harm, below 0.25 for neighbours where the order was fixed or the sorting did none.
    """
    loss = run.get(LOSS, per="step") or run.get(LOSS)
    assert loss is not None  # the rule needs it
    values, stride = even(loss)
    if loss.per == "epoch" or run.step_unit == "epoch" or stride != 1 or len(values) < 2 * EPOCHS * BATCHES:
        raise CannotJudge(f"{len(values)} losses of successive steps, {2 * EPOCHS} epochs of {BATCHES} are needed")
    found = sorted_blocks(run, alike=alike, again=again)
    if found is None:
        return
    stand = find_standing(run)
    yield Finding(
        message=f"batches come sorted: each is like the next, in the same order every {found.period} steps",
        severity=Severity.ERROR if stand is not None and stand.idle else Severity.WARNING,
        confidence=Confidence.HIGH if found.next > 1.3 * alike else Confidence.MEDIUM,
        span=loss.span,
        evidence=(
            Evidence.of(
                loss,
                f"correlation {found.next:.2f} with the next batch, {found.again:.2f} with that of an epoch later",
                "about 0 for both when every epoch has its own order",
            ),
        ),
        remedies=(shuffle_batches(),),
        could_be=("a curriculum, or a recording that is read in order",),
        settle_with="count the classes in ten successive batches",
    )
