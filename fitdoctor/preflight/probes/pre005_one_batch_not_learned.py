"""PRE005 one-batch-not-learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, LOW, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import add_capacity, check_labels, overfit_one_batch
from fitdoctor.remedies.before_run import less_weight_decay, set_learning_rate
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench, Pass

RATES = (1e-3, 1e-2, 1e-4)
"""Rates of the Adam that tries after the user's own optimizer, the one that works most often first."""


@probe(
    "PRE005",
    "one-batch-not-learned",
    cost=Cost(passes=800),
    explains=["labels-not-learned"],
    since="0.1.0",
    worth=3,
)
def one_batch_not_learned(
    bench: Bench, *, examples: int = 16, steps: int = 200, reached: float = 0.05
) -> Iterator[Finding]:
    """The model cannot memorise a handful of examples, whatever the optimizer.

    Why it matters:
        A model with more parameters than examples can memorise them. One that cannot has a fault in its graph, its
        loss or its labels, and no tuning will help.

    How it is measured:
        `examples` examples with different inputs, without dropout and weight decay; the user's optimizer, then Adam
        at 1e-3, 1e-2 and 1e-4, each from the initial weights, for `steps` steps. It is learned when the loss falls to
        `reached` of the way to its floor, or every example is classified right. Where the user's optimizer learns it,
        it has to learn it with its weight decay too, given twice the steps.

    Options:
        examples: how many examples.
        steps: steps of each optimizer.
        reached: share of the initial loss above its floor that counts as learned.

    When it is wrong:
        A model too small to memorise is only noted: where it has fewer parameters than the examples have targets, or
        where its loss has come to rest at a point without gradient, as that of a linear model on few features.
        Where only the user's optimizer fails, its learning rate is noted: fine-tuning rates are meant to be small.

    What to do:
        Look for detached parts, a wrong loss, labels that do not belong to the inputs.

    References:
        Karpathy 2019 ("overfit one batch").
    """
    batch = _distinct(bench.batch(4 * examples), examples)
    if len(batch) < 2:
        raise CannotJudge("the first batch holds fewer than two different inputs")
    targets = batch.y.numel() if batch.y is not None else len(batch)
    if sum(p.numel() for p in bench.trainable.values()) < targets:
        raise CannotJudge("the model has fewer parameters than the batch has targets")
    arms: dict[str, list[float]] = {}
    with bench.mode(training=True, dropout=False):
        for group in bench.optimizer.param_groups:
            group["weight_decay"] = 0.0
        floor = _floor(bench, batch)
        own = _Goal(floor, reached)
        arms["own"] = bench.fit([batch], steps, stop=own)
        if own.met:
            yield from _decayed(bench, batch, arms["own"], floor, reached)
            return
        for rate in RATES:
            bench.rewind()
            with bench.mode(training=True, dropout=False):
                goal = _Goal(floor, reached)
                arms[f"Adam {rate:g}"] = bench.fit([batch], steps, bench.adam(rate), stop=goal)
            if goal.met:
                yield from _only_adam(bench, arms, rate)
                return
    yield _nobody(bench, batch, arms, floor)


class _Goal:
    """Told of every step; met when the batch is learned."""

    def __init__(self, floor: float, reached: float) -> None:
        self._floor = floor
        self._reached = reached
        self._first: float | None = None
        self.met = False

    def __call__(self, step: int, loss: float, done: Pass) -> bool:
        self._first = loss if self._first is None else self._first
        self.met = loss - self._floor <= self._reached * (self._first - self._floor) or _all_right(done)
        return self.met


def _all_right(done: Pass) -> bool:
    """Whether every example gets its class with more than half of the probability."""
    import torch

    call = done.call
    if call is None or call.name not in ("cross_entropy", "nll_loss") or call.target.is_floating_point():
        return False
    counted = call.target != call.options.get("ignore_index", -100)
    best = call.input.detach().softmax(1).max(1)
    right = torch.eq(best.indices, call.target) & (best.values > 0.5)
    return bool(right[counted].all()) and bool(counted.any())


def _floor(bench: Bench, batch: Batch) -> float:
    """The least loss that any output can reach: 0, or the entropy of smoothed and soft targets."""
    import torch

    call = bench.run(batch).call
    if call is None:
        return 0.0
    if call.name == "binary_cross_entropy_with_logits":
        return float(call.of(torch.logit(call.target.float().clamp(1e-6, 1 - 1e-6))))
    if call.name != "cross_entropy":
        return 0.0
    classes, smoothing = call.classes, float(call.options.get("label_smoothing", 0.0))
    if call.target.is_floating_point():
        soft = call.target.float()
    elif call.input.ndim == 2:
        soft = torch.nn.functional.one_hot(call.target.clamp(0, classes - 1), classes).float()
    else:
        return 0.0
    soft = soft * (1 - smoothing) + smoothing / classes
    return float(call.of(soft.clamp_min(1e-9).log()))


def _distinct(batch: Batch, count: int) -> Batch:
    """Up to `count` examples of a batch whose inputs differ."""
    x = batch.x
    if x is None:
        return batch.rows(slice(0, count))
    seen_rows: set[bytes] = set()
    keep = []
    for i, row in enumerate(x.detach().cpu().float()):
        key = row.numpy().tobytes()
        if key not in seen_rows:
            seen_rows.add(key)
            keep.append(i)
    return batch.rows(keep[:count])


def _decayed(bench: Bench, batch: Batch, without: list[float], floor: float, reached: float) -> Iterator[Finding]:
    """A finding where the user's weight decay undoes what the same steps learn without it."""
    bench.rewind()
    decay = max((float(g.get("weight_decay", 0.0)) for g in bench.optimizer.param_groups), default=0.0)
    if not decay:
        return
    with bench.mode(training=True, dropout=False):
        goal = _Goal(floor, reached)
        losses = bench.fit([batch], 2 * len(without) + 20, stop=goal)
    if goal.met or not math.isfinite(losses[-1]):
        return
    kept = (losses[-1] - floor) / max(losses[0] - floor, 1e-12)
    if kept < 0.5:  # slower, but on its way
        return
    name = type(bench.optimizer).__name__
    yield finding(
        f"with weight decay {decay:g} {name} cannot learn one batch that it learns without",
        WARNING,
        HIGH,
        seen(
            "loss",
            f"{losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps with weight decay",
            f"near {without[-1]:.3g}, as in {len(without)} steps without",
            points=tuple(enumerate(losses)),
        ),
        remedies=[less_weight_decay()],
    )


def _only_adam(bench: Bench, arms: dict[str, list[float]], rate: float) -> Iterator[Finding]:
    own = arms["own"]
    bad = not math.isfinite(own[-1]) or min(own[-5:]) > 1.5 * own[0] + 1e-12
    name = type(bench.optimizer).__name__
    yield finding(
        f"{name} {'diverges' if bad else 'is slow'} on one batch in {len(own)} steps, Adam at {rate:g} learns it",
        WARNING if bad else NOTE,
        HIGH if bad else MEDIUM,
        seen(
            "loss",
            f"{own[0]:.3g} to {own[-1]:.3g} with {name}",
            f"near {arms[f'Adam {rate:g}'][-1]:.3g}",
            points=tuple(enumerate(own)),
        ),
        remedies=[set_learning_rate()],
        could_be=() if bad else ("a small rate that is meant for fine-tuning",),
    )


def _nobody(bench: Bench, batch: Batch, arms: dict[str, list[float]], floor: float) -> Finding:
    finite = {name: losses for name, losses in arms.items() if all(map(math.isfinite, losses))}
    if not finite:
        raise CannotJudge("the loss becomes nan with every optimizer")
    name, losses = min(finite.items(), key=lambda item: item[1][-1])
    fell = (losses[0] - losses[-1]) / max(losses[0] - floor, 1e-12)
    tail = losses[-max(2, len(losses) // 5) :]
    resting = tail[0] - tail[-1] < 0.02 * max(losses[0] - floor, 1e-12)
    small = fell > 0.1 and sum(p.numel() for p in bench.trainable.values()) < 50 * len(batch)
    evidence = seen(
        "loss",
        f"{losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps ({name})",
        f"near {floor:.3g}",
        points=tuple(enumerate(losses)),
    )
    unknown = floor == 0.0 and bench.first_call is None  # a loss of its own making
    if unknown and fell > 0.5:
        raise CannotJudge(f"the loss falls by {fell:.0%} in {len(losses)} steps; how far it can fall is unknown")
    if small or (fell > 0.5 and not resting):
        return finding(
            f"{len(batch)} examples are learned only in part: the loss falls by {fell:.0%} in {len(losses)} steps",
            NOTE,
            LOW,
            evidence,
            remedies=[add_capacity()],
            could_be=("a model too small to memorise", "more steps are needed"),
        )
    return finding(
        f"{len(batch)} examples cannot be memorised: the loss stops at {losses[-1]:.3g}, {fell:.0%} below its start",
        ERROR if fell < 0.5 and not unknown else WARNING,
        HIGH if fell < 0.5 and not unknown else MEDIUM,
        evidence,
        remedies=[overfit_one_batch(), check_labels()],
        could_be=("parts of the model are detached", "a wrong loss", "labels that contradict each other"),
    )
