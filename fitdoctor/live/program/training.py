"""One training of a program: its monitor, and what the monitor is told about losses and evaluations."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.layers import compiled, unwrapped
from fitdoctor.live.monitor import Monitor
from fitdoctor.live.program.objective import Call, Objective, module_call
from fitdoctor.live.program.validation import Loaders, Validation
from fitdoctor.live.taps import ModuleTap, Tap

_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCEWithLogitsLoss, nn.BCELoss)


class Training:
    """What a program trains with some optimizers.

    Args:
        models: what is trained, by name.
        optimizers: its optimizers, by name.
        objective: follows the loss.
        loaders: where batches come from.

    Attributes:
        models: the same.
        optimizers: the same.
        objective: the same.
        validation: collects the evaluations.
        monitor: the monitor.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        objective: Objective,
        loaders: Loaders,
        monitor: Monitor,
    ) -> None:
        self.models, self.optimizers, self.objective, self.monitor = dict(models), dict(optimizers), objective, monitor
        self.validation = Validation(loaders)
        self._loaders = loaders
        self._first_step = monitor.step
        self._taps = [ModuleTap(m, "before", Tap("whose turn it is", self._called)) for m in models.values()]
        self._criterion: ModuleTap | None = None
        self._validated = False
        self.turn = 0  # of the observer's count of turns; the training whose model was called last has the highest
        objective.go_to(monitor)
        if (criterion := objective.module) is not None:
            self.follow(criterion)

    def follow(self, criterion: nn.Module) -> None:
        """A module was found to be the criterion."""
        self._criterion = ModuleTap(criterion, "after", Tap("the loss", self._criterion_ran))

    def _criterion_ran(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if isinstance(output, Tensor):
            self.loss_called(module_call(module, args, output))

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        """One of the models is about to run, and its hooks were not yet there when it was called.

        Args:
            module: the model.
            args: its positional arguments.
            kwargs: its keyword arguments, None where they are not known.
        """
        self._called(module, args, kwargs)
        if kwargs is not None:
            self.monitor.batch_begins(module, *args, **kwargs)

    def take_turn(self) -> None:
        """What comes next is of this training."""
        self.turn = next(_turns)

    def _called(self, module: nn.Module, args: object, kwargs: object) -> None:
        """One of the models is about to run."""
        if self.monitor.probing:
            return
        self.take_turn()
        if torch.is_grad_enabled() and module.training:
            self._loaders.note_training()
            if self.objective.known:
                self.log_validation()
        else:
            self.validation.begin()

    def loss_called(self, call: Call) -> None:
        """A loss function was called, and this is the training whose turn it is."""
        if torch.is_grad_enabled() and call.output.requires_grad:
            self.objective.called(call)
            if not any(m.training for m in self.models.values()):
                self._evaluated(call)  # or trained in eval mode: `backward` shows that
        else:
            self._evaluated(call)

    def _evaluated(self, call: Call) -> None:
        kind = self.objective.kind
        exact = kind is not None and call.kind == kind
        if exact or kind is None or isinstance(call.criterion, _CLASS_LOSSES):
            self.validation.take(call, exact=exact)

    def handed_over(self, tensor: Tensor) -> None:
        """A tensor is about to go into `backward`."""
        self.validation.forget()
        self.objective.handed_over(tensor)

    @property
    def idle(self) -> bool:
        """Whether the step under way is not measured, or the monitor is at work: losses need not be looked at."""
        if self.monitor.probing:
            return True
        return self.objective.known and torch.is_grad_enabled() and not self.monitor.measuring

    def first_step_done(self) -> None:
        """It is known what the loss is: what was evaluated before can be told."""
        if self.objective.known:
            self.log_validation(step=self._first_step)

    def log_validation(self, step: int | None = None) -> None:
        """An evaluation is over."""
        results = self.validation.finish()
        if self.objective.whole:
            results.pop("val_loss", None)  # of a sum of losses only parts are seen there
        if results:
            self.monitor.log(step, **results)
            self._validated = self._validated or "val_loss" in results

    @property
    def steps(self) -> int:
        """Optimizer steps seen."""
        return self.monitor.step - self._first_step

    @property
    def compiled(self) -> bool:
        """Whether a model runs through torch.compile."""
        return any(compiled(m) or compiled(unwrapped(m)) for m in self.models.values())

    def holds(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether this training is done by an optimizer, among others perhaps."""
        return any(o is optimizer for o in self.optimizers.values())

    def close(self) -> None:
        """Let go of the models; the monitor is closed by who made it."""
        if self.objective.known:
            self.log_validation()
        for tap in (*self._taps, *([self._criterion] if self._criterion else [])):
            tap.remove()

    # --- for people -------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return f"{described(self.models)}, trained by {' and '.join(_optimizer(o) for o in self.optimizers.values())}"

    def not_seen(self) -> list[str]:
        """What the monitor does not know of this training, and why, in sentences."""
        told = []
        if not self.objective.known:
            told.append("no loss was seen: nothing was handed to backward")
        if self.validation.passes and not self._validated:
            why = "of a loss that is no single function only the training tells the value"
            if not self.objective.whole:
                why = "none of them computed a loss"
            told.append(f"no validation loss: {self.validation.passes} passes without training, but {why}")
        if not self.validation.passes:
            told.append("no validation: the model never ran without training")
        if self.validation.left_out:
            told.append(
                f"{self.validation.left_out} evaluated batches: they were of training data, or of a further set"
            )
        if self.compiled:
            told.append("activations inside torch.compile")
        if any(isinstance(m, Parameters) for m in self.models.values()):
            told.append("activations: the parameters are used without a module")
        return told


class Parameters(nn.Module):
    """Stands for parameters that belong to no module."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        super().__init__()
        for i, p in enumerate(params):
            self._parameters[str(i)] = p  # type: ignore[assignment]  # a plain leaf tensor is trained as well


def described(models: Mapping[str, nn.Module]) -> str:
    """Models with their numbers of parameters.

    Example:
        >>> described({"": nn.Linear(3, 2)})
        'Linear (8 parameters)'
    """
    parts = []
    for name, model in models.items():
        inner = unwrapped(model)
        count = sum(p.numel() for p in inner.parameters())
        label = type(inner).__name__ + (f" {name!r}" if name and name != type(inner).__name__ else "")
        parts.append(f"{label} ({count:,} parameters)")
    return " and ".join(parts)


def _optimizer(optimizer: torch.optim.Optimizer) -> str:
    rates = {float(g["lr"]) for g in optimizer.param_groups if isinstance(g.get("lr"), int | float)}
    return type(optimizer).__name__ + (f" (lr {rates.pop():g})" if len(rates) == 1 else "")


def name_of(value: object, start: int = 1) -> str:
    """The name of a variable of the program that holds a value, "" where there is none."""
    frame: Any = sys._getframe(start)
    for variables in _variables(frame):
        for name, found in variables.items():
            if found is value and not name.startswith("_") and name != "self":
                return name
    return ""


def _variables(frame: Any) -> Iterator[Mapping[str, Any]]:
    while frame is not None:
        file = frame.f_code.co_filename
        if "site-packages" not in file and "fitdoctor" not in file.replace("\\", "/").split("/")[-4:-1]:
            yield dict(frame.f_locals)
            owner = frame.f_locals.get("self")
            if owner is not None:
                yield {**getattr(owner, "__dict__", {}), **getattr(owner, "__dict__", {}).get("_modules", {})}
        frame = frame.f_back


_turns = itertools.count(1)
