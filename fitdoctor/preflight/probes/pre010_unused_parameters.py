"""PRE010 unused-parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, NOTE, WARNING, finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import use_or_freeze

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE010", "unused-parameters", cost=Cost(passes=8), explains=["one-batch-not-learned"], since="0.1.0", worth=3)
def unused_parameters(bench: Bench, *, batches: int = 4, share: float = 0.01) -> Iterator[Finding]:
    """Trainable parameters get no gradient from any batch.

    Why it matters:
        A layer that the forward pass forgets, or that stands behind a detach, is never trained. Under
        DistributedDataParallel it stops the training with an error.

    How it is measured:
        `batches` batches run forward and backward. A parameter whose gradient is None after each of them is unused;
        one whose gradient is exactly zero after each of them, before and after three steps of the optimizer, is cut
        off by a zero. Below `share` of all trainable entries it is a note.

    Options:
        batches: how many batches.
        share: share of the trainable entries from which it is a warning.

    When it is wrong:
        Branches that only some batches take (experts, rare heads) may not show in a few batches.

    What to do:
        Use, freeze or remove them.

    References:
        TrainCheck (2506.14813); PyTorch documentation, DistributedDataParallel(find_unused_parameters).
    """
    params = bench.trainable
    untouched, zero = set(params), set(params)

    def look() -> None:
        for batch in found[:batches]:
            for p in params.values():
                p.grad = None
            bench.look(bench.run(batch).loss)
            for name, p in params.items():
                if p.grad is not None:
                    untouched.discard(name)
                    if bool(p.grad.any()):
                        zero.discard(name)

    with bench.mode(training=True):
        first = bench.batches(1)[0]
        found = bench.batches(max(1, batches * max(1, len(first))))
        look()
        if zero - untouched:  # a branch that begins at zero opens with the first steps
            bench.fit(found[:1], 3)
            look()
    total = sum(p.numel() for p in params.values())
    for names, what in ((untouched, "no gradient"), (zero - untouched, "a gradient of exactly zero")):
        if not names:
            continue
        size = sum(params[n].numel() for n in names) / total
        listed = [n for n in params if n in names]
        yield finding(
            f"{len(names)} of {len(params)} trainable tensors get {what} ({size:.1%} of the entries)",
            WARNING if size >= share else NOTE,
            HIGH,
            seen("parameters_without_grad", some(listed, 5), "a gradient in every trainable tensor"),
            remedies=[use_or_freeze()],
            could_be=("a branch that other batches take",),
        )
        return
