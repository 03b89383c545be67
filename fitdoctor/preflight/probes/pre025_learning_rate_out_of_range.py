"""PRE025 learning-rate-out-of-range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, LOW, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import set_learning_rate
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE025", "learning-rate-out-of-range", cost=Cost(passes=600), explains=["one-batch-not-learned"], since="0.1.0")
def learning_rate_out_of_range(
    bench: Bench, *, factor: float = 300.0, steps: int = 200, seeds: int = 2
) -> Iterator[Finding]:
    """The learning rate lies beyond the stable edge, or far below where learning begins.

    Why it matters:
        Beyond the edge the loss breaks away; far below it, training takes many times as long.

    How it is measured:
        A range test: `seeds` ramps of `steps` steps from 1e-7 to 10, or to three times the rate in use, with the
        user's optimizer and its parameter groups. The rate must lie below that at which the loss breaks away, and
        above a third of it over `factor`, unless a training of 100 steps does as well there. Where no ramp can be
        read, 30 steps at the rate in use are compared with 30 at lower ones.

    Options:
        factor: how far below a third of the edge the rate may lie.
        steps: steps of a ramp.
        seeds: number of ramps.

    When it is wrong:
        A warm-up can reach a rate that a cold start cannot, so a rate just above the edge is only noted where
        there is a scheduler. Low rates are meant for pretrained models: a note.

    What to do:
        Train at the suggestion; `fitdoctor.find_lr` draws the ramp and proposes a schedule.

    References:
        Smith 2017 (1506.01186); the tuning playbook, Godbole et al. 2023.
    """
    from fitdoctor.preflight.learning_rate.ramp import measure, of_ramps, result_of

    rates = [float(g.get("initial_lr", g["lr"])) for g in bench.optimizer.param_groups if "lr" in g]
    if not rates or not any(rates):
        raise CannotJudge("the optimizer has no learning rate above 0")
    highest = max(10.0, 3 * max(rates))
    ramps = measure(bench, steps=steps, seeds=seeds, rates=(1e-7, highest))
    try:
        found = result_of(bench, ramps, of_ramps(ramps))
    except CannotJudge:
        beyond = _breaks_away(bench)
        if beyond is None:
            raise
        yield beyond
        return
    bench.facts["suggested_learning_rate"] = float(f"{found.suggestion:.3g}")
    edge = found.edge
    if edge is None:
        raise CannotJudge(f"the loss breaks away at no rate up to {highest:g}")
    own, scheduled = found.current, bench.scheduler is not None
    evidence = seen(
        "lr",
        f"{own:.3g}",
        f"{found.low:.2g} to {found.high:.2g}; the loss breaks away at {edge:.2g}",
        points=tuple(enumerate(map(float, found.ramps[0].losses))),
    )
    if own > edge:
        far = own > 3 * edge
        yield finding(
            f"the learning rate {own:.3g} is {own / edge:.1f} times the rate at which the loss breaks away",
            WARNING if far or not scheduled else NOTE,
            HIGH if far else MEDIUM,
            evidence,
            remedies=[set_learning_rate(found.suggestion)],
            could_be=("a warm-up that reaches it slowly",) if scheduled else (),
        )
    elif own < edge / 3 / factor and _learns_less(bench, own, found.suggestion):
        yield finding(
            f"the learning rate {own:.3g} is {edge / own:,.0f} times below the rate at which the loss breaks away",
            NOTE,
            LOW,
            evidence,
            remedies=[set_learning_rate(found.suggestion)],
            could_be=("a small rate that is meant for fine-tuning", "a schedule that raises it"),
        )


def _learns_less(bench: Bench, own: float, other: float) -> bool:
    """Whether a short training at the rate in use gains less than nine tenths of what one at another rate does."""
    from fitdoctor.preflight.learning_rate.trials import gains

    mine, theirs = gains(bench, (own, other), steps=100)
    return mine < 0.9 * theirs


def _breaks_away(bench: Bench, steps: int = 30) -> Finding | None:
    """Where no ramp can be read: a finding if the loss breaks away at the rate in use, and does not at a lower one."""
    own, _ = bench.rates
    if not _runs_off(bench, own, steps):
        return None
    for lower in (own / 10, own / 100, own / 1e3, own / 1e4, own / 1e5):
        if not _runs_off(bench, lower, steps):
            return finding(
                f"the loss breaks away within {steps} steps at the learning rate {own:.3g}, and not at {lower:.3g}",
                WARNING,
                HIGH,
                seen("lr", f"{own:.3g}", f"{lower:.3g} or less"),
                remedies=[set_learning_rate(lower)],
            )
    return None


def _runs_off(bench: Bench, rate: float, steps: int) -> bool:
    """Whether the loss becomes four times that of the first batches in a few steps, or nan."""
    import math

    bench.rewind()
    losses: list[float] = []
    with bench.mode(training=True):
        stream = bench.endless()
        for _ in range(steps):
            bench.set_rate(rate)
            losses.append(bench.step(stream))
            if not math.isfinite(losses[-1]):
                return True
    bench.rewind()
    first, last = losses[0], sum(losses[-5:]) / 5
    return last > first + 3 * abs(first)
