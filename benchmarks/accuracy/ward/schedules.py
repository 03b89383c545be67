"""The learning rate of a run: torch's own schedulers, stepped where a recipe (rightly or wrongly) steps them."""

from __future__ import annotations

import math
from typing import Any

import torch
from benchmarks.accuracy.ward.recipe import Recipe
from torch.optim import lr_scheduler


class Schedule:
    """A scheduler and when it is stepped.

    Attributes:
        scheduler: torch's object, None for a constant rate.
        per_epoch: steps of the optimizer in an epoch.
    """

    def __init__(self, recipe: Recipe, optimizer: torch.optim.Optimizer, per_epoch: int) -> None:
        self.recipe, self.optimizer, self.per_epoch = recipe, optimizer, per_epoch
        epochs = recipe.schedule_epochs or recipe.epochs
        self.each_step = recipe.scheduler_every == "batch"
        self.scheduler: Any = None
        kind = recipe.schedule
        if recipe.warmup or kind in ("linear", "onecycle") or kind.startswith("early"):
            self.each_step = True
        if kind == "onecycle":
            self.scheduler = lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=epochs * per_epoch + 1)
        elif self.each_step and recipe.scheduler_every != "batch":
            self.scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: self._share(step / (epochs * per_epoch)))
        elif kind == "step":
            self.scheduler = lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
        elif kind == "exponential":
            self.scheduler = lr_scheduler.ExponentialLR(optimizer, 0.02 ** (1 / epochs))
        elif kind == "cosine":
            self.scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        elif kind == "restarts":
            self.scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=max(epochs // 4, 1))
        elif kind == "plateau":
            self.scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=4)
        elif kind != "constant":
            raise ValueError(f"{kind}: expected a schedule that `Recipe.schedule` names")

    def _share(self, done: float) -> float:
        """Rate as a share of its peak, `done` being the share of the run that is over."""
        warmup, kind = self.recipe.warmup, self.recipe.schedule
        if done < warmup:
            return max(done / warmup, 1e-3)
        done = min((done - warmup) / max(1 - warmup, 1e-9), 1.0)
        if kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if kind in ("linear", "exponential"):
            return 1 - done if kind == "linear" else 0.02**done
        if kind == "step":
            return 0.1 ** ((done >= 0.5) + (done >= 0.75))
        if kind.startswith("early"):  # "early-0.1": next to nothing after that share of the run
            return 1.0 if done < float(kind.partition("-")[2]) else 0.002
        return 1.0

    @property
    def rate(self) -> float:
        """The learning rate of the coming step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        """Called after each step of the optimizer."""
        if self.scheduler is not None and self.each_step:
            self.scheduler.step()

    def after_epoch(self, val_loss: float) -> None:
        """Called at the end of an epoch."""
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(val_loss)
        elif self.scheduler is not None and not self.each_step:
            self.scheduler.step()
