"""PRE012 unshuffled-data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import shuffle_batches
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE012",
    "unshuffled-data",
    cost=Cost(examples=4_000),
    explains=["input-ignored", "labels-not-learned"],  # batches of one class, which is known without the inputs
    since="0.1.0",
    worth=3,
)
def unshuffled_data(bench: Bench, *, examples: int = 2_000, chance: float = 1e-6) -> Iterator[Finding]:
    """The training examples come in the same order in every epoch, or sorted by class.

    Why it matters:
        Batches of a single class pull the model to and fro. The same order in every epoch repeats the same noise.

    How it is measured:
        The order of two epochs is drawn from the loader's sampler and compared. In the order of an epoch, the
        runs of equal labels are counted among the first `examples`: fewer than chance would give (Wald and Wolfowitz,
        with probability below `chance`) means sorted; one class per batch is an error.

    Options:
        examples: how many examples of an epoch are looked at.
        chance: probability below which an order of labels is no accident.

    When it is wrong:
        Curricula, buckets by length, and time series are in order on purpose: without classes, the same order is a
        note. A DistributedSampler needs set_epoch in the loop, which cannot be seen from here.

    What to do:
        shuffle=True, or a sampler that draws anew in every epoch.

    References:
        Wald and Wolfowitz 1940; PyTorch documentation, DistributedSampler.set_epoch.
    """
    import numpy as np
    import torch

    source = bench.train
    labels: NDArray[np.int64] | None = None
    first = source.epoch_order(examples)
    if first is not None:
        again = source.epoch_order(examples)
        repeats = first == again and len(first) > 2
        batches = source.batches(examples)
    else:
        batches = source.batches(examples)
        other = []
        for i, raw in enumerate(source.fresh()):
            if i >= min(4, len(batches)):
                break
            other.append(_print(raw))
        repeats = [_print(b.raw) for b in batches[: len(other)]] == other and len(batches) > 1
    distributed = isinstance(getattr(source.loader, "sampler", None), torch.utils.data.DistributedSampler)
    parts = [bench.labels(b) for b in batches]
    if all(p is not None for p in parts):
        labels = np.concatenate([p.cpu().numpy() for p in parts if p is not None])
        labels = None if len(np.unique(labels)) > max(2, len(labels) // 5) else labels
    if labels is not None and len(np.unique(labels)) > 1:
        yield from _sorted(labels, [len(b) for b in batches], chance)
    elif labels is not None and (size := source.size or 0) > 2 * len(labels):
        yield from _one_class_first(bench, labels, size)
    if distributed:
        raise CannotJudge("a DistributedSampler repeats its order unless the loop calls set_epoch")
    if repeats:
        yield finding(
            "two epochs bring the examples in the same order", NOTE, HIGH,
            seen("loss", f"the same order of {len(first or batches):,} examples or batches twice", "a new one"),
            remedies=[shuffle_batches()], could_be=("an order that is meant: time series, curriculum, buckets",),
        )  # fmt: skip


def _sorted(labels: NDArray[np.int64], sizes: list[int], chance: float) -> Iterator[Finding]:
    import numpy as np
    from scipy.stats import norm

    n = len(labels)
    counts = np.unique(labels, return_counts=True)[1].astype(float)
    runs = 1 + int((labels[1:] != labels[:-1]).sum())
    square, cube = float((counts**2).sum()), float((counts**3).sum())
    mean = (n * (n + 1) - square) / n
    variance = (square * (square + n * (n + 1)) - 2 * n * cube - n**3) / (n**2 * (n - 1))
    if variance <= 0 or norm.cdf((runs - mean) / variance**0.5) >= chance:
        return
    ends = np.cumsum([s for s in sizes if s])
    pure = float(np.mean([len(np.unique(p)) == 1 for p in np.split(labels, ends[:-1]) if len(p) > 1]))
    yield finding(
        f"examples are sorted by class: {runs:,} runs of equal labels where chance gives {mean:,.0f}",
        ERROR if pure > 0.5 else WARNING, HIGH,
        seen("loss", f"{runs:,} runs among {n:,} labels, {pure:.0%} of the batches hold one class",
             f"about {mean:,.0f} runs"),
        remedies=[shuffle_batches()],
    )  # fmt: skip


def _one_class_first(bench: Bench, labels: NDArray[np.int64], size: int) -> Iterator[Finding]:
    """All of the first examples have one class: sorted, unless the split holds hardly another."""
    sample = bench.labels(bench.train.sample(500))
    if sample is None:
        return
    share = float((sample == int(labels[0])).float().mean())
    if share ** len(labels) < 1e-6:
        yield finding(
            f"the first {len(labels):,} examples of an epoch all have class {int(labels[0])}",
            ERROR, HIGH, seen("loss", f"one class in {len(labels):,} examples", f"{share:.0%} of them, its share"),
            remedies=[shuffle_batches()],
        )  # fmt: skip


def _print(raw: object) -> bytes:
    """A batch as bytes, to be compared."""
    from fitdoctor.preflight.batches import tensors
    from fitdoctor.preflight.guard import checksum

    return b"".join(checksum(t) for t in tensors(raw))
