"""PRE016 ragged-last-batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, NOTE, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import drop_last_batch
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE016", "ragged-last-batch", cost=Cost(passes=1), since="0.1.0", worth=2)
def ragged_last_batch(bench: Bench, *, share: float = 0.125) -> Iterator[Finding]:
    """The last batch of an epoch holds a few examples only.

    Why it matters:
        It takes a step as long as any other, from a much noisier gradient. With a single example, batch norm over
        vectors stops the training with an error at the end of the first epoch.

    How it is measured:
        By the size of dataset and batch. A last batch below `share` of the others is noted; where it holds one
        example, that example is run in train mode: what raises there is an error.

    Options:
        share: size relative to the other batches.

    When it is wrong:
        A loss that weighs examples, not batches, makes it harmless.

    What to do:
        drop_last=True for training.

    References:
        PyTorch documentation, torch.nn.BatchNorm1d.
    """
    source = bench.train
    size, batch, drops = source.size, source.batch_size, getattr(source.loader, "drop_last", None)
    if size is None or not batch or drops is None:
        raise CannotJudge("the number of examples or the size of a batch is unknown")
    rest = size % batch
    if drops or rest == 0 or size < batch:
        return
    if rest == 1:
        one = bench.batch(1)
        try:
            with bench.mode(training=True):
                bench.run(one)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                yield finding(
                    "the last batch of an epoch holds one example, which batch norm refuses",
                    ERROR, HIGH, seen("loss", " ".join(str(error).split())[:200], "two examples or more"),
                    remedies=[drop_last_batch()],
                )  # fmt: skip
                return
    if rest / batch > share:
        return
    yield finding(
        f"the last batch of an epoch holds {rest} of {batch} examples",
        NOTE, HIGH, seen("loss", f"{size:,} examples in batches of {batch}", f"{share * batch:.0f} or more, or none"),
        remedies=[drop_last_batch()],
    )  # fmt: skip
