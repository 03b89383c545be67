"""`find_lr(...)`: short trainings with a learning rate that grows until the loss breaks away, then some at one rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fitdoctor.errors import ConfigError
from fitdoctor.preflight.bench import Bench, place_of
from fitdoctor.preflight.learning_rate.reading import Interval, Ramp, interval, read
from fitdoctor.preflight.learning_rate.result import LearningRates
from fitdoctor.preflight.learning_rate.trials import Trial, chosen, climb
from fitdoctor.preflight.recipe import recipe
from fitdoctor.rule import CannotJudge

GIVEN_UP = 4.0
"""A ramp ends when the smoothed loss is so many times its lowest, or has risen by as many times what it had fallen."""

USUAL_TRIALS = 12
"""Trials that are expected, for the progress bar: six rates, two orders of the data."""


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
    amp: torch.dtype | str | bool | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    steps: int = 200,
    seeds: int = 3,
    trials: int = 100,
    lowest: float = 1e-7,
    highest: float = 10.0,
    progress: Callable[[float, float, str], None] | None = None,
) -> LearningRates:
    """Find the learning rates at which this program trains well, from short trainings that leave no trace.

    First the rate grows by a constant factor per step from `lowest` to `highest`, or until the loss breaks away. Each
    ramp starts from the weights as they are, with another order of the data. Then short trainings at a few rates
    around what the ramps suggest, with warm-up and decay, decide. Parameter groups keep their ratios.
    In a distributed training all processes call it; losses and gradients are averaged over them, so that they agree.

    Args:
        model: the model, in the state in which training will begin.
        criterion: called with output and target; None for a model that returns its loss.
        optimizer: the optimizer that will train.
        train_loader: yields batches, as the training loop will use them.
        device: where to run; where the model is, when None.
        loss_of: ``loss_of(model, batch) -> loss``, where the loss is something else.
        scheduler: the scheduler, so that its state is kept too; it is not stepped.
        scaler: the gradient scaler; it scales here as in training, and its state is kept.
        amp: type of autocast as in training, such as ``torch.bfloat16``; True for the device's own.
        accumulate: batches per step, as in training.
        clip_norm: gradient clipping threshold, as in training.
        steps: steps of a ramp.
        seeds: number of ramps.
        trials: steps of each training at one rate, about a dozen of them; 0 leaves them out.
        lowest: first rate of a ramp.
        highest: last rate of a ramp.
        progress: called with done, total and a word on what is being done.

    Returns:
        The suggestion, its interval, the stable edge and the curves.

    Raises:
        ConfigError: if an argument makes no sense.
        CannotJudge: if the loader cannot be read, or the loss falls in no ramp.
    """
    _check(optimizer, steps, seeds, trials, lowest, highest)
    how = recipe("find_lr", place_of(model, device), amp=amp, scaler=scaler, accumulate=accumulate, clip_norm=clip_norm)
    bench = Bench(
        model, criterion, optimizer, {"train": train_loader},
        scheduler=scheduler, scaler=scaler, device=device, loss_of=loss_of, recipe=how,
    )  # fmt: skip
    total = steps * seeds + USUAL_TRIALS * trials

    def tell(done: float) -> None:
        if progress is not None:
            progress(min(done, total), total, "learning rate")

    try:
        ramps = measure(bench, steps=steps, seeds=seeds, rates=(lowest, highest), tell=tell)
        found = of_ramps(ramps)
        tried = climb(bench, found.suggestion, trials, tell=lambda n: tell(steps * seeds + n)) if trials else []
    finally:
        bench.rewind()
        bench.train.give_back()
    bench.verify("find_lr")
    return result_of(bench, ramps, found, tried)


def _check(optimizer: Any, steps: int, seeds: int, trials: int, lowest: float, highest: float) -> None:
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"find_lr: expected a torch Optimizer, got {type(optimizer).__name__}")
    for name, value, least in (("steps", steps, 30), ("seeds", seeds, 1)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"find_lr: expected {name} of {least} or more, got {value!r}")
    if not isinstance(trials, int) or trials < 0 or 0 < trials < 20:
        raise ConfigError(f"find_lr: expected trials of 20 or more, or 0 for none, got {trials!r}")
    if not 0 < lowest < highest < math.inf:
        raise ConfigError(f"find_lr: expected 0 < lowest < highest, got {lowest!r} and {highest!r}")


def measure(
    bench: Bench,
    *,
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
            found.append(_ramp(bench, steps, rates, partial(_from, tell, seed * steps)))
    bench.rewind()
    return found


def _from(tell: Callable[[float], None], start: int, step: float) -> None:
    tell(start + step)


def _ramp(bench: Bench, steps: int, rates: tuple[float, float], tell: Callable[[float], None]) -> Ramp:
    used: list[float] = []
    losses: list[float] = []
    mean, weight, best, start = 0.0, 0.0, math.inf, math.nan
    stream = bench.endless()
    diverged = False
    for step in range(steps):
        tell(step)
        rate = rates[0] * (rates[1] / rates[0]) ** (step / (steps - 1))
        bench.set_rate(rate)
        loss = bench.step(stream)
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
    momentum = min(0.99, max(float(g.get("momentum", 0.0)) for g in bench.optimizer.param_groups))
    return Ramp(np.array(used), np.array(losses), diverged, momentum / (1 - momentum))


def of_ramps(ramps: Sequence[Ramp]) -> Interval:
    """What the ramps say.

    Raises:
        CannotJudge: if the loss falls in fewer than half of them.
    """
    readings = [r for ramp in ramps if (r := read(ramp)) is not None]
    if len(readings) < (len(ramps) + 1) // 2:
        raise CannotJudge("the loss falls clearly in no ramp: this program does not learn, or only slowly")
    return interval(readings)


def result_of(bench: Bench, ramps: Sequence[Ramp], found: Interval, trials: Sequence[Trial] = ()) -> LearningRates:
    """What ramps and trials say together."""
    low, suggestion, high = chosen(trials) or (found.low, found.suggestion, found.high)
    first, ratios = bench.rates
    return LearningRates(
        suggestion=suggestion,
        low=low,
        high=high,
        edge=found.edge if found.reached else None,
        spread=found.spread,
        ramps=tuple(ramps),
        optimizer=type(bench.optimizer).__name__,
        current=first,
        ratios=ratios,
        batch_size=(bench.train.batch_size or 0) * bench.recipe.accumulate,
        trials=tuple(trials),
    )
