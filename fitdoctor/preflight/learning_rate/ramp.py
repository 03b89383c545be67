"""`find_lr(...)`: short trainings with a learning rate that grows until the loss breaks away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from fitdoctor.errors import ConfigError
from fitdoctor.preflight.batches import Batch
from fitdoctor.preflight.bench import Bench
from fitdoctor.preflight.learning_rate.reading import Ramp, interval, read
from fitdoctor.preflight.learning_rate.result import LearningRates
from fitdoctor.rule import CannotJudge

GIVEN_UP = 4.0
"""A ramp ends when the smoothed loss is so many times its lowest, or has risen by as many times what it had fallen."""


def find_lr(
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    optimizer: Optimizer,
    train_loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    loss_of: Callable[[nn.Module, Any], Tensor] | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    steps: int = 200,
    seeds: int = 3,
    lowest: float = 1e-7,
    highest: float = 10.0,
    progress: Callable[[float, float, str], None] | None = None,
) -> LearningRates:
    """Find the learning rates at which this program trains well, from short ramps that leave no trace.

    The rate grows by a constant factor per step from `lowest` to `highest`, or until the loss breaks away. Each
    ramp starts from the weights as they are, with another order of the data. Parameter groups keep their ratios.
    In a distributed training all processes call it; losses are averaged over them, so that they agree.

    Args:
        model: the model, in the state in which training will begin.
        criterion: called with output and target; None for a model that returns its loss.
        optimizer: the optimizer that will train.
        train_loader: yields batches, as the training loop will use them.
        device: where to run; where the model is, when None.
        loss_of: ``loss_of(model, batch) -> loss``, where the loss is something else.
        scheduler: the scheduler, so that its state is kept too; it is not stepped.
        scaler: the gradient scaler, so that its state is kept too.
        accumulate: batches per step, as in training.
        clip_norm: gradient clipping threshold, as in training.
        steps: steps of a ramp.
        seeds: number of ramps.
        lowest: first rate of a ramp.
        highest: last rate of a ramp.
        progress: called with done, total and a word on what is being done.

    Returns:
        The suggestion, its interval, the stable edge and the curves.

    Raises:
        ConfigError: if an argument makes no sense.
        CannotJudge: if the loader cannot be read, or the loss falls in no ramp.
    """
    _check(optimizer, accumulate, steps, seeds, lowest, highest)
    bench = Bench(
        model, criterion, optimizer, {"train": train_loader},
        scheduler=scheduler, scaler=scaler, device=device, loss_of=loss_of,
    )  # fmt: skip

    def tell(done: float) -> None:
        if progress is not None:
            progress(done, steps * seeds, "learning rate")

    try:
        ramps = measure(
            bench,
            accumulate=accumulate,
            clip_norm=clip_norm,
            steps=steps,
            seeds=seeds,
            rates=(lowest, highest),
            tell=tell,
        )
    finally:
        bench.rewind()
        bench.train.give_back()
    bench.verify("find_lr")
    return result_of(bench, ramps, accumulate)


def _check(optimizer: Any, accumulate: int, steps: int, seeds: int, lowest: float, highest: float) -> None:
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"find_lr: expected a torch Optimizer, got {type(optimizer).__name__}")
    for name, value, least in (("accumulate", accumulate, 1), ("steps", steps, 30), ("seeds", seeds, 1)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"find_lr: expected {name} of {least} or more, got {value!r}")
    if not 0 < lowest < highest < math.inf:
        raise ConfigError(f"find_lr: expected 0 < lowest < highest, got {lowest!r} and {highest!r}")


def measure(
    bench: Bench,
    *,
    accumulate: int = 1,
    clip_norm: float | None = None,
    steps: int = 200,
    seeds: int = 3,
    rates: tuple[float, float] = (1e-7, 10.0),
    tell: Callable[[float], None] = lambda done: None,
) -> list[Ramp]:
    """The ramps; the bench is rewound before each of them, and after the last.

    Raises:
        CannotJudge: for an optimizer that chooses its own step length.
    """
    if isinstance(bench.optimizer, torch.optim.LBFGS):
        raise CannotJudge("LBFGS chooses its own step length: a ramp of rates says little of it")
    found = []
    for seed in range(seeds):
        bench.rewind()
        torch.manual_seed(torch.initial_seed() % 2**31 + 7919 * seed)
        with bench.mode(training=True):
            found.append(_ramp(bench, accumulate, clip_norm, steps, rates, partial(_from, tell, seed * steps)))
    bench.rewind()
    return found


def _from(tell: Callable[[float], None], start: int, step: float) -> None:
    tell(start + step)


def _ramp(
    bench: Bench,
    accumulate: int,
    clip_norm: float | None,
    steps: int,
    rates: tuple[float, float],
    tell: Callable[[float], None],
) -> Ramp:
    groups = bench.optimizer.param_groups
    base = [float(g.get("initial_lr", g["lr"])) for g in groups]
    first = next((b for b in base if b > 0), 1.0)
    ratios = [b / first if any(base) else 1.0 for b in base]
    used: list[float] = []
    losses: list[float] = []
    mean, weight, best, start = 0.0, 0.0, math.inf, math.nan
    stream = endless(bench)
    diverged = False
    for step in range(steps):
        bench.check_time(f"{step} of {steps} steps of a ramp")
        tell(step)
        rate = rates[0] * (rates[1] / rates[0]) ** (step / (steps - 1))
        for group, ratio in zip(groups, ratios, strict=True):
            group["lr"] = group["lr"].fill_(rate * ratio) if isinstance(group["lr"], Tensor) else rate * ratio
        loss = _step(bench, stream, accumulate, clip_norm)
        used.append(rate)
        losses.append(loss)
        if not math.isfinite(loss):
            diverged = True
            break
        mean, weight = 0.9 * mean + 0.1 * loss, 0.9 * weight + 0.1
        smooth = mean / weight
        start = smooth if step == 9 else start
        best = min(best, smooth) if step >= 9 else best
        fallen = max(start - best, 0.05 * abs(start)) if step >= 9 else math.inf
        if step > 20 and smooth > best + GIVEN_UP * fallen:
            diverged = True
            break
    momentum = min(0.99, max(float(g.get("momentum", 0.0)) for g in groups))
    return Ramp(np.array(used), np.array(losses), diverged, momentum / (1 - momentum))


def _step(bench: Bench, stream: Iterator[Batch], accumulate: int, clip_norm: float | None) -> float:
    """One optimizer step; the mean loss of its batches, over all processes."""
    bench.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=bench.device, dtype=torch.float64)
    for _ in range(accumulate):
        loss = bench.run(next(stream)).loss
        (loss / accumulate).backward()  # type: ignore[no-untyped-call]
        total += loss.detach().double() / accumulate
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(bench.trainable.values(), clip_norm)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
        total /= dist.get_world_size()
    bench.optimizer.step()
    return float(total)


def endless(bench: Bench) -> Iterator[Batch]:
    """Batches on the device, epoch after epoch."""
    source = bench.train
    while True:
        empty = True
        for raw in source.fresh():
            empty = False
            yield bench.placed(Batch.of(raw, with_criterion=bench.criterion is not None))
        if empty:
            raise CannotJudge("train_loader yields no batch")


def result_of(bench: Bench, ramps: list[Ramp], accumulate: int = 1) -> LearningRates:
    """What the ramps say.

    Raises:
        CannotJudge: if the loss falls in no ramp.
    """
    readings = [r for ramp in ramps if (r := read(ramp)) is not None]
    if len(readings) < (len(ramps) + 1) // 2:
        raise CannotJudge("the loss falls clearly in no ramp: this program does not learn, or only slowly")
    found = interval(readings)
    base = [float(g.get("initial_lr", g["lr"])) for g in bench.optimizer.param_groups]
    first = next((b for b in base if b > 0), 1.0)
    return LearningRates(
        suggestion=found.suggestion,
        low=found.low,
        high=found.high,
        edge=found.edge if found.reached else None,
        spread=found.spread,
        ramps=tuple(ramps),
        optimizer=type(bench.optimizer).__name__,
        current=first if any(base) else 0.0,
        ratios=tuple(b / first if any(base) else 1.0 for b in base),
        batch_size=(bench.train.batch_size or 0) * accumulate,
    )
