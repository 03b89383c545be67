"""PyTorch-Ignite.

from fitdoctor.live.integrations.ignite import attach
watch = attach(trainer, model, optimizer, criterion, evaluator=evaluator, logdir="runs/a")
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from fitdoctor.errors import ConfigError
from fitdoctor.live.integrations.guest import Guest, guarded
from fitdoctor.live.layers import Model
from fitdoctor.live.watched import Host, Optimizers
from fitdoctor.run import Fact

_READ_EVERY = 0.5  # seconds between two readings of a number that lies on a device: each waits for it


class FitdoctorHandler(Guest):
    """Watches the runs of a trainer engine; made by `attach`, arguments and attributes are those of `Guest`.

    The monitor comes when a run starts and goes when it is completed, after all handlers that were there before.
    Steps go on where the engine's iterations stand, so a loaded engine keeps them. ``stop_on`` calls
    ``trainer.terminate()``.
    """

    def __init__(
        self,
        trainer: Engine,
        model: Model,
        optimizer: Optimizers,
        *,
        evaluators: Mapping[str, Engine],
        output_transform: Callable[[Any], Any] | None,
        scheduler: Any,
        scaler: Any,
        accumulated: int | None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._trainer, self._model, self._optimizer = trainer, model, optimizer
        self._evaluators, self._output_transform = evaluators, output_transform
        self._scheduler, self._scaler, self._accumulated = scheduler, scaler, accumulated
        self._outputs: list[Mapping[str, float]] = []
        self._read = 0.0
        self._logged = 0
        self._listens = False
        trainer.add_event_handler(Events.STARTED, self._started)

    # --- training ---------------------------------------------------------------------------------------

    @guarded
    def _started(self, trainer: Engine) -> None:
        """Attach: the engine knows by now where it stands and how far it goes."""
        made = _made_with(trainer)
        steps = self._accumulated or int(made.get("gradient_accumulation_steps", 1))
        self.enter(
            self._model,
            self._optimizer,
            host=Host(start=trainer.state.iteration // steps, hears_losses=self._output_transform is None),
            framework="ignite",
            folder=None,
            scheduler=self._scheduler,
            scaler=self._scaler or getattr(trainer.state, "scaler", None) or made.get("scaler"),
            facts=_facts(trainer, steps),
        )
        self._outputs.clear()
        self._logged = self.monitor.step if self.monitor else 0
        if self._listens:
            return
        self._listens = True  # from now on, and not earlier: what others do at these events comes first
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._iterated)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_over)
        trainer.add_event_handler(Events.TERMINATE, self._terminated)
        trainer.add_event_handler(Events.COMPLETED, self._completed)
        trainer.add_event_handler(Events.EXCEPTION_RAISED, self._broken)
        for split, evaluator in self._evaluators.items():
            evaluator.add_event_handler(Events.COMPLETED, self._evaluated, split)

    @guarded
    def _iterated(self, trainer: Engine) -> None:
        """A batch is done; the optimizer has stepped, unless batches are accumulated."""
        if self._output_transform is not None:
            self._take_output(self._output_transform(trainer.state.output))
        if self.to_stop():
            trainer.terminate()

    def _take_output(self, output: Any) -> None:
        """Log what the user makes of the engine's output: the mean over the batches of a step."""
        if self.monitor is None or self.report is not None:
            return
        named = output if isinstance(output, Mapping) else {"loss": output}
        if any(isinstance(v, torch.Tensor) and v.device.type != "cpu" for v in named.values()):
            now = time.perf_counter()
            if now - self._read < _READ_EVERY:
                return
            self._read = now
        self._outputs.append({k: float(v) for k, v in named.items() if v is not None})
        if self.monitor.step > self._logged:
            self._logged = self.monitor.step
            means = {k: sum(o[k] for o in self._outputs) / len(self._outputs) for k in self._outputs[0]}
            self._outputs.clear()
            self.monitor.log(None, **means)

    @guarded
    def _epoch_over(self, trainer: Engine) -> None:
        """An epoch is over; its length is known by now."""
        if self.monitor is None or self.report is not None:
            return
        self.monitor.log(epoch=trainer.state.epoch)
        self.log_training(trainer.state.metrics)
        if trainer.state.epoch == 1:
            steps = self._accumulated or int(_made_with(trainer).get("gradient_accumulation_steps", 1))
            self.monitor.inform(**{k: v for k, v in _lengths(trainer, steps).items() if v is not None})

    @guarded
    def _evaluated(self, evaluator: Engine, split: str) -> None:
        """An evaluator has run, be it on the data of the training."""
        if self.report is not None:
            return
        if split == "train" or evaluator.state.dataloader is self._trainer.state.dataloader:
            self.log_training(evaluator.state.metrics)
        elif split == "val":
            self.log_validation(evaluator.state.metrics, all_of_it=True)

    # --- the end ----------------------------------------------------------------------------------------

    @guarded
    def _terminated(self, trainer: Engine) -> None:
        """Training was stopped; most often, the completion is still to come."""
        if trainer.should_terminate == "skip_completed":
            self.leave()

    @guarded
    def _completed(self, trainer: Engine) -> None:
        """Training is over."""
        self.leave()

    def _broken(self, trainer: Engine, error: BaseException) -> None:
        """Training broke. The engine raises by itself only where nobody listens to this event."""
        if not self.off:
            self.leave(error)
        if len(getattr(trainer, "_event_handlers", {}).get(Events.EXCEPTION_RAISED, ())) <= 1:
            raise error


def attach(
    trainer: Engine,
    model: Model,
    optimizer: Optimizers,
    criterion: nn.Module | Callable[..., Any] | None = None,
    *,
    evaluator: Engine | Mapping[str, Engine] | None = None,
    output_transform: Callable[[Any], Any] | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    gradient_accumulation_steps: int | None = None,
    **options: Any,
) -> FitdoctorHandler:
    """Watch the runs of a trainer engine.

    Args:
        trainer: the engine that trains.
        model: the module that it calls, wrapped or not; several as a sequence or mapping.
        optimizer: the optimizer, or several; the first one is the clock.
        criterion: the loss. Of a function instead of a module, the loss is what ``backward`` is called on, summed over
            the batches of a step: what it is for engines that divide by their number, as Ignite's own do.
        evaluator: the engine whose metrics are those of the validation; or several by split, ``{"val": ..., "train":
            ...}``. One that runs on the data of the training as well is understood.
        output_transform: makes the loss, or numbers by name, of ``trainer.state.output``. For steps whose loss is none
            of the above.
        scheduler: the learning rate scheduler of torch, to count its steps.
        scaler: the GradScaler; that of ``create_supervised_trainer`` is found.
        gradient_accumulation_steps: iterations per optimizer step, to go on with the right step after
            ``trainer.load_state_dict``; that of ``create_supervised_trainer`` is found.
        options: see `Guest`.

    Returns:
        What holds the monitor (``.monitor``) during a run, and its ``.report`` after it.

    Raises:
        ConfigError: if an engine is none.
    """
    evaluators = evaluator if isinstance(evaluator, Mapping) else {"val": evaluator} if evaluator is not None else {}
    for name, engine in {"trainer": trainer, **{f"evaluator {k}": e for k, e in evaluators.items()}}.items():
        if not isinstance(engine, Engine):
            raise ConfigError(
                f"{name}: expected an ignite.engine.Engine, got {type(engine).__name__}; "
                "attach(trainer, model, optimizer, criterion) takes them in this order"
            )
    return FitdoctorHandler(
        trainer,
        model,
        optimizer,
        criterion=criterion if isinstance(criterion, nn.Module) else None,
        evaluators=evaluators,
        output_transform=output_transform,
        scheduler=scheduler,
        scaler=scaler,
        accumulated=gradient_accumulation_steps,
        **options,
    )


def _made_with(trainer: Engine) -> Mapping[str, Any]:
    """What `create_supervised_trainer` was called with: its step function holds it."""
    with suppress(Exception):
        found = inspect.getclosurevars(trainer._process_function).nonlocals
        if "gradient_accumulation_steps" in found:
            return found
    return {}


def _facts(trainer: Engine, steps: int) -> dict[str, Fact | None]:
    facts = _lengths(trainer, steps)
    if steps > 1:
        facts["gradient_accumulation_steps"] = steps
    loader = trainer.state.dataloader
    with suppress(Exception):
        facts["n_train"] = len(loader.dataset)  # type: ignore[union-attr, arg-type]
    size = getattr(loader, "batch_size", None)
    if isinstance(size, int):
        facts["batch_size"] = size
    return facts


def _lengths(trainer: Engine, steps: int) -> dict[str, Fact | None]:
    state = trainer.state
    batches = state.max_iters
    if batches is None and state.epoch_length and state.max_epochs:
        batches = state.epoch_length * state.max_epochs
    whole = state.epoch_length and state.epoch_length % steps == 0
    return {
        "planned_epochs": state.max_epochs,
        "planned_steps": batches // steps if batches else None,
        "steps_per_epoch": state.epoch_length // steps if state.epoch_length and whole else None,
    }


__all__ = ["FitdoctorHandler", "attach"]
