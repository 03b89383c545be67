"""Short trainings at a few constant peaks: what a ramp suggests is tried before it is advised.

A ramp has to learn on its way what a training learns at its peak, and it spends a few steps at each rate; where its
best rate lies relative to that of a training depends on the optimizer and the task. So the rates around it are
trained: from the same weights, on the same batches, with warm-up and decay to zero. The decay matters: without it
a short training always favours small rates, whose noise is smaller (Wu et al. 2018, short-horizon bias).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fitdoctor.preflight.learning_rate.schedule import propose

if TYPE_CHECKING:
    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench

STEP = 10**0.5
"""Factor between neighbouring rates; halves of it are tried around the best."""

FAR = 4
"""Rates that are tried above or below the first one at most: four, two decades."""

ORDERS = 2
"""Orders of the data in which each rate is tried, the same for all rates."""

AS_GOOD = 0.05
"""Share of what the best trial gains within which another does as well. Chosen, like the next, on the calibration tasks
of benchmarks/accuracy/find_lr.py."""

WORTH_TRYING = 0.1
"""Share of what the best trial gains within which a rate is worth trying."""

HOPELESS = 10.0
"""A trial ends when the loss of a step is so many times the loss before the first."""

EXAMPLES, BATCHES = 512, 32
"""What the loss after a trial is measured on, at most."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A short training.

    Attributes:
        rate: its peak learning rate, of the first parameter group.
        loss: mean loss of the same training batches after it, over all orders; inf where it diverged.
        start: the same before it.
    """

    rate: float
    loss: float
    start: float


@dataclass(slots=True)
class _Climb:
    """The trials so far, by their place on a scale of half steps around the first rate."""

    bench: Bench
    centre: float
    steps: int
    tell: Callable[[float], None]
    batches: Sequence[Batch]
    start: float
    losses: dict[int, float] = field(default_factory=dict)

    def rate(self, place: int) -> float:
        return float(self.centre * STEP ** (place / 2))

    def visit(self, place: int) -> None:
        if place in self.losses:
            return
        found = []
        for order in range(ORDERS):
            self.tell((len(self.losses) * ORDERS + order) * self.steps)
            found.append(_train(self.bench, self.rate(place), self.steps, order, self.batches, self.start))
        self.losses[place] = sum(found) / len(found)

    @property
    def best(self) -> int:
        return min(self.losses, key=lambda place: (self.losses[place], place))


def gains(bench: Bench, rates: Sequence[float], steps: int) -> list[float]:
    """By how much the loss falls in short trainings at some rates, all on the same batches; -inf where it diverges."""
    batches, start = _yardstick(bench)
    found = [start - _train(bench, rate, steps, 0, batches, start) for rate in rates]
    bench.rewind()
    return found


def _yardstick(bench: Bench) -> tuple[list[Batch], float]:
    """The batches on which a loss is measured, and the loss before any training."""
    bench.rewind()
    batches = bench.batches(EXAMPLES)[:BATCHES]
    return batches, bench.level(batches)


def climb(bench: Bench, centre: float, steps: int, *, tell: Callable[[float], None] = lambda done: None) -> list[Trial]:
    """Trials around a rate, up or down until the best one has a worse one on each side; sorted by rate.

    Args:
        bench: the program; it is rewound before each trial and after the last.
        centre: the rate to begin with.
        steps: steps of a trial.
        tell: called with the number of steps done.
    """
    path = _Climb(bench, centre, steps, tell, *_yardstick(bench))
    for place in (0, -2, 2):
        path.visit(place)
    while (end := path.best) in (min(path.losses), max(path.losses)) and abs(end) < 2 * FAR:
        path.visit(end + 2 if end == max(path.losses) else end - 2)
    middle = path.best
    for place in (middle - 1, middle + 1):
        path.visit(place)
    bench.rewind()
    return [Trial(path.rate(place), path.losses[place], path.start) for place in sorted(path.losses)]


def _train(bench: Bench, rate: float, steps: int, order: int, batches: Sequence[Batch], start: float) -> float:
    """The loss after a training with warm-up and decay; inf where it diverges."""
    import torch

    bench.rewind()
    torch.manual_seed(torch.initial_seed() % 2**31 + 104729 * (order + 1))
    plan = propose(rate, steps, type(bench.optimizer).__name__)
    with bench.mode(training=True):
        stream = bench.endless()
        for step in range(steps):
            bench.set_rate(plan.rate(step))
            loss = bench.step(stream)
            if not math.isfinite(loss) or abs(loss) > HOPELESS * max(abs(start), 1e-12):
                return math.inf
        end = bench.level(batches)
    return end if math.isfinite(end) else math.inf


def chosen(trials: Sequence[Trial]) -> tuple[float, float, float] | None:
    """Lower end, suggestion and upper end, from trials sorted by rate; None where no trial learned anything.

    The suggestion lies between the best rate and the lowest that does as well (geometric mean): a long training makes
    up for a rate that is a little low, and is less forgiving than a short one of a rate that is a little high. The
    interval holds the rates worth trying, and a quarter of a decade beyond them.
    """
    finite = [t for t in trials if math.isfinite(t.loss)]
    if not finite:
        return None
    best = min(finite, key=lambda t: t.loss)
    gain = best.start - best.loss
    if gain <= 0:
        return None
    place = trials.index(best)
    good = _around(trials, place, best.loss + AS_GOOD * gain)
    fair = _around(trials, place, best.loss + WORTH_TRYING * gain)
    suggestion = math.sqrt(best.rate * trials[good[0]].rate)
    half = STEP**0.5
    return trials[fair[0]].rate / half, suggestion, trials[fair[1]].rate * half


def _around(trials: Sequence[Trial], place: int, limit: float) -> tuple[int, int]:
    """First and last of the neighbours of a place, without a gap, whose loss is within a limit."""
    first = last = place
    while first > 0 and trials[first - 1].loss <= limit:
        first -= 1
    while last < len(trials) - 1 and trials[last + 1].loss <= limit:
        last += 1
    return first, last
