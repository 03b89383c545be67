"""PRE014 defective-data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, NOTE, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import clean_data, restore_inputs

if TYPE_CHECKING:
    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE014",
    "defective-data",
    cost=Cost(examples=5_000),
    explains=[
        "program-fails",
        "wrong-initial-loss",
        "one-batch-not-learned",
        "input-ignored",
        "unnormalised-inputs",
        "poor-initialisation",
        "dead-units",
        "learning-rate-out-of-range",
        "labels-not-learned",
        "train-val-overlap",
    ],
    since="0.1.0",
    worth=3,
    vital=True,
)
def defective_data(bench: Bench, *, examples: int = 5_000, constant: float = 0.5) -> Iterator[Finding]:
    """Inputs or targets hold nan or inf, or all inputs are alike.

    Why it matters:
        One nan turns every weight into nan. Inputs that are all alike carry nothing to learn from.

    How it is measured:
        Up to `examples` examples of each split, read by index from all over the dataset, or from the beginning of an
        epoch. Features that never change are noted where they are more than `constant` of all.

    Options:
        examples: how many examples of each split are looked at.
        constant: share of constant features worth a note.

    When it is wrong:
        Rare defects outside the examples that were read are not seen. Padding may make many features constant.

    What to do:
        Find the examples; impute or remove them.

    References:
        Karpathy 2019 ("become one with the data").
    """
    for split, source in bench.sources.items():
        size = source.size or examples
        sample = source.sample(min(examples, size))
        yield from _judged(sample, split, constant)


def _judged(batch: Batch, split: str, constant: float) -> Iterator[Finding]:
    import torch

    from fitdoctor.preflight.batches import tensors

    n = len(batch)
    for part, values in (("inputs", tensors(batch.inputs)), ("targets", tensors(batch.target))):
        for tensor in values:
            if not tensor.is_floating_point() or not tensor.ndim or len(tensor) != n:
                continue
            bad = (~torch.isfinite(tensor)).reshape(n, -1).any(1)
            if bool(bad.any()):
                count = int(bad.sum())
                yield finding(
                    f"{count:,} of {n:,} {split} examples have nan or inf in their {part}",
                    ERROR,
                    HIGH,
                    seen(
                        "loss", f"first in example {int(bad.nonzero()[0])} of those read", "finite numbers", split=split
                    ),
                    remedies=[clean_data()],
                )
                return
    x = batch.x
    if x is None or n < 8 or x.ndim < 2:
        return
    flat = x.reshape(n, -1)
    fixed = (flat == flat[:1]).all(0)
    if bool(fixed.all()):
        yield finding(
            f"all of {n:,} {split} inputs are alike",
            ERROR,
            HIGH,
            seen("loss", "not one value differs between examples", "inputs that differ", split=split),
            remedies=[restore_inputs()],
        )
    elif (share := float(fixed.float().mean())) > constant and split == "train" and x.is_floating_point():
        yield finding(
            f"{share:.0%} of the {flat.shape[1]:,} input features are constant over {n:,} examples",
            NOTE,
            MEDIUM,
            seen("loss", f"{int(fixed.sum()):,} constant features", "features that vary"),
            remedies=[restore_inputs()],
            could_be=("padding or borders",),
        )
