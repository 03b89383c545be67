"""How the training loop takes a step: in which precision, with which scaling, accumulation and clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fitdoctor.errors import ConfigError

DIAGNOSTIC_SCALE = 1024.0
"""Factor of gradients that are only looked at: enough that float16 keeps small ones, little enough not to overflow.
A scaler itself begins at 65,536 and finds its factor by skipping steps, which a single pass cannot."""

PATIENCE = 20
"""Steps that a scaler may skip in a row: it halves its factor at each, and 2^20 brings any start down to 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the loop does beside ``loss.backward(); optimizer.step()``.

    Attributes:
        device: where it runs.
        amp: type of autocast; None without it.
        scaler: the gradient scaler; None without one.
        accumulate: batches per optimizer step.
        clip_norm: threshold of gradient clipping by norm; None without it.
    """

    device: torch.device
    amp: torch.dtype | None = None
    scaler: Any = None
    accumulate: int = 1
    clip_norm: float | None = None

    @property
    def scales(self) -> bool:
        """Whether gradients are scaled."""
        return self.scaler is not None and bool(self.scaler.is_enabled())

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast, where the loop has it; an autocast that surrounds everything stays in force otherwise."""
        return nullcontext() if self.amp is None else torch.autocast(self.device.type, dtype=self.amp)

    def look(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients to be looked at: those of the loss itself, though computed with a factor where the loop has one."""
        if not self.scales:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        (loss * DIAGNOSTIC_SCALE).backward()  # type: ignore[no-untyped-call]
        for p in parameters:
            if p.grad is not None:
                p.grad.div_(DIAGNOSTIC_SCALE)

    def backward(self, loss: Tensor) -> None:
        """Gradients for a step, scaled as in the loop."""
        (self.scaler.scale(loss) if self.scales else loss).backward()

    def update(
        self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], again: Callable[[], Tensor] | None = None
    ) -> bool:
        """One step of an optimizer on gradients of `backward`; False where the scaler skipped it.

        Args:
            optimizer: the user's own, or another.
            parameters: those to clip.
            again: computes loss and gradients anew, for LBFGS.
        """
        if isinstance(optimizer, torch.optim.LBFGS) and again is not None:
            optimizer.step(again)  # type: ignore[no-untyped-call]
            return True
        if self.clip_norm is not None:
            if self.scales:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(list(parameters), self.clip_norm)
        if not self.scales:
            optimizer.step()
            return True
        taken: list[bool] = []
        handle = optimizer.register_step_post_hook(lambda *_: taken.append(True))
        try:
            self.scaler.step(optimizer)
        finally:
            handle.remove()
        self.scaler.update()
        return bool(taken)


def recipe(
    who: str,
    device: torch.device,
    *,
    amp: torch.dtype | str | bool | None = None,
    scaler: Any = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> Recipe:
    """A `Recipe` of what a user gave.

    Args:
        who: the function whose arguments these are.
        device: where the program runs.
        amp: type of autocast, by itself or by its name; True for the device's own.
        scaler: the gradient scaler.
        accumulate: batches per optimizer step.
        clip_norm: threshold of gradient clipping.

    Raises:
        ConfigError: if an argument makes no sense.
    """
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise ConfigError(f"{who}: expected accumulate of 1 or more, got {accumulate!r}")
    if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
        raise ConfigError(f"{who}: expected clip_norm above 0 or None, got {clip_norm!r}")
    if scaler is not None and not all(hasattr(scaler, name) for name in ("scale", "step", "update", "is_enabled")):
        raise ConfigError(f"{who}: expected scaler to be a torch GradScaler, got {type(scaler).__name__}")
    kind: Any = amp
    if isinstance(amp, str):
        kind = getattr(torch, {"fp16": "float16", "bf16": "bfloat16"}.get(amp, amp), None)
    elif amp is True:
        kind = torch.get_autocast_dtype(device.type)
    elif amp is False:
        kind = None
    if amp and kind not in (torch.float16, torch.bfloat16):
        raise ConfigError(f"{who}: expected amp to be torch.float16, torch.bfloat16, True or None, got {amp!r}")
    return Recipe(device, kind, scaler, accumulate, clip_norm)
