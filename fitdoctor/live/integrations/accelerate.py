"""Accelerate: a monitor on what `Accelerator.prepare` returned.

    from fitdoctor.live.integrations.accelerate import attach

    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    doctor = attach(accelerator, model, optimizer, criterion, scheduler=scheduler)
    ...                          # the loop, unchanged
    accelerator.end_training()   # tells the diagnosis

It looks through the wrappers of the optimizer and the scheduler, knows the number of accumulated batches and the loss
scale by which `Accelerator.backward` divides and multiplies, and hears what `Accelerator.log` is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import Tensor, nn

from fitdoctor.config import FACT_KEYS
from fitdoctor.errors import ConfigError
from fitdoctor.live.backward import BackwardWatch
from fitdoctor.live.integrations.guest import Guest, guarded
from fitdoctor.live.watched import Host
from fitdoctor.run import Fact


def attach(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    criterion: nn.Module | None = None,
    *,
    scheduler: Any = None,
    **options: Any,
) -> FitdoctorTracker:
    """Watch a loop that uses Accelerate; to be called on all processes, after `Accelerator.prepare`.

    Args:
        accelerator: the accelerator of the loop.
        model: the model, prepared or not.
        optimizer: its optimizer, or several.
        criterion: the loss module; without it, the loss is the model's own (``output.loss``), or what the loop hands to
            `Accelerator.backward`.
        scheduler: the learning rate scheduler.
        options: as of `Guest`: ``logdir``, ``stop_on``, ``on_finding``, ``tier``, ``verbose`` and so on. Without a
            ``logdir``, the accelerator's ``project_dir`` is used, where it has one.

    Returns:
        What watches; it sits among the accelerator's trackers.
    """
    tracker = FitdoctorTracker(criterion=criterion, **options)
    tracker.watch(accelerator, model, optimizer, scheduler)
    return tracker


class FitdoctorTracker(Guest, GeneralTracker):  # type: ignore[misc]  # accelerate is not typed
    """A tracker of Accelerate that watches the training; made by `attach`.

    A finding of `stop_on` calls `Accelerator.set_trigger`; the loop asks ``accelerator.check_trigger()``.
    """

    name = "fitdoctor"
    requires_logging_directory = False
    main_process_only = False

    @property
    def tracker(self) -> Any:
        """What tracks: the monitor."""
        return self.monitor

    def watch(self, accelerator: Accelerator, model: nn.Module, optimizer: Any, scheduler: Any = None) -> None:
        """Attach; called by `attach`."""
        if not isinstance(accelerator, Accelerator):
            raise ConfigError(f"accelerator: expected an accelerate.Accelerator, got {type(accelerator).__name__}")
        self._accelerator = accelerator
        self._dividing = False
        self.enter(
            model, optimizer, host=Host(), framework="accelerate", folder=accelerator.project_dir and
            Path(accelerator.project_dir), scheduler=_inner(scheduler), scaler=accelerator.scaler,
            facts=_facts(accelerator),
        )  # fmt: skip
        self._heard = BackwardWatch(self._backward)
        self._own_backward = accelerator.__dict__.get("backward")
        original = accelerator.backward

        @wraps(original)
        def backward(loss: Tensor, **kwargs: Any) -> None:
            self._dividing = True
            try:
                original(loss, **kwargs)
            finally:
                self._dividing = False

        self._wrapped_backward = accelerator.backward = backward
        for trackers in (accelerator.log_with, accelerator.trackers):
            trackers.append(self)  # `init_trackers` makes the second of these anew from the first

    def _backward(self, loss: Tensor) -> None:
        """`backward` is about to be called: on the loss itself, or from inside `Accelerator.backward`."""
        if self.monitor is None or self.off:
            return
        divided: Tensor | float = 1.0
        if self._dividing:
            divided = float(self._accelerator.gradient_accumulation_steps)
            scale = getattr(self._accelerator.scaler, "_scale", None)
            if isinstance(scale, torch.Tensor) and self._accelerator.scaler.is_enabled():
                divided = divided / scale
        self.monitor.backward_begins(loss, divided_by=divided)

    # --- a tracker of Accelerate ------------------------------------------------------------------------

    @guarded
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The settings of the run, as given to `Accelerator.init_trackers`: those that are facts are kept."""
        if self.monitor is not None:
            self.monitor.inform(**{key: value for key, value in values.items() if key in FACT_KEYS})

    @guarded
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """What the loop logs; of it, what a validation gave. Training is measured, not told."""
        self.log_validation(values)

    @guarded
    def finish(self) -> None:
        """`Accelerator.end_training` was called."""
        self.leave()

    def leave(self, error: BaseException | None = None) -> None:
        """Take everything off, and tell once what was found.

        Args:
            error: the exception that ended the training, or None.
        """
        heard: BackwardWatch | None = self.__dict__.pop("_heard", None)
        if heard is not None:
            heard.remove()
            accelerator = self._accelerator
            if accelerator.__dict__.get("backward") is self._wrapped_backward:
                if self._own_backward is None:
                    del accelerator.backward
                else:
                    accelerator.backward = self._own_backward
            for trackers in (accelerator.log_with, accelerator.trackers):
                if self in trackers:
                    trackers.remove(self)
        super().leave(error)

    def _found(self, finding: Any) -> None:
        super()._found(finding)
        if self._stop is not None and self._stop.wanted:
            self._accelerator.set_trigger()

    def __enter__(self) -> FitdoctorTracker:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.leave(error)


def _inner(scheduler: Any) -> Any:
    """The scheduler that Accelerate has wrapped."""
    return getattr(scheduler, "scheduler", scheduler)


def _facts(accelerator: Accelerator) -> dict[str, Fact | None]:
    return {
        "gradient_accumulation_steps": int(accelerator.gradient_accumulation_steps),
        "autocast": {"fp16": "float16", "bf16": "bfloat16"}.get(str(accelerator.mixed_precision)),
        "world_size": int(accelerator.num_processes) if accelerator.num_processes > 1 else None,
    }
