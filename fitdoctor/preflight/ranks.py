"""What several processes of one training must agree on; a process that is alone agrees with itself.

Every process calls these in the same order. That holds because whatever decides how a shared experiment goes on
(losses, time, failures) is agreed on first; all other experiments run in each process by itself, on the bare model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fitdoctor.errors import ConfigError


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if world() > 1:
        dist.all_reduce(values)
        values /= world()
    return values


def largest(value: float, device: torch.device) -> float:
    """The largest of the numbers that the processes give."""
    if world() == 1:
        return value
    held = torch.tensor(value, dtype=torch.float32, device=device)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return float(held)


def least(value: float, device: torch.device) -> float:
    """The least of the numbers that the processes give."""
    return -largest(-value, device)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean gradients over all processes, as DistributedDataParallel gives them; None counts as zero."""
    if world() == 1:
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        mean(p.grad)


def gathered(thing: Any) -> list[Any]:
    """What every process gives, by rank."""
    if world() == 1:
        return [thing]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, thing)
    return found


def bare(model: nn.Module) -> nn.Module:
    """The model without wrappers that talk to other processes, or that compile it.

    Raises:
        ConfigError: if its parameters are sharded: no process holds a whole model then.
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            break
    sharded = [name for name, p in model.named_parameters() if hasattr(p, "device_mesh") or hasattr(p, "_local_shape")]
    if sharded:
        raise ConfigError(
            f"expected whole parameters, got sharded ones ({sharded[0]} and others): "
            "check the program before it is sharded"
        )
    return model
