"""What is told of a step when it is over, beside what was measured at its moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from fitdoctor.live.activations import ActivationRecorder
from fitdoctor.live.ledger import Ledger, scheduler_calls
from fitdoctor.live.machine import memory_in_use
from fitdoctor.live.parameters import ParameterRecorder
from fitdoctor.live.scaling import LossScale
from fitdoctor.live.step import Step
from fitdoctor.live.taps import Tap
from fitdoctor.live.transport import Row, scalar
from fitdoctor.live.watched import Host, Watched
from fitdoctor.run import Fact
from fitdoctor.signals import (
    BACKWARD_CALLS,
    DATA_TIME,
    LOSS,
    LR,
    MEMORY,
    SCHEDULER_CALLS,
    STEP_CALLS,
    STEP_TIME,
    ZERO_GRAD_CALLS,
)


class Completion:
    """Finishes rows.

    Args:
        watched: the parts of the training.
        recorders: identity of optimizer -> what measures its parameters.
        activations: what measures outputs of layers, or None.
        ledger: the books of the loop.
        scale: the loss scale.
        zero_grad_calls: counts calls of the first optimizer's zero_grad so far.
        facts: receives what is learned of the training.
        extras: what else is measured at records.

    Attributes:
        extras: hooks that are called with the row of a record.
    """

    def __init__(
        self,
        watched: Watched,
        *,
        recorders: Mapping[int, ParameterRecorder],
        activations: ActivationRecorder | None,
        ledger: Ledger,
        scale: LossScale,
        zero_grad_calls: Callable[[], int],
        facts: MutableMapping[str, Fact],
        extras: Sequence[Callable[[Row], None]],
    ) -> None:
        self.extras = [Tap(str(e), e) for e in extras]
        self._clock, self._scheduler = watched.clock, watched.scheduler
        self._recorders, self._activations = recorders, activations
        self._ledger, self._scale, self._facts = ledger, scale, facts
        self._zero_grad_calls = zero_grad_calls
        self._divides = (watched.host or Host()).divides
        self._counted = (0, 0)

    def begin(self) -> None:
        """A step that will be measured begins: count from here."""
        self._counted = (self._zero_grad_calls(), scheduler_calls(self._scheduler))

    def note_rates(self, row: Row) -> None:
        """Learning rates that are numbers of the host."""
        groups = self._clock.param_groups
        for i, group in enumerate(groups):
            if isinstance(group.get("lr"), int | float):
                row.put(LR, float(group["lr"]), f"pg{i}" if len(groups) > 1 else "")

    def complete(self, now: Step, *, seconds: float, record: bool) -> Row:
        """The step is over.

        Args:
            now: what was noted of it.
            seconds: how long it took, 0 where that is not known or not the time of a step.
            record: whether everything is measured at it.

        Returns:
            Its finished row.
        """
        row = now.row
        row.wall_time = time.time()
        now.note_loss()
        if seconds:
            row.put(STEP_TIME, seconds)
            if now.data_time:
                row.put(DATA_TIME, now.data_time)
        self._scale.note(row)
        self._ledger.after_step(row, record=record)
        if record:
            self._complete_record(now)
        return row

    def _complete_record(self, now: Step) -> None:
        self._note_calls(now)
        params = self._recorders[id(self._clock)].params
        memory = memory_in_use(params[0].device) if params else None
        if memory is not None:
            now.row.put(MEMORY, memory)
        now.note_weights(self._divides)
        for tap in self.extras:
            tap(now.row)
        if self._activations is not None:
            self._activations.finish(now.row, weight=now.weight)
        if now.batch_size:
            known, seen = self._facts.get("batch_size"), now.batch_size // max(1, now.forwards)
            # the last batch of an epoch may be a short one
            self._facts["batch_size"] = max(known, seen) if isinstance(known, int) else seen
            self._facts["gradient_accumulation_steps"] = max(1, now.forwards)

    def _note_calls(self, now: Step) -> None:
        """What the loop called since the step before."""
        if now.backwards:
            now.row.put(BACKWARD_CALLS, float(now.backwards))
        now.row.put(ZERO_GRAD_CALLS, float(self._zero_grad_calls() - self._counted[0]))
        if self._scheduler is not None:
            now.row.put(SCHEDULER_CALLS, float(scheduler_calls(self._scheduler) - self._counted[1]))
        if len(self._recorders) > 1:
            for key, recorder in self._recorders.items():
                now.row.put(STEP_CALLS, float(now.steps.get(key, 0)), recorder.label)

    def attempted(self, now: Step, *, record: bool) -> Row:
        """The row of a step that a GradScaler has skipped so far."""
        row = Row(now.row.step)
        if now.losses:
            row.put(LOSS, now.losses[-1])
        elif now.loss_tensors:
            row.add(scalar(LOSS), now.loss_tensors[-1])
        self._scale.note(row)
        if record and self._activations is not None:
            self._activations.finish(row)
            self._activations.start()
        return row

    def abandoned(self, now: Step, calls: int) -> Row:
        """The row of a loop that called `backward` so often and never stepped."""
        now.row = Row(now.row.step)
        now.row.put(BACKWARD_CALLS, float(calls))
        now.note_loss()
        return now.row
