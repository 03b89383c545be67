"""What goes into the criterion: a summary of logits, and the batch's accuracy where it can be read off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fitdoctor.live.activations import coprime
from fitdoctor.live.sinks import Point, Vector
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import (
    ACCURACY,
    LARGEST_PREDICTED_SHARE,
    LOG_PROBABILITY_ROWS,
    LOGIT_ABSMAX,
    LOGIT_MEAN,
    LOGIT_STD,
    PROBABILITY_ROWS,
    TARGET_STD,
    UNIT_INTERVAL_FRACTION,
    Quantity,
)

ROWS = 256
"""Rows of the criterion's input that are looked at."""

_SUM = 1e-3  # how far probabilities may sum to something else than 1, in half precision too
_GENERAL = (LOGIT_MEAN, LOGIT_STD, LOGIT_ABSMAX)


def take_logits(row: Row, criterion: nn.Module, args: Sequence[object]) -> int | None:
    """Summarise the criterion's first argument; returns the number of classes where it is a class score.

    Args:
        row: receives the numbers.
        criterion: the loss module.
        args: what it was called with.
    """
    logits = args[0] if args else None
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim == 0 or not logits.numel():
        return None
    target = args[1] if len(args) > 1 else None
    with torch.no_grad():
        classes = isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss) and logits.ndim >= 2
        x = logits.detach()
        x = x.movedim(1, -1).reshape(-1, x.shape[1]) if classes else x.reshape(-1, x.shape[-1])
        step = coprime(max(1, len(x) // ROWS), len(x))
        x = x[::step][:ROWS].float()
        quantities: tuple[Quantity, ...] = _GENERAL
        parts = [x.mean(), x.std(correction=0), x.abs().amax()]
        if classes:
            if isinstance(criterion, nn.CrossEntropyLoss):
                fits, rows = ((x.sum(1) - 1).abs() < _SUM) & (x.amin(1) >= 0), PROBABILITY_ROWS
            else:
                fits, rows = x.logsumexp(1).abs() < _SUM, LOG_PROBABILITY_ROWS
            predicted = x.argmax(1)
            same = torch.eq(predicted.unsqueeze(0), predicted.unsqueeze(1))  # a histogram would wait for the device
            quantities += (rows, LARGEST_PREDICTED_SHARE)
            parts += [fits.float().mean(), same.sum(1).amax() / len(x)]
            if isinstance(target, Tensor) and not target.is_floating_point():
                known = target.detach().reshape(-1)[::step][:ROWS]
                if len(known) == len(predicted):
                    counted = torch.ne(known, getattr(criterion, "ignore_index", -100))
                    right = (torch.eq(predicted, known) & counted).sum() / counted.sum()
                    quantities += (ACCURACY,)
                    parts.append(right)
        elif isinstance(criterion, nn.BCEWithLogitsLoss):
            quantities += (UNIT_INTERVAL_FRACTION,)
            parts.append(((x >= 0) & (x <= 1)).float().mean())
        elif isinstance(target, Tensor) and target.is_floating_point() and target.numel():
            quantities += (TARGET_STD,)
            parts.append(target.detach().reshape(-1)[: ROWS * x.shape[-1]].float().std(correction=0))
        row.add(_Summary(quantities), torch.stack(parts))
    return int(x.shape[1]) if classes else None


class _Summary:
    def __init__(self, quantities: Sequence[Quantity]) -> None:
        self.quantities = quantities

    def __call__(self, row: Row, values: FloatArray) -> list[Point | Vector]:
        mixed = row.context.get("mixed targets")  # the same outputs scored against several targets, as in mixup
        there = zip(self.quantities, values, strict=True)
        return [row.point(q, float(v)) for q, v in there if not (mixed and q is ACCURACY)]
