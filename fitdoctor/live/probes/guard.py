"""Puts back what a probe touches: modes, buffers, random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever runs inside, the model's modes and buffers and all random generators are as before afterwards.

    Gradients are switched off inside; parameters are the caller's own business.
    """
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what user code draws from
    devices = sorted(
        {p.device.index for p in model.parameters() if p.device.type == "cuda" and p.device.index is not None}
    )
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training  # .train() would recurse, and may be overridden
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value) if buffer.device.type == "cpu" else True:
                    buffer.copy_(value)
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002
