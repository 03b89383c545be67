"""Gradient clipping: whoever calls torch's own functions for it is heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from fitdoctor.live.parameters import ParameterRecorder, local
from fitdoctor.live.sinks import Point, Vector
from fitdoctor.live.taps import Tap
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import GRAD_NORM

ClipListener = Callable[[Sequence[Tensor] | Tensor, float, Tensor], None]
"""Receives the clipped parameters, the limit, and the L2 norm of their gradients before clipping."""

_listeners: WeakSet[ClipWatch] = WeakSet()
_originals: dict[str, Any] = {}


class ClipWatch:
    """Hears of every gradient clipping in the process that torch's own functions do.

    The two inner functions of `torch.nn.utils.clip_grad` are wrapped, not the public one: whoever imported
    that one early, or calls it through accelerate or Lightning, is heard too. They are private, so where
    a torch version has them no longer, there is simply nothing to hear.
    """

    def __init__(self, listener: ClipListener) -> None:
        self.tap = Tap("gradient clipping", listener)
        _listeners.add(self)
        _wrap_clipping()

    def remove(self) -> None:
        """Stop listening."""
        _listeners.discard(self)
        if not _listeners:
            _unwrap_clipping()


def _wrap_clipping() -> None:
    import torch.nn.utils.clip_grad as module

    if _originals or not all(hasattr(module, n) for n in ("_clip_grads_with_norm_", "_get_total_norm")):
        return
    clip, total = module._clip_grads_with_norm_, module._get_total_norm
    kinds: list[float] = [2.0]  # of the norm that was taken last

    def get_total_norm(tensors: Any, norm_type: float = 2.0, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.compiler.is_compiling():
            kinds[0] = norm_type
        found: Tensor = total(tensors, norm_type, *args, **kwargs)
        return found

    def clip_grads_with_norm_(parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any) -> None:
        if not torch.compiler.is_compiling() and isinstance(parameters, list | tuple | Tensor):
            kind, kinds[0] = float(kinds[0]), 2.0
            if kind == 2.0:
                for watch in list(_listeners):
                    watch.tap(parameters, max_norm, total_norm)
        clip(parameters, max_norm, total_norm, *args, **kwargs)

    _originals.update(_clip_grads_with_norm_=clip, _get_total_norm=total, ours=(clip_grads_with_norm_, get_total_norm))
    module._clip_grads_with_norm_ = clip_grads_with_norm_
    module._get_total_norm = get_total_norm


def _unwrap_clipping() -> None:
    import torch.nn.utils.clip_grad as module

    if not _originals:
        return
    ours = _originals["ours"]
    if module._clip_grads_with_norm_ is ours[0] and module._get_total_norm is ours[1]:
        module._clip_grads_with_norm_ = _originals["_clip_grads_with_norm_"]
        module._get_total_norm = _originals["_get_total_norm"]
        _originals.clear()


def clipped_optimizers(
    recorders: Mapping[int, ParameterRecorder], parameters: Sequence[Tensor] | Tensor
) -> Iterator[tuple[int, bool]]:
    """The optimizers, by identity, that hold the clipped parameters, and whether those are all they hold."""
    clipped = {id(p) for p in ([parameters] if isinstance(parameters, Tensor) else parameters)}
    for key, recorder in recorders.items():
        params = recorder.params
        if params and id(params[0]) in clipped:
            yield key, len(clipped) >= len(params)


def note_clipping(row: Row, label: str, limit: float, norm: Tensor) -> None:
    """Add the norm before clipping to a row, ahead of the parts that are corrected by it.

    Args:
        row: receives the norm.
        label: name of the optimizer whose gradients are clipped.
        limit: norm that they are clipped to.
        norm: their norm before.
    """
    share = hasattr(norm, "to_local")  # of sharded gradients each process knows its part
    row.parts.insert(0, (_Clip(label, limit, share), local(norm.detach()).reshape(1)))


class _Clip:
    def __init__(self, label: str, limit: float, share: bool) -> None:
        self.label, self.limit, self.share = label, limit, share

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context[f"clip_limit{self.label}"] = self.limit
        if self.share:
            row.context[f"clip_share{self.label}"] = float(values[0])
            return []
        row.context[f"clip_norm_before{self.label}"] = float(values[0])
        return [row.point(GRAD_NORM, float(values[0]), self.label)]
