"""What the user handed over: the parts of a training that is watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.errors import ConfigError
from fitdoctor.live.layers import Anatomy, Model, named_models, parameter_names, watched_layers
from fitdoctor.live.stepping import Stepper, StepSource

Optimizers = torch.optim.Optimizer | StepSource | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Host:
    """A framework that owns the loop, and what it tells by itself.

    Attributes:
        start: optimizer steps done before, or None where only the log folder knows.
        anatomy: what the layers and parameters of the model are called and are; None where its modules tell.
        divides: what gradients are divided by after those of accumulated batches were summed.
        tells_batches: it tells when a training batch begins and ends (`Monitor.batch_begins`), and what ``backward`` is
            called on, so no hook is put on the calls of the model: it may never be called, only its parts.
        hears_losses: where neither the criterion nor the model shows a loss, that of a step is the sum of what
            ``backward`` is called on: the framework divides.
        is_mean: for a model that returns its loss: whether that is the mean over its batch, judged from what the model
            was called with by name, and the loss. One that is not is left to `hears_losses`.
    """

    start: int | None = None
    anatomy: Anatomy | None = None
    divides: float = 1
    tells_batches: bool = False
    hears_losses: bool = False
    is_mean: Callable[[Mapping[str, Any], Tensor], bool] = field(default=lambda inputs, loss: True)


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """The parts of a training.

    Attributes:
        models: by name; a single one is called "".
        optimizers: unwrapped, by name; the first one is the clock.
        criterion: the loss module, or None.
        scheduler: the learning rate scheduler, or None.
        scaler: the GradScaler, or None.
        host: the framework that owns the loop, or None for a loop of the user's own.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Stepper]
    criterion: nn.Module | None = None
    scheduler: Any = None
    scaler: Any = None
    host: Host | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        optimizer: Optimizers,
        criterion: nn.Module | None,
        scheduler: Any,
        scaler: Any,
        host: Host | None = None,
    ) -> Watched:
        """The parts as `fitdoctor.attach` takes them.

        Raises:
            ConfigError: if there is no optimizer among what should be optimizers.
        """
        return cls(named_models(model), named_optimizers(optimizer), criterion, scheduler, scaler, host)

    @property
    def model(self) -> nn.Module:
        """The first model."""
        return next(iter(self.models.values()))

    @property
    def clock(self) -> Stepper:
        """The optimizer whose steps are counted."""
        return next(iter(self.optimizers.values()))

    def parameter_names(self) -> dict[int, str]:
        """Names of all parameters by identity."""
        anatomy = self.host.anatomy if self.host else None
        return parameter_names(self.models) if anatomy is None else anatomy.parameter_names()

    def layers(self) -> dict[str, nn.Module]:
        """The layers whose outputs are looked at, by name."""
        anatomy = self.host.anatomy if self.host else None
        return watched_layers(self.models) if anatomy is None else anatomy.layers()

    @property
    def device(self) -> torch.device:
        """Where the first parameter lies."""
        return next((p.device for m in self.models.values() for p in m.parameters()), torch.device("cpu"))


def named_optimizers(given: Optimizers) -> dict[str, Stepper]:
    """Unwrapped optimizers by name: "" for the first, "optimizer1" ... for others without names.

    Raises:
        ConfigError: if one is none, or none is given.
    """
    if isinstance(given, Mapping):
        named = {str(k): v for k, v in given.items()}
    else:
        members = list(given) if isinstance(given, Sequence) else [given]
        named = {f"optimizer{i}" if i else "": o for i, o in enumerate(members)}
    out: dict[str, Stepper] = {}
    for key, optimizer in named.items():
        inner = optimizer
        for _ in range(8):  # accelerate and others wrap, and their register_step_post_hook raises
            inner = getattr(inner, "optimizer", inner)
        if not isinstance(inner, torch.optim.Optimizer | StepSource):
            raise ConfigError(
                f"optimizer: expected a torch.optim.Optimizer (or several), got {type(optimizer).__name__}; "
                "attach(model, optimizer, criterion) takes them in this order"
            )
        out[key] = inner
    if not out:
        raise ConfigError("optimizer: expected at least one, got none")
    return out
