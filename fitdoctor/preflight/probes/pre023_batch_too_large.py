"""PRE023 batch-too-large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import smaller_batches
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE023", "batch-too-large", cost=Cost(passes=4), since="0.1.0")
def batch_too_large(bench: Bench, *, limit: float = 0.9) -> Iterator[Finding]:
    """A training step will need more memory than the device has.

    Why it matters:
        Out of memory ends the training, often not in the first step but in that with the longest inputs.

    How it is measured:
        A ladder of three small batches, from two examples to an eighth of a batch (at least six): what each adds for
        activations, by the allocator's peak on a GPU, by the tensors that autograd keeps on a CPU. A line through them,
        with weights, gradients and the optimizer's state, predicts the need of a whole batch and the largest batch
        that fits in `limit` of the device. Nothing near the limit is ever allocated.

    Options:
        limit: share of the memory that a step may take.

    When it is wrong:
        Inputs longer than those of the first batch, other processes on the device, and fragmentation need more. On
        a CPU temporary memory of single operations is not counted.

    What to do:
        Smaller batches with accumulation, mixed precision, activation checkpointing.

    References:
        PyTorch documentation, torch.cuda.max_memory_allocated, torch.autograd.graph.saved_tensors_hooks.
    """
    from fitdoctor.preflight.memory import ladder

    batch = bench.batch(1 << 30)
    if len(batch) < 3:
        raise CannotJudge("batches of three examples or more are needed")
    told = ladder(bench, batch)
    largest = int(max(0.0, limit * told.free - told.fixed) / told.per_example)
    bench.facts["largest_batch"] = largest
    need = told.fixed + told.per_example * len(batch)
    if need <= limit * told.free:
        return
    parts = next(
        (n for n in (2, 4, 8, 16, 32, 64) if told.fixed + told.per_example * len(batch) / n <= limit * told.free), 64
    )
    yield finding(
        f"a step with {len(batch):,} examples needs about {need / 2**30:.1f} GiB, {told.free / 2**30:.1f} GiB are free",
        ERROR if need > told.free else WARNING, HIGH if told.measured else MEDIUM,
        seen("memory", f"{told.fixed / 2**20:.0f} MiB and {told.per_example / 2**20:.2f} MiB per example",
             f"at most {largest:,} examples per batch", points=told.points),
        remedies=[smaller_batches(parts)],
    )  # fmt: skip
