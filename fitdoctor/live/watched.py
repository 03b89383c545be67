"""What the user handed over: the parts of a training that is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitdoctor.errors import ConfigError
from fitdoctor.live.layers import Model, named_models

Optimizers = torch.optim.Optimizer | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """The parts of a training.

    Attributes:
        models: by name; a single one is called "".
        optimizers: unwrapped, by name; the first one is the clock.
        criterion: the loss module, or None.
        scheduler: the learning rate scheduler, or None.
        scaler: the GradScaler, or None.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    criterion: nn.Module | None = None
    scheduler: Any = None
    scaler: Any = None

    @classmethod
    def of(
        cls, model: Model, optimizer: Optimizers, criterion: nn.Module | None, scheduler: Any, scaler: Any
    ) -> Watched:
        """The parts as `fitdoctor.attach` takes them.

        Raises:
            ConfigError: if there is no optimizer among what should be optimizers.
        """
        return cls(named_models(model), named_optimizers(optimizer), criterion, scheduler, scaler)

    @property
    def model(self) -> nn.Module:
        """The first model."""
        return next(iter(self.models.values()))

    @property
    def clock(self) -> torch.optim.Optimizer:
        """The optimizer whose steps are counted."""
        return next(iter(self.optimizers.values()))

    @property
    def device(self) -> torch.device:
        """Where the first parameter lies."""
        return next((p.device for m in self.models.values() for p in m.parameters()), torch.device("cpu"))


def named_optimizers(given: Optimizers) -> dict[str, torch.optim.Optimizer]:
    """Unwrapped optimizers by name: "" for the first, "optimizer1" ... for others without names.

    Raises:
        ConfigError: if one is none, or none is given.
    """
    if isinstance(given, Mapping):
        named = {str(k): v for k, v in given.items()}
    else:
        members = list(given) if isinstance(given, Sequence) else [given]
        named = {f"optimizer{i}" if i else "": o for i, o in enumerate(members)}
    out = {}
    for key, optimizer in named.items():
        inner = optimizer
        for _ in range(8):  # accelerate and others wrap, and their register_step_post_hook raises
            inner = getattr(inner, "optimizer", inner)
        if not isinstance(inner, torch.optim.Optimizer):
            raise ConfigError(
                f"optimizer: expected a torch.optim.Optimizer (or several), got {type(optimizer).__name__}; "
                "attach(model, optimizer, criterion) takes them in this order"
            )
        out[key] = inner
    if not out:
        raise ConfigError("optimizer: expected at least one, got none")
    return out
