"""The Trainer of Hugging Face Transformers.

from fitdoctor.live.integrations.transformers import FitdoctorCallback
trainer = Trainer(..., callbacks=[FitdoctorCallback()])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from transformers import TrainerCallback

from fitdoctor.live.integrations.guest import Guest, guarded
from fitdoctor.live.watched import Host
from fitdoctor.run import Fact

_DEEP = 16  # nodes of a loss's graph in which its division by the number of items is looked for


class FitdoctorCallback(Guest, TrainerCallback):
    """Watches a training by `Trainer.train`; arguments and attributes are those of `Guest`.

    It logs to ``args.output_dir``. Losses are taken from the model or from the call of backward, so what
    ``logging_nan_inf_filter`` hides is seen. ``stop_on`` sets ``control.should_training_stop``.
    """

    @guarded
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach: model and optimizer are prepared, a checkpoint is loaded."""
        optimizer, scheduler = kwargs["optimizer"], kwargs.get("lr_scheduler")
        self.enter(
            kwargs["model"],
            optimizer,
            host=Host(start=int(state.global_step), hears_losses=True, is_mean=_Normalised()),
            framework="transformers",
            folder=args.output_dir,
            scheduler=getattr(scheduler, "scheduler", scheduler),
            scaler=getattr(optimizer, "scaler", None),
            facts=_facts(args, state, kwargs.get("train_dataloader")),
        )

    @guarded
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """The optimizer has stepped."""
        if self.to_stop():
            control.should_training_stop = True
        return control

    @guarded
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer has evaluated; before and after a training it may do so as well."""
        self.log_validation(kwargs.get("metrics") or {})

    @guarded
    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An epoch is over."""
        if self.running is not None and state.epoch is not None:
            self.running.log(epoch=state.epoch)

    @guarded
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over."""
        self.leave()


class _Normalised:
    """Tells whether the loss that a model returned is the mean over its batch, or its share of an accumulated one.

    The Trainer hands the number of items of all accumulated batches to models that take it. The loss of those that
    use it is divided by it, which its graph shows; those that ignore it return a mean.
    """

    def __init__(self) -> None:
        self._known: bool | None = None

    def __call__(self, inputs: Mapping[str, Any], loss: torch.Tensor) -> bool:
        items = inputs.get("num_items_in_batch")
        if items is None:
            return True
        if self._known is None:
            self._known = not _divided_by(loss, float(items))
        return self._known


def _divided_by(loss: torch.Tensor, number: float) -> bool:
    """Whether a division by this number is among the last operations that made the loss."""
    nodes: list[Any] = [loss.grad_fn]
    for node in nodes:
        if node is None:
            continue
        if str(node.name()).startswith("DivBackward") and _saved(node) == number:
            return True
        if len(nodes) < _DEEP:
            nodes += [before for before, _ in node.next_functions]
    return False


def _saved(node: Any) -> float | None:
    other = getattr(node, "_saved_other", None)
    return float(other) if isinstance(other, torch.Tensor) and other.numel() == 1 else None


def _facts(args: Any, state: Any, loader: Any) -> dict[str, Fact | None]:
    facts: dict[str, Fact | None] = {
        "gradient_accumulation_steps": int(args.gradient_accumulation_steps),
        "batch_size": int(args.per_device_train_batch_size),
        "planned_steps": int(state.max_steps) if state.max_steps > 0 else None,
        "clip_norm": float(args.max_grad_norm) if args.max_grad_norm else None,
        "label_smoothing": float(args.label_smoothing_factor) or None,
        # At the start of a batch the Trainer's autocast is not on yet, so it cannot be seen.
        "autocast": "bfloat16" if args.bf16 else "float16" if args.fp16 else None,
        "world_size": int(args.world_size) if args.world_size > 1 else None,
    }
    if args.max_steps <= 0 and args.num_train_epochs > 0:
        epochs = float(args.num_train_epochs)
        facts["planned_epochs"] = int(epochs) if epochs.is_integer() else epochs
    with suppress(Exception):  # streams have no length
        facts["steps_per_epoch"] = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
    with suppress(Exception):
        facts["n_train"] = len(loader.dataset)
    return facts
