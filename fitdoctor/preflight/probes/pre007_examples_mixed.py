"""PRE007 examples-mixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import batch_first
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE007", "examples-mixed", cost=Cost(passes=4), explains=["one-batch-not-learned"], since="0.1.0", worth=3)
def examples_mixed(bench: Bench, *, examples: int = 8, tolerance: float = 1e-3) -> Iterator[Finding]:
    """The output of one example depends on the other examples of its batch.

    Why it matters:
        A wrong view, a softmax over the wrong dimension, or a recurrent layer that takes the batch for time lets
        examples see each other. Training may seem to work; single predictions will not.

    How it is measured:
        In eval mode, one example of a small batch is replaced by another; the outputs of the others must stay, within
        `tolerance` of their spread. A model whose outputs grow with the batch (one score per pair) is left alone.

    Options:
        examples: size of the batch.
        tolerance: change of an output relative to the spread of the outputs, above rounding.

    When it is wrong:
        Batch norm without running statistics, and models that compare examples on purpose.

    What to do:
        Check view, reshape, the dimension of softmax, and batch_first.

    References:
        Karpathy 2019 ("use backprop to chart dependencies").
    """
    import torch

    batch = bench.batch(examples + 1)
    if len(batch) < 4:
        raise CannotJudge("batches of four examples or more are needed")
    n = len(batch) - 1
    with bench.mode(training=False):
        short = batch.rows(slice(0, n))
        first, again = bench.output(short), bench.output(short)
        other = bench.output(batch.rows([n, *range(1, n)]))
        fewer = bench.output(batch.rows(slice(0, n - 1)))
    if first.ndim > 1 and first.shape[1:] != fewer.shape[1:]:
        raise CannotJudge("the output has one column per example: the model compares examples")
    if not torch.allclose(first, again, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise CannotJudge("the output is random in eval mode")
    spread = float(first.float().std()) or float(first.float().abs().mean()) or 1.0
    change = (first[1:].float() - other[1:].float()).abs().reshape(n - 1, -1).amax(1) / spread
    touched = int((change > tolerance).sum())
    if not touched:
        return
    unnormed = any(
        isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and not m.track_running_stats
        for m in bench.model.modules()
    )
    yield finding(
        f"replacing one example changes the outputs of {touched} of the {n - 1} others in eval mode",
        WARNING if unnormed else ERROR,
        MEDIUM if unnormed else HIGH,
        seen("logit_std", f"changes up to {float(change.max()):.2g} of the outputs' spread", "none"),
        remedies=[batch_first()],
        could_be=("batch norm without running statistics",) if unnormed else (),
    )
