"""What `backward` is called on, for loops whose loss neither a criterion nor the model shows: all calls are heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from fitdoctor.live.taps import Tap

_listeners: WeakSet[BackwardWatch] = WeakSet()
_originals: list[tuple[Any, Any]] = []


class BackwardWatch:
    """Hears of every `backward` of one scalar tensor in the process.

    `torch.autograd.backward` is wrapped, which `Tensor.backward` calls.
    """

    def __init__(self, listener: Callable[[Tensor], None]) -> None:
        self.tap = Tap("the loss", listener)
        _listeners.add(self)
        _wrap_backward()

    def remove(self) -> None:
        """Stop listening."""
        _listeners.discard(self)
        if not _listeners:
            _unwrap_backward()


def _wrap_backward() -> None:
    if _originals:
        return
    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
        if not torch.compiler.is_compiling() and isinstance(tensors, Tensor) and tensors.ndim == 0:
            for watch in list(_listeners):
                watch.tap(tensors)
        original(tensors, *args, **kwargs)

    _originals.append((original, backward))
    torch.autograd.backward = backward


def _unwrap_backward() -> None:
    if _originals and torch.autograd.backward is _originals[0][1]:
        torch.autograd.backward = _originals.pop()[0]
