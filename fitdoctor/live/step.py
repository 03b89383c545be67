"""What is noted in the course of one training step, and small parts of its row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.parameters import norms
from fitdoctor.live.sinks import Point, Vector
from fitdoctor.live.transport import Row, scalar
from fitdoctor.run import FloatArray
from fitdoctor.signals import GRAD_LEFTOVER, LOSS, LOSS_WEIGHT

View = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and offset of a tensor in the contiguous storage of another."""


@dataclass(slots=True, eq=False)
class Batch:
    """One forward pass of a training step, while it lasts.

    Attributes:
        module: the model that was called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        criterion_args: what the criterion was called with.
        output: address of the storage of the model's output, and where in it the output begins; None when it is not one
            contiguous tensor.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    criterion_args: tuple[Any, ...] = ()
    output: tuple[int, int] | None = None

    def note_output(self, output: object) -> None:
        """The model has run."""
        self.output = None
        if isinstance(output, Tensor) and output.layout is torch.strided and output.is_contiguous():
            self.output = output.untyped_storage().data_ptr(), int(output.storage_offset())

    def scored_before(self, args: Sequence[object]) -> bool:
        """Whether the criterion was called before on the same output of this batch, with another target."""
        if not self.criterion_args or not args:
            return False
        before, now = self.criterion_args[0], args[0]
        alike = isinstance(before, Tensor) and isinstance(now, Tensor) and before.shape == now.shape
        return alike and before.data_ptr() == now.data_ptr()  # type: ignore[attr-defined]

    def view(self) -> View | None:
        """How the criterion's input lies in the model's output; None when it is no view of it."""
        given = self.criterion_args[0] if self.criterion_args else None
        if self.output is None or not isinstance(given, Tensor) or given.layout is not torch.strided:
            return None
        address, begin = self.output
        if given.untyped_storage().data_ptr() != address or given.storage_offset() < begin:
            return None
        return tuple(given.shape), given.stride(), int(given.storage_offset()) - begin


@dataclass(slots=True, eq=False)
class Step:
    """What was noted since the last step of the first optimizer.

    Attributes:
        row: receives the measurements.
        forwards: forward passes of the model.
        backwards: backward passes.
        losses: losses that are numbers of the host; what another optimizer has stepped on is no part of them.
        summed: whether the loss of the step is their sum, not their mean.
        loss_tensors: losses that are still on the device.
        since_forward: losses since the last forward pass began.
        firsts: places in the list of losses of those that were the first of their forward pass.
        shares: place -> gradient with respect to that loss, where one forward pass has several: the mixing weights.
        weight: gradient with respect to the first loss: what it was multiplied with before `backward`.
        divided_by: what the objective was divided by to give the tensor that stood for the first loss; None where the
            division was in all likelihood the loop's own and is not known.
        leftover: smallest norm of the witness gradient as a backward pass began.
        first_half: gradient norm of the first of several accumulated batches.
        batch_size: inputs of all forward passes.
        data_time: seconds waited for the batch.
        spent: seconds that the hooks used.
        bad: whether a loss was not finite.
        clip_factor: what clipping multiplied the gradients with.
        clipped: identities of the optimizers whose gradients were clipped.
        steps: identity of optimizer -> its steps.
        taken: steps of all optimizers as the last loss was taken.
        zeroed: calls of zero_grad as the last backward pass began.
        stepped: steps of all optimizers as it began.
        attempts: earlier attempts at this step whose gradients were thrown away.
        stepping: whether an optimizer is inside its step, where it may call a closure several times.
    """

    row: Row
    forwards: int = 0
    backwards: int = 0
    losses: list[float] = field(default_factory=list)
    loss_tensors: list[Tensor] = field(default_factory=list)
    summed: bool = False
    since_forward: int = 0
    firsts: list[int] = field(default_factory=list)
    shares: dict[int, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    divided_by: Tensor | float | None = 1.0
    leftover: Tensor | float | None = None
    first_half: Tensor | None = None
    batch_size: int = 0
    data_time: float = 0.0
    spent: float = 0.0
    bad: bool = False
    clip_factor: Tensor | float = 1.0
    clipped: set[int] = field(default_factory=set)
    steps: dict[int, int] = field(default_factory=dict)
    zeroed: int = 0
    stepped: int = 0
    taken: int = 0
    attempts: int = 0
    stepping: bool = False

    def thrown_away(self, zeroed: int) -> bool:
        """Whether gradients were cleared since the last backward pass, and no optimizer had used them.

        Args:
            zeroed: calls of zero_grad so far.
        """
        unused = self.backwards > 0 and not self.stepping and self.stepped == sum(self.steps.values())
        return unused and zeroed != self.zeroed

    def again(self, *, keep_last: bool) -> Step:
        """The same step, begun anew after its gradients were thrown away.

        Args:
            keep_last: keep the last forward pass, which belongs to the new attempt.
        """
        new = Step(Row(self.row.step), attempts=self.attempts + 1, spent=self.spent)
        if keep_last:
            new.firsts = [0]
            new.losses, new.loss_tensors = self.losses[-1:], self.loss_tensors[-1:]
            new.summed, new.divided_by = self.summed, self.divided_by
            new.forwards, new.batch_size = 1, self.batch_size // max(1, self.forwards)
        return new

    @property
    def several(self) -> bool:
        """Whether one forward pass had several losses, as with mixup or auxiliary heads."""
        return len(self.firsts) < max(len(self.losses), len(self.loss_tensors))

    def note_share(self, place: int, gradient: Tensor) -> None:
        """Backward has reached one of several losses, and the gradient is its weight in what backward was called on."""
        if gradient.ndim == 0:
            self.shares[place] = gradient.detach().float()

    @property
    def first_loss(self) -> Tensor | float | None:
        """The loss of the first batch, None where no loss was seen."""
        return self.losses[0] if self.losses else self.loss_tensors[0] if self.loss_tensors else None

    def take(self, loss: Tensor, times: Tensor | float = 1.0) -> float | None:
        """Take the loss of a batch, which need not be a single number.

        Args:
            loss: without its graph.
            times: what it is multiplied with to give the objective.

        Returns:
            It, where it is known at once and not finite.
        """
        if isinstance(times, Tensor) or times != 1.0:
            loss = loss * times
        if loss.ndim:
            loss = loss.mean()
        stepped = sum(self.steps.values())
        if stepped != self.taken:  # the losses so far were another optimizer's; this is one of another kind
            self.losses.clear()
            self.loss_tensors.clear()
            self.firsts.clear()
            self.shares.clear()
            self.taken = stepped
        if loss.device.type == "cpu" and loss.dtype in (torch.float32, torch.float64):
            number = float(loss.numpy())  # shares memory with the tensor; nothing to wait for
            self.losses.append(number)
            self.bad = self.bad or not math.isfinite(number)
            return None if math.isfinite(number) else number
        self.loss_tensors.append(loss.float().clone() if loss.dtype == torch.float32 else loss.float())
        return None

    def note_loss(self) -> None:
        """Put the loss of the step into its row: the mean over its batches, or the sum of their shares.

        Several losses of one forward pass are weighted as the loop weighted them.
        """
        known = self.losses or self.loss_tensors
        if self.several and len(self.shares) == len(known):
            weights = torch.stack([self.shares[i] for i in range(len(known))])
            parts = torch.tensor(self.losses) if self.losses else torch.stack(self.loss_tensors)
            total = weights.sum()
            mixed = (weights * parts.to(weights)).sum() / torch.where(total == 0, 1.0, total)
            self.row.add(scalar(LOSS), torch.where(total == 0, parts.mean().to(weights), mixed))
            return
        if self.losses:
            self.row.put(LOSS, sum(self.losses) / (1 if self.summed else len(self.losses)))
        if self.loss_tensors:
            loss = self.loss_tensors[0]
            if len(self.loss_tensors) > 1:
                all_ = torch.stack(self.loss_tensors)
                loss = all_.sum() if self.summed else all_.mean()
            self.row.add(scalar(LOSS), loss)

    def note_leftover(self, gradient: Tensor | None) -> None:
        """A backward pass begins, and this is the gradient of the witness parameter."""
        if gradient is None:
            self.leftover = 0.0
        elif gradient.layout == torch.strided and not hasattr(gradient, "to_local") and self.leftover != 0.0:
            with torch.no_grad():
                norm = norms([gradient.detach()])
                self.leftover = norm if self.leftover is None else torch.minimum(norm, torch.as_tensor(self.leftover))

    def note_first_half(self, gradients: Iterable[Tensor | None]) -> None:
        """Of several accumulated batches the first is over: the small batch of the noise scale."""
        there = [g for g in gradients if g is not None and g.layout == torch.strided]
        if there and not any(hasattr(g, "to_local") for g in there):
            with torch.no_grad():
                self.first_half = torch.linalg.vector_norm(norms(there)).reshape(1)

    def note_weights(self, divides: float = 1) -> None:
        """Put into the row what the loss was multiplied with, the gradient left over, and that of a small batch.

        Args:
            divides: what gradients are divided by after the backward passes.
        """
        if isinstance(self.leftover, Tensor):
            self.row.add(scalar(GRAD_LEFTOVER), self.leftover)
        elif self.leftover is not None:
            self.row.put(GRAD_LEFTOVER, self.leftover)
        if self.weight is not None and self.divided_by is not None and not self.several:
            self.row.add(_Weight(), self.weight / (self.divided_by * divides))
        if self.first_half is not None and self.forwards > 1:
            first = self.first_half if divides == 1 else self.first_half / divides
            self.row.parts.insert(0, (_FirstHalf(self.forwards, self.batch_size), first))


class _Weight:
    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context["weight"] = float(values[0])
        scale = row.context.get("scale", 1.0)
        return [row.point(LOSS_WEIGHT, float(values[0]) / scale)] if scale else []


class _FirstHalf:
    def __init__(self, forwards: int, samples: int) -> None:
        self.forwards, self.samples = forwards, samples

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        row.context["first_norm"] = float(values[0])
        row.context["forwards"], row.context["samples"] = float(self.forwards), float(self.samples)
        return []


def size_of_batch(args: Sequence[object], kwargs: Mapping[str, object]) -> int:
    """Inputs in what a model was called with: the length of the first tensor, 0 where there is none."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim:
            return int(value.shape[0])
        if isinstance(value, Mapping | list | tuple):
            found = size_of_batch(list(value.values()) if isinstance(value, Mapping) else value, {})
            if found:
                return found
    return 0
