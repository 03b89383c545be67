"""PRE011 evaluation-differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, LOW, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import consistent_evaluation, same_preprocessing
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench


@probe("PRE011", "evaluation-differs", cost=Cost(passes=60), since="0.1.0")
def evaluation_differs(bench: Bench, *, gap: float = 0.2, passes: int = 40, few: int = 16) -> Iterator[Finding]:
    """In eval mode the model is random, or another model than in training.

    Why it matters:
        Dropout that ignores the mode, or augmented validation examples, make every evaluation a draw; batch norm over
        a few examples trains with statistics that evaluation never sees. Results then say little about what was
        trained.

    How it is measured:
        One batch in eval mode twice: the outputs must agree. Where they do not and no dropout is called, the model
        samples (a variational one, say), which is only noted; so are validation examples that change between two
        readings. Then, for models with batch norm: `passes` forward passes
        in train mode fill the running statistics; the loss of the same batches in eval mode must be within `gap` of
        that in train mode, dropout off in both.

    Options:
        gap: relative difference of the losses.
        passes: forward passes that fill the running statistics.
        few: values per channel below which batch norm is named as the cause.

    When it is wrong:
        Monte-Carlo dropout is random on purpose. Untrained statistics are filled first, so that a new model is
        not blamed for being new.

    What to do:
        Pass training=self.training to functional dropout; use group norm for tiny batches.

    References:
        Wu and He 2018 (1803.08494) on batch norm with small batches.
    """
    import torch

    if "val" in bench.sources and bench.sources["val"].varies:
        yield finding(
            "validation examples differ from reading to reading",
            NOTE, HIGH, seen("loss", "one example read twice is not the same", "the same", split="val"),
            remedies=[same_preprocessing()], could_be=("evaluation on augmented examples, on purpose",),
        )  # fmt: skip
    batch = bench.batch(64)
    with bench.mode(training=False):
        first, again = bench.output(batch).float(), bench.output(batch).float()
    spread = float(first.std()) or 1.0
    change = float((first - again).abs().max()) / spread
    if change > 1e-3:
        with torch.no_grad(), bench.mode(training=False):
            dropped = bench.run(batch).spy.dropped
        yield finding(
            f"two evaluations of one batch differ by {change:.2g} of the outputs' spread in eval mode",
            WARNING if dropped else NOTE, HIGH if dropped else LOW,
            seen("logit_std", f"{change:.2g} of the spread" + ("; dropout is at work" if dropped else ""),
                 "equal outputs"),
            remedies=[consistent_evaluation()],
            could_be=("Monte-Carlo dropout, on purpose",) if dropped else ("a model that samples, on purpose",),
        )  # fmt: skip
        return
    norms = [m for m in bench.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not any(m.track_running_stats for m in norms):
        return
    batches = bench.batches(256)[:8]
    training, evaluation = _losses(bench, batches, passes)
    if not (training == training and evaluation == evaluation):
        raise CannotJudge("the loss is not finite")
    ratio = abs(evaluation - training) / max(abs(training), 1e-12)
    values = _values_per_channel(bench, batches[0])
    if ratio > gap:
        yield finding(
            f"the loss of the same batches is {training:.3g} in train and {evaluation:.3g} in eval mode",
            WARNING, HIGH if values < few else MEDIUM,
            seen("loss", f"{evaluation:.4g} in eval mode, statistics filled by {passes} passes",
                 f"within {gap:.0%} of {training:.4g}"),
            seen("train_mode", f"{values} values per channel in batch norm", f"{few} or more"),
            remedies=[consistent_evaluation()],
        )  # fmt: skip


def _losses(bench: Bench, batches: list[Batch], passes: int) -> tuple[float, float]:
    """The mean loss in train mode and in eval mode after the running statistics have been filled."""
    import torch

    with torch.no_grad():
        with bench.mode(training=True, dropout=False):
            for i in range(passes):
                bench.run(batches[i % len(batches)])
            training = sum(float(bench.run(b).loss) for b in batches) / len(batches)
        with bench.mode(training=False):
            evaluation = sum(float(bench.run(b).loss) for b in batches) / len(batches)
    return training, evaluation


def _values_per_channel(bench: Bench, batch: Batch) -> int:
    """The fewest values that any batch norm averages over."""
    import torch

    counts: list[int] = []

    def note(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        counts.append(args[0].numel() // max(1, args[0].shape[1]))

    norms = [m for m in bench.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    handles = [m.register_forward_pre_hook(note) for m in norms]
    try:
        with torch.no_grad(), bench.mode(training=False):
            bench.run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return min(counts, default=0)
