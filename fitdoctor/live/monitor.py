"""The monitor: what the user holds while the training runs.

It only looks: it uses no random numbers, adds nothing to the autograd graph's arithmetic and changes no
mode, so training is bit for bit what it was.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from fitdoctor.errors import ConfigError
from fitdoctor.live.assembly import Tier, followed
from fitdoctor.live.cadence import Cadence, Cost
from fitdoctor.live.facts import gather_facts
from fitdoctor.live.intake import Intake
from fitdoctor.live.judge import Judge
from fitdoctor.live.nonfinite import NonFinite
from fitdoctor.live.sinks import Point, last_step
from fitdoctor.live.transport import Row
from fitdoctor.live.watched import Host, Watched
from fitdoctor.report import Report
from fitdoctor.run import Fact, Run
from fitdoctor.signals import QUANTITIES, Signal

log = logging.getLogger("fitdoctor")

FLUSH_SECONDS, FLUSH_AT_LEAST = 0.5, 1.5
"""Seconds after which what was measured is taken in and written: where the budget has room for it, and in any case."""

_MOST_WAITING = 256  # rows that may wait on the device


class Monitor:
    """Watches one training loop; made by `fitdoctor.attach`.

    Args:
        watched: the parts of the training.
        cadence: decides what is measured when.
        judge: diagnoses.
        tier: how much is measured.
        logdir: where to log, or None.
        fixed_batches: split -> batch that is evaluated now and then, or None.
        judge_every: diagnose every so many steps; None keeps the budget.
        probe_every: run the probes every so many steps; None keeps the budget.
        name: name of the run.
        facts: facts that cannot be seen.
    """

    def __init__(
        self,
        watched: Watched,
        *,
        cadence: Cadence,
        judge: Judge,
        tier: Tier = "standard",
        logdir: Path | None = None,
        fixed_batches: Mapping[str, Any] | None = None,
        judge_every: int | None = None,
        probe_every: int | None = None,
        name: str | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        self._name = name or (logdir.resolve().name if logdir else "run")
        self._logdir = logdir
        self._cadence, self._judge, self._judge_every = cadence, judge, judge_every
        self._report: Report | None = None
        self._flushed = time.perf_counter()
        self._judged_at = 0
        self._urgent = self._bad_loss = self._finished = False
        host = watched.host or Host()
        start = host.start if host.start is not None else last_step(logdir) if logdir else 0
        batches = fixed_batches or {}
        self._intake = Intake(watched, logdir, probes_val=batches.get("val") is not None)
        self._loop, self._removers = followed(
            watched,
            tier=tier,
            cadence=cadence,
            transport=self._intake.transport,
            fixed_batches=batches,
            probe_every=probe_every,
            alone=self._intake.alone,
            start=start,
        )
        self._loop.after_row = self._after_row
        self._loop.losses.on_bad = self._note_bad_loss
        self._facts = gather_facts(watched, resumed_at=start or None, tier=tier)
        self._told = dict(facts or {})
        self._intake.tell(self.step, self._all_facts())

    # --- for the user ---------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Optimizer steps done so far, earlier runs in the same log folder included."""
        return self._loop.step

    @property
    def leads(self) -> bool:
        """Whether this process writes and judges; of several that train together, the first does."""
        return self._intake.leads

    @property
    def cost(self) -> Cost:
        """What the monitor spent so far."""
        return self._cadence.cost

    @property
    def run(self) -> Run:
        """What was measured so far, without what is still on the device."""
        path = str(self._logdir) if self._logdir else ""
        return self._intake.history.run(self._name, path, self._all_facts(), finished=self._finished)

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where training first met a value that is not finite, or None."""
        return self._intake.first_nonfinite

    def last(self, quantity: str, layer: str = "", split: str = "train") -> float:
        """The latest value of a quantity: ``monitor.last("grad_norm")``; nan where it was not measured so far.

        Args:
            quantity: its name, as `fitdoctor signals` prints them.
            layer: layer, parameter or parameter group; "" for the whole model.
            split: "train" or "val".

        Raises:
            ConfigError: if there is no quantity of that name.
        """
        if quantity not in QUANTITIES:
            raise ConfigError(f"last: {quantity!r} is no quantity; `fitdoctor signals` prints them all")
        series = self.run.get(QUANTITIES[quantity], split, layer)
        return math.nan if series is None else float(series.values[-1])

    def log(self, step: int | None = None, **scalars: Any) -> None:
        """Log what the monitor cannot see: ``monitor.log(val_loss=0.31, val_accuracy=0.9)``.

        Args:
            step: training step; that of the monitor when left out.
            scalars: numbers or one-element tensors, under names such as a log would have.

        Raises:
            ConfigError: if a name tells no quantity that fitdoctor knows.
        """
        from fitdoctor.readers.tags import interpret

        now = time.time()
        points = []
        for tag, value in scalars.items():
            meaning = interpret(tag)
            if isinstance(meaning, str):
                raise ConfigError(f"log: {tag!r} tells nothing ({meaning}); such as loss, val_loss, val_accuracy do")
            signal = Signal(meaning.signal.quantity, meaning.signal.split, meaning.signal.layer)
            number = float(value.detach() if isinstance(value, Tensor) else value)
            points.append(Point(self.step if step is None else step, now, signal, number * meaning.scale))
        self._intake.log(points)

    def inform(self, **facts: Fact) -> None:
        """Add facts that the monitor cannot know, under the keys of `Run.facts`: ``inform(planned_steps=9000)``."""
        self._told.update(facts)
        self._intake.tell(self.step, self._all_facts())

    def flush(self) -> None:
        """Take in what is still on the device; waits for it."""
        self._receive(wait=True)

    def report(self) -> Report:
        """Diagnose what was measured so far."""
        self._receive(wait=True)
        return self._judge.conclude(self.run)

    def close(self) -> Report:
        """Take all hooks off, write the rest, and diagnose the whole run. Closing twice returns the same report."""
        if self._report is not None:
            return self._report
        for remove in self._removers:
            with contextlib.suppress(Exception):  # one that fails must not keep the others on
                remove()
        self._removers.clear()
        self._loop.finish()
        self._receive(wait=True)
        self._finished = True
        self._intake.tell(self.step, {**self._all_facts(), "finished": True})
        self._report = self._judge.conclude(self.run, tell=self.leads)
        failure = self._intake.close()
        if failure is not None:
            log.warning("fitdoctor: the log could not be written in full: %s", failure)
        return self._report

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.note_end(error, trace)
        self.close()

    # --- for adapters, see `Host` -----------------------------------------------------------------------

    @property
    def measuring(self) -> bool:
        """Whether anything of the step under way is measured; most steps are only counted."""
        return self._loop.measuring

    @property
    def probing(self) -> bool:
        """Whether the model is being run by the monitor."""
        return self._loop.probing

    def batch_begins(self, model: nn.Module, /, *inputs: Any, **named: Any) -> None:
        """The loop is about to run the model on a batch, for training or (without gradients) for evaluation."""
        self._loop.forward_begins(model, inputs, named)

    def batch_ends(self, model: nn.Module) -> None:
        """The model has run on the batch; calling it again does nothing."""
        self._loop.forward_ends(model, (), None)

    def backward_begins(self, loss: Tensor, *, divided_by: float | Tensor = 1.0) -> None:
        """The loop is about to call ``loss.backward()``.

        Args:
            loss: the scalar tensor as it is.
            divided_by: what the objective was divided by to give it: the number of accumulated batches, over the loss
                scale where it carries that already.
        """
        self._loop.take_backward(loss, divided_by)

    def criterion_called(self, criterion: nn.Module, args: tuple[Any, ...], loss: Tensor | None) -> None:
        """A criterion that the monitor was not given has run.

        Args:
            criterion: a module that computes the same.
            args: what it was called with.
            loss: its result where that is the loss; None where it is only a part of it.
        """
        if loss is None:
            self._loop.criterion_called(criterion, args)
        else:
            self._loop.loss_computed(criterion, args, loss)

    def loss_told(self, value: Tensor) -> None:
        """The loss of a batch of this step that ran before the monitor was attached."""
        self._loop.loss_told(value)

    def learn(self, **facts: Fact) -> None:
        """Add facts that the loop showed; unlike those of `inform` they are written when the next others are."""
        self._loop.facts.update(facts)

    # --- after a step ----------------------------------------------------------------------------------

    def _all_facts(self) -> dict[str, Fact]:
        return {**self._facts, **self._loop.facts, **self._told}

    def _after_row(self, row: Row) -> float:
        """A row is complete: send it on, and judge when it is time. Returns the seconds that this took."""
        began = time.perf_counter()
        if self._time_to_flush(began):
            self._flushed = began
            self._bad_loss = False
            self._receive()
            self._cadence.spent("flush", time.perf_counter() - began)
        if self._time_to_judge():
            self._look()
        return time.perf_counter() - began

    def _time_to_flush(self, now: float) -> bool:
        waiting = self._intake.transport
        since = now - self._flushed
        return (
            self._bad_loss
            or bool(waiting.under_way)
            or len(waiting.waiting) >= _MOST_WAITING
            or (since > FLUSH_SECONDS and (since > FLUSH_AT_LEAST or self._cadence.may("flush")))
        )

    def _note_bad_loss(self, value: float) -> None:
        self._bad_loss = True

    def _receive(self, *, wait: bool = False) -> None:
        if self._intake.receive(wait=wait):
            self._urgent = True
            self._cadence.alert()
        found = self.first_nonfinite
        if found is not None and found.facts.items() - self._loop.facts.items():
            self._loop.facts.update(found.facts)
            self._intake.tell(self.step, self._all_facts())

    def _time_to_judge(self) -> bool:
        if not self._intake.leads:
            return False
        if self._urgent:
            return True
        if self._judge_every is not None:
            return self.step - self._judged_at >= self._judge_every
        return self.step >= 100 and self._cadence.may("judge", expected=0.1)

    def _look(self) -> None:
        began = time.perf_counter()
        self._urgent = False
        self._judged_at = self.step
        self._receive()
        try:
            self._judge.look(self.run)
        finally:
            self._cadence.spent("judge", time.perf_counter() - began)
