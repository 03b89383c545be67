"""PRE019 train-val-overlap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import remove_duplicates
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE019",
    "train-val-overlap",
    cost=Cost(examples=20_000),
    needs=["val_loader"],
    explains=["labels-not-learned"],
    since="0.1.0",
    worth=3,
)
def train_val_overlap(
    bench: Bench, *, examples: int = 10_000, share: float = 0.001, near: float = 0.05
) -> Iterator[Finding]:
    """Examples of the validation or test split are in the training split too.

    Why it matters:
        They measure memory. Results look better than they are, most for the models that memorise most.

    How it is measured:
        Inputs of up to `examples` examples of each split are compared, byte by byte; then by distance, where an
        example is a near-duplicate when its nearest training example is closer than `near` of the distance that
        training examples have to each other (median). The share of duplicates must exceed what the training split has
        within itself, and `share`, by two standard errors.

    Options:
        examples: how many examples of each split are compared.
        share: share of duplicates that is let pass.
        near: distance relative to the usual one.

    When it is wrong:
        Inputs of few possible values repeat by nature: the training split then repeats within itself as well, and is
        the measure, unless features are so many and so varied that chance cannot make two examples equal. Augmentation
        hides exact duplicates. Above `examples`, a part of the data is compared.

    What to do:
        Remove the duplicates from the validation split; split by source.

    References:
        Barz and Denzler 2020 (1902.00423): CIFAR-10 and CIFAR-100 hold 3.3 and 10 % of duplicates.
    """
    train = bench.train.sample(examples)
    natural = _twice(train)
    inside = 0.0 if _too_rich_to_repeat(train) else natural
    for split in ("val", "test"):
        if split not in bench.sources:
            continue
        held = bench.sources[split].sample(examples)
        known = set(_keys(train))
        same = [k in known for k in _keys(held)]
        found = sum(same) / max(1, len(same))
        read = len(train) / max(len(train), bench.train.size or 0)
        kind = "identical"
        if not _stands_out(found / max(read, 1e-9), len(same), inside, share):
            found, usual = _near(train, held, near)
            kind = "nearly identical"
            if not _stands_out(found, len(held), usual, share):
                continue
        else:
            found = min(1.0, found / max(read, 1e-9))
        yield finding(
            f"{found:.1%} of the {split} examples are {kind} to training examples",
            ERROR if kind == "identical" and found > 0.01 and natural < found / 2 else WARNING,
            HIGH if kind == "identical" and natural < found / 2 else MEDIUM,
            seen(
                "accuracy",
                f"{found:.2%} of {len(same):,} {split} examples",
                f"{inside:.2%}, as within the training split" if inside or not natural else "none",
                split=split,
            ),
            remedies=[remove_duplicates()],
            could_be=("examples that were copied before the split",) if natural >= found / 2 else (),
        )
        return


def _stands_out(found: float, n: int, usual: float, share: float) -> bool:
    """Whether a share is above a usual one by more than two standard errors, and by two examples."""
    error = (max(found * (1 - min(found, 1.0)), 1 / max(1, n)) / max(1, n)) ** 0.5
    return found * n >= 2 and found - usual > share and found - usual > 2 * error


def _keys(batch: Batch) -> list[bytes]:
    """Each example's inputs as bytes."""
    from hashlib import blake2b

    from fitdoctor.preflight.batches import tensors

    n = len(batch)
    columns = [t.cpu().contiguous() for t in tensors(batch.inputs) if t.ndim and len(t) == n]
    if not columns:
        raise CannotJudge("the inputs hold no tensor with one row per example")
    parts = [c.reshape(n, -1) for c in columns]
    return [blake2b(b"".join(p[i].float().numpy().tobytes() for p in parts), digest_size=16).digest() for i in range(n)]


def _twice(batch: Batch) -> float:
    """Share of examples that occur earlier in the same split: of a second half in a first half of equal size."""
    keys = _keys(batch)
    half = len(keys) // 2
    if half == 0:
        return 0.0
    first = set(keys[:half])
    return 2 * sum(k in first for k in keys[half:]) / max(1, len(keys) - half)


def _too_rich_to_repeat(batch: Batch, chance: float = 1e-12) -> bool:
    """Whether two examples cannot be equal by chance: by the product over features of the chance of equal values.

    Features depend on each other, so the bar is far below one in all pairs of examples; and half of the features must
    take more than ten values, since sets of categories may repeat in fixed combinations.
    """
    import numpy as np

    x = batch.x
    if x is None or not x.is_floating_point() or len(x) < 32:
        return False
    flat = x.detach().cpu().reshape(len(x), -1)[:, :256].double().numpy()
    logs, varied, rows = 0.0, [], len(flat)
    for column in flat.T:
        counts = np.unique(column, return_counts=True)[1]
        if len(counts) > 1:
            varied.append(len(counts))
            # Of pairs of different examples, so that unlike values of n examples give one in n at most.
            logs += float(np.log10(max(1 / rows, float(((counts / rows) ** 2).sum()))))
    return bool(varied) and float(np.median(varied)) > 10 and logs < np.log10(chance)


def _near(train: Batch, held: Batch, near: float) -> tuple[float, float]:
    """Share of held-out examples with a near-duplicate in training, and of training examples within themselves."""
    import numpy as np

    from fitdoctor.preflight.features import distances, standardised, table

    try:
        a, projection = table(train)
        b, _ = table(held, projection)
    except CannotJudge:
        return 0.0, 0.0
    if a.shape[1] < 8:  # in few dimensions neighbours are close by nature
        return 0.0, 0.0
    a, b = standardised(a[:2_000], b[:1_000])
    within = distances(a, a)
    np.fill_diagonal(within, np.inf)
    own = within.min(1)
    across = distances(b, a).min(1)
    limit = near * float(np.median(own))
    return float(np.mean(across <= limit)), float(np.mean(own <= limit))
