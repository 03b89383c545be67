"""A fixed batch of a split, evaluated in eval mode now and then.

It removes from the loss curve what hides a comparison of training and validation: the noise of the batch,
dropout, augmentation, and the average over an epoch in which the model changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.errors import ConfigError
from fitdoctor.live.layers import unwrapped
from fitdoctor.live.probes.guard import untouched
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import PROBE_ACCURACY, PROBE_LOSS


class FixedBatch:
    """Evaluates one batch.

    Args:
        split: "train" or "val".
        batch: ``(inputs, target)``, a mapping of keyword arguments for a model that returns its loss, or a function
            that takes the model and returns the loss.
        model: the model as the loop calls it.
        criterion: the loss module.

    Raises:
        ConfigError: if the batch is none of these, or a criterion is missing.
    """

    def __init__(self, split: str, batch: Any, model: nn.Module, criterion: nn.Module | None) -> None:
        self.split = split
        self._batch = batch
        self._model = unwrapped(model)
        self._criterion = criterion
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not (callable(batch) or pair or isinstance(batch, Mapping)):
            raise ConfigError(
                f"probe_{split}: expected (inputs, target), keyword arguments or a function of the model, "
                f"got {type(batch).__name__}"
            )
        if pair and criterion is None:
            raise ConfigError(
                f"probe_{split}: (inputs, target) needs a criterion; pass one, or a function of the model"
            )

    def evaluate(self, row: Row) -> None:
        """Evaluate; the numbers stay on the device."""
        with untouched(self._model):
            self._model.eval()
            found = self._outcome()
        row.add(_Outcome(self.split, len(found)), torch.stack([t.detach().float().reshape(()) for t in found]))

    def _outcome(self) -> list[Tensor]:
        """The loss, and the accuracy where it can be told."""
        if isinstance(self._batch, Mapping):
            return [_loss_of(self._model(**self._batch))]
        if not isinstance(self._batch, tuple | list):
            return [_loss_of(self._batch(self._model))]
        inputs, target = self._batch
        assert self._criterion is not None
        output = self._model(*inputs) if isinstance(inputs, tuple | list) else self._model(inputs)
        found = [self._criterion(output, target).mean()]
        if (
            isinstance(self._criterion, nn.CrossEntropyLoss | nn.NLLLoss)
            and isinstance(output, Tensor)
            and isinstance(target, Tensor)
            and not target.is_floating_point()
        ):
            told = next((a for a in (1, -1) if _without(output.shape, a) == target.shape), None)
            if told is not None:  # classes come second in PyTorch; a criterion that flattens may want them last
                counted = torch.ne(target, self._criterion.ignore_index)
                found.append((torch.eq(output.argmax(told), target) & counted).sum() / counted.sum())
        return found


def _without(shape: torch.Size, axis: int) -> tuple[int, ...]:
    sizes = list(shape)
    if len(sizes) > 1:
        del sizes[axis]
    return tuple(sizes)


def _loss_of(output: Any) -> Tensor:
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", output)
    if not isinstance(loss, Tensor):
        raise TypeError(f"expected a loss tensor from the probe, got {type(loss).__name__}")
    return loss.mean()


class _Outcome:
    def __init__(self, split: str, count: int) -> None:
        self.split, self.count = split, count

    def __call__(self, row: Row, values: FloatArray) -> list[Any]:
        return [
            row.point(quantity, float(value), split=self.split)
            for quantity, value in zip((PROBE_LOSS, PROBE_ACCURACY)[: self.count], values, strict=True)
        ]
