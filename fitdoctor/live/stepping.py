"""What takes optimizer steps: an optimizer of torch, or what a framework has in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

StepHook = Callable[[Any, object, object], None]


class StepSource:
    """Steps of something that is no optimizer of torch.

    An adapter makes one, keeps it up to date, and calls `begin_step` and `end_step` around each step. What it has in
    common with `torch.optim.Optimizer` has the same names there.

    Args:
        kind: name of the optimizer, as rules and remedies know it.
        parameters: what it trains.

    Attributes:
        kind: the same.
        settings: what `param_groups` tells besides the parameters: "lr", "betas" ...
        state: parameter -> its moments, under torch's names.
    """

    def __init__(self, kind: str, parameters: list[Tensor]) -> None:
        self.kind = kind
        self.settings: dict[str, Any] = {}
        self.state: Mapping[Tensor, Any] = {}
        self._parameters = parameters
        self._before: dict[int, StepHook] = {}
        self._after: dict[int, StepHook] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group of all parameters, with the settings as they are."""
        return [{"params": self._parameters, **self.settings}]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Says that gradients were cleared; clearing them is the framework's own business."""

    def gradient_of(self, parameter: Tensor) -> Tensor | None:
        """The gradient as the step sees it: unscaled, accumulated, clipped."""
        return parameter.grad

    def unclipped_gradient_of(self, parameter: Tensor) -> Tensor | None:
        """The gradient before it was clipped; None where nothing clips."""
        return None

    def register_step_pre_hook(self, hook: StepHook) -> Registered:
        """Have a hook called before each step."""
        return Registered(self._before, hook)

    def register_step_post_hook(self, hook: StepHook) -> Registered:
        """Have a hook called after each step."""
        return Registered(self._after, hook)

    def begin_step(self) -> None:
        """For the adapter: a step is about to be taken."""
        for hook in list(self._before.values()):
            hook(self, (), {})

    def end_step(self) -> None:
        """For the adapter: the step is taken."""
        for hook in list(self._after.values()):
            hook(self, (), {})


class Registered:
    """A hook that can be taken off."""

    def __init__(self, hooks: dict[int, StepHook], hook: StepHook) -> None:
        self._hooks = hooks
        hooks[id(self)] = hook

    def remove(self) -> None:
        """Take it off."""
        self._hooks.pop(id(self), None)


Stepper = torch.optim.Optimizer | StepSource


def kind_of(optimizer: Stepper) -> str:
    """Name of an optimizer: "AdamW"."""
    return optimizer.kind if isinstance(optimizer, StepSource) else type(optimizer).__name__
