"""PRE006 input-ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_labels, overfit_one_batch
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from torch import Tensor

    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE006",
    "input-ignored",
    cost=Cost(passes=400, examples=64),
    explains=["one-batch-not-learned", "labels-not-learned"],
    since="0.1.0",
)
def input_ignored(
    bench: Bench,
    *,
    examples: int = 64,
    steps: int = 200,
    sure: float = 3.0,
    explained: float = 0.5,
    little: float = 0.1,
) -> Iterator[Finding]:
    """The model learns no more from its inputs than from nothing.

    Why it matters:
        A mask, a detached branch or a collapsed layer can keep the inputs from the output. The model then learns the
        average answer, and its loss falls just enough to look alive.

    How it is measured:
        First exactly: two different examples must give different outputs. Then by training: the same short training
        (Adam at 1e-3, up to `steps` steps on `examples` fixed examples) with the inputs as they are, and with all
        of them replaced by their mean. The losses per example must differ by `sure` standard errors, or that with
        inputs be less than `explained` of the other. If not, there is a finding where inputs lower the loss by less
        than `little` of it, at most, within as many standard errors: inputs that are cut off change nothing at all.

    Options:
        examples: how many examples.
        steps: steps of each training.
        sure: standard errors by which real inputs must be better.
        explained: share of the loss without inputs below which there is no doubt.
        little: share of the loss without inputs that inputs may explain and still count as ignored.

    When it is wrong:
        A model that needs more steps than these to begin to learn.

    What to do:
        Follow one example through the model, layer by layer.

    References:
        Karpathy 2019 ("input-independent baseline").
    """
    import torch

    batch = bench.batch(examples)
    if len(batch) < 8 or batch.x is None:
        raise CannotJudge("a batch of eight examples or more is needed")
    if bool((batch.x == batch.x[:1]).all()):
        raise CannotJudge("all inputs of the batch are alike")
    if batch.target is None or (batch.own_target and bench.loss_of is not None):
        raise CannotJudge("the target cannot be told from the inputs: they would be blanked together")
    with bench.mode(training=True, dropout=False):
        output = bench.output(batch).float()
    same = len(output) > 1 and float((output - output[:1]).abs().max()) == 0.0
    blank = _blank(batch)
    real_losses, blank_losses = _learned(bench, batch, steps), _learned(bench, blank, steps)
    gain = blank_losses - real_losses
    error = float(gain.std()) / len(gain) ** 0.5
    if not torch.isfinite(gain).all():
        raise CannotJudge("the loss becomes nan in the short training")
    if float(gain.mean()) >= sure * max(error, 1e-12):
        return
    # A few hard examples make the mean uncertain, though the inputs explain most of the loss.
    if 0 < float(real_losses.mean()) < explained * float(blank_losses.mean()):
        return
    gained, unsure = (float(v) / max(float(blank_losses.mean()), 1e-12) for v in (gain.mean(), sure * error))
    if not same and gained + unsure > little:
        raise CannotJudge(
            f"inputs lower the loss by {gained:.0%}, give or take {unsure:.0%}: {len(gain)} examples are too few"
        )
    yield finding(
        "the output is the same for every input, and training does not change that" if same
        else f"{steps} steps with real inputs end at {float(real_losses.mean()):.3g}, with blank ones at "
        f"{float(blank_losses.mean()):.3g}",
        ERROR if same else WARNING,
        HIGH if same else MEDIUM,
        seen("loss", f"{float(real_losses.mean()):.3g} with inputs", f"clearly below {float(blank_losses.mean()):.3g}, "
             "which the same training reaches without them"),
        remedies=[overfit_one_batch(), check_labels()],
        could_be=() if same else ("labels that have nothing to do with the inputs", "a slow start"),
    )  # fmt: skip


def _blank(batch: Batch) -> Batch:
    """The batch with the inputs of every example replaced by their mean, ids by those of the first."""

    def flat(t: Tensor) -> Tensor:
        if not t.ndim:
            return t
        row = t.float().mean(0, keepdim=True).to(t.dtype) if t.is_floating_point() else t[:1]
        return row.expand_as(t).clone()

    return batch.with_inputs(flat)


def _learned(bench: Bench, batch: Batch, steps: int) -> Tensor:
    """float[n], the loss of each example after a short training."""
    import torch

    bench.rewind()
    with bench.mode(training=True, dropout=False):
        bench.fit([batch], steps, bench.adam(1e-3))
        with torch.no_grad():
            call = bench.run(batch).call
    bench.rewind()
    if call is None:
        raise CannotJudge("the loss is not one call of a loss function of torch")
    return call.per_example()
