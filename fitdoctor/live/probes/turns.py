"""When probes get their turn: after a step at which everything else is measured too, where the budget allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fitdoctor.live.cadence import Cadence
from fitdoctor.live.probes.step_quality import StepQuality
from fitdoctor.live.step import Batch, Step
from fitdoctor.live.taps import Tap
from fitdoctor.live.transport import Row


class Probes:
    """The probes of one loop.

    Args:
        fixed: evaluate fixed batches, each adding to the row of the step.
        model: the model whose steps are probed for their quality, or None.
        params: gives the parameters that a step changes.
        criterion: the loss module, or None.
        cadence: decides whether probes can be afforded, and is told what they cost.
        every: distance in steps, or None to leave it to the cadence.
    """

    def __init__(
        self,
        fixed: Sequence[Callable[[Row], None]],
        *,
        model: nn.Module | None,
        params: Callable[[], list[Tensor]],
        criterion: nn.Module | None,
        cadence: Cadence,
        every: int | None = None,
    ) -> None:
        self.due = False
        self.wanted = bool(fixed) or model is not None
        self._model = model
        self._params = params
        self._criterion = criterion
        self._cadence = cadence
        self._every = every
        self._fixed = [Tap("a probe", f) for f in fixed]
        self._start = Tap("step quality", self._new_quality)
        self._measure = Tap("step quality", self._quality, self._start.told)
        self._quality_of: StepQuality | None = None

    @property
    def follows_step(self) -> bool:
        """Whether the quality of the step under way is being measured."""
        return self._quality_of is not None

    def decide(self, step: int) -> None:
        """Whether the recorded step that is about to begin is followed by probes."""
        due = step % self._every == 0 if self._every else self._cadence.may("probe")
        self.due = self.wanted and due

    def before_forward(self, module: nn.Module) -> None:
        """The first forward pass of a step that is followed by probes is about to begin."""
        if self._model is module:
            self._start(module)

    def _new_quality(self, module: nn.Module) -> None:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self._quality_of = StepQuality(module, self._params(), device)

    def run(self, now: Step, batch: Batch | None) -> float:
        """Run them, if it is their turn; returns the seconds that took."""
        probe, self._quality_of = self._quality_of, None
        if not self.due:
            return 0.0
        began = time.perf_counter()
        self.due = False
        if probe is not None:
            self._measure(probe, now, batch)
        for tap in self._fixed:
            tap(now.row)
        return time.perf_counter() - began

    def _quality(self, probe: StepQuality, now: Step, batch: Batch | None) -> None:
        """Only a step of one batch and one loss, straight through the model and the criterion, can be run again."""
        loss = now.first_loss
        if (
            now.forwards == 1
            and not now.several
            and loss is not None
            and batch is not None
            and (view := batch.view()) is not None
        ):
            assert self._criterion is not None
            probe.measure(now.row, batch, view, self._criterion, loss, now.clip_factor)
