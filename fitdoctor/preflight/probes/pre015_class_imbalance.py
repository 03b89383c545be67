"""PRE015 class-imbalance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, MEDIUM, NOTE, WARNING, finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import split_by_group, turn_class_weights, weigh_classes
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from torch import Tensor

    from fitdoctor.preflight.bench import Bench


@probe("PRE015", "class-imbalance", cost=Cost(examples=5_000), since="0.1.0", worth=1)
def class_imbalance(bench: Bench, *, ratio: float = 10.0, examples: int = 5_000) -> Iterator[Finding]:
    """Some classes are much rarer than others, or missing from the training split.

    Why it matters:
        Accuracy hides rare classes; a class that is never trained can never be predicted.

    How it is measured:
        Labels of up to `examples` examples of each split. The largest class over the smallest above `ratio` is a
        note. A class with five or more validation examples of which training has none is a warning, and so are class
        weights of the loss that rise with the counts: correlation of their logarithms above one half, both twofold.

    Options:
        ratio: of the largest to the smallest class.
        examples: how many examples of each split are looked at.

    When it is wrong:
        Imbalance alone is no fault, so it is only noted. Among few examples a rare class may be missed.

    What to do:
        Report balanced metrics; weigh or resample rare classes if their errors matter.

    References:
        Japkowicz and Stephen 2002.
    """
    labels = bench.labels(bench.train.sample(examples))
    if labels is None:
        raise CannotJudge("the targets are no classes")
    values, counts = labels.cpu().unique(return_counts=True)  # type: ignore[no-untyped-call]
    if len(values) > len(labels) / 5:
        raise CannotJudge("there are too many classes for the examples that were read")
    bench.facts["classes"] = max(len(values), bench.first_call.classes if bench.first_call else 0)
    if "val" in bench.sources:
        val = bench.labels(bench.sources["val"].sample(examples))
        if val is not None:
            held, number = val.cpu().unique(return_counts=True)  # type: ignore[no-untyped-call]
            unseen = [
                f"class {int(c)} ({int(k)})" for c, k in zip(held, number, strict=True) if k >= 5 and c not in values
            ]
            if unseen:
                yield finding(
                    f"{len(unseen)} validation classes are missing among {len(labels):,} training examples",
                    WARNING,
                    HIGH if len(labels) == bench.train.size else MEDIUM,
                    seen("accuracy", some(unseen, 5), "examples of every class", split="val"),
                    remedies=[split_by_group()],
                )
                return
    upside_down = _upside_down(bench, labels)
    if upside_down is not None:
        yield upside_down
        return
    worst = float(counts.max() / counts.min())
    if worst > ratio and len(values) > 1:
        top = float(counts.max() / counts.sum())
        rare = int(values[counts.argmin()])
        yield finding(
            f"the largest class is {worst:.0f} times the smallest: accuracy {top:.0%} is free",
            NOTE,
            HIGH,
            seen(
                "accuracy",
                f"{int(counts.min())} of {len(labels):,} examples have class {rare}",
                f"within {ratio:g}-fold",
            ),
            remedies=[weigh_classes()],
        )


def _upside_down(bench: Bench, labels: Tensor) -> Finding | None:
    """A finding where the weights of the loss favour the classes that are frequent already."""
    import numpy as np
    import torch

    call = bench.first_call
    if call is None:
        return None
    weight: Tensor | None
    if (single := call.options.get("pos_weight")) is not None and single.numel() == 1 and call.classes == 2:
        weight = torch.stack([torch.ones(()), single.detach().cpu().reshape(())])
    else:
        weight = call.options.get("weight")
    if weight is None or call.name == "binary_cross_entropy" or weight.numel() != call.classes:
        return None
    weights = weight.detach().cpu().double().numpy()
    counts = np.bincount(labels.cpu().numpy(), minlength=call.classes)[: call.classes]
    seen_classes = counts > 0
    weights, counts = weights[seen_classes], counts[seen_classes]
    if len(counts) < 2 or counts.max() < 2 * counts.min() or weights.max() < 2 * weights.min():
        return None
    order = float(np.corrcoef(np.log(np.maximum(weights, 1e-9)), np.log(counts))[0, 1])
    if order <= 0.5 or weights[counts.argmin()] >= np.median(weights):
        return None
    rare = int(np.flatnonzero(seen_classes)[counts.argmin()])
    return finding(
        f"class weights rise with the class counts: class {rare}, the rarest, weighs {weights[counts.argmin()]:.2g}",
        WARNING,
        HIGH if order > 0.9 or len(counts) == 2 else MEDIUM,
        seen(
            "accuracy",
            f"{int(counts.min())} of {len(labels):,} examples; the most frequent class weighs "
            f"{weights[counts.argmax()]:.2g}",
            "the largest weight for the rarest class",
        ),
        remedies=[turn_class_weights()],
    )
