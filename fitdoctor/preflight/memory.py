"""How much memory a training step needs, from steps with a few examples."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitdoctor.preflight.batches import Batch
from fitdoctor.preflight.bench import Bench
from fitdoctor.rule import CannotJudge


@dataclass(frozen=True, slots=True)
class Ladder:
    """What small batches tell of large ones.

    Attributes:
        fixed: bytes beside what each example needs: gradients, optimizer state, workspace. Weights are there already.
        per_example: bytes per example.
        free: bytes that are free now.
        measured: whether the allocator's peak was measured, rather than the tensors that autograd keeps.
        points: (examples, bytes) of the rungs.
    """

    fixed: float
    per_example: float
    free: float
    measured: bool
    points: tuple[tuple[int, float], ...]


def ladder(bench: Bench, batch: Batch) -> Ladder:
    """Run three small batches and draw the line.

    Raises:
        CannotJudge: if nothing grows with the batch, or the free memory is unknown.
    """
    device = torch.device(bench.device)
    cuda = device.type == "cuda"
    # Batch norm needs two examples; the largest rung is an eighth of a batch where that is more than a few.
    sizes = sorted({min(2, len(batch)), min(4, len(batch)), min(len(batch), max(6, len(batch) // 8))})
    rungs: list[tuple[int, float]] = []
    with bench.mode(training=True):
        for size in sizes:
            part = batch.rows(slice(0, size))
            rungs.append((size, _peak(bench, part, device) if cuda else _kept(bench, part)))
    slope, start = np.polyfit([s for s, _ in rungs], [b for _, b in rungs], 1)
    if slope <= 0:
        raise CannotJudge("memory does not grow with the batch")
    free = _free(device)
    return Ladder(max(0.0, float(start)) + _lasting(bench), float(slope), free, cuda, tuple(rungs))


def _kept(bench: Bench, batch: Batch) -> float:
    """Bytes of the tensors that autograd keeps for the backward pass, weights left out, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in bench.model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        done = bench.run(batch)
        total = float(sum(sizes.values()))
        del done
    return total


def _peak(bench: Bench, batch: Batch, device: torch.device) -> float:
    """Bytes by which the allocator's peak rises in a forward and backward pass, gradients left out."""
    for p in bench.trainable.values():
        p.grad = None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    bench.look(bench.run(batch).loss)
    torch.cuda.synchronize(device)
    grads = sum(p.grad.nbytes for p in bench.trainable.values() if p.grad is not None)
    peak = torch.cuda.max_memory_allocated(device) - before - grads
    for p in bench.trainable.values():
        p.grad = None
    return float(max(0, peak))


def _lasting(bench: Bench) -> float:
    """Bytes of gradients and optimizer state that are not there yet."""
    owned = [p for group in bench.optimizer.param_groups for p in group["params"] if p.requires_grad]
    grads = sum(p.nbytes for p in bench.trainable.values() if p.grad is None)
    name = type(bench.optimizer).__name__.lower()
    copies = (
        2
        if "adam" in name or "lamb" in name
        else 1
        if any(g.get("momentum") for g in bench.optimizer.param_groups)
        else 0
    )
    copies = max(copies, 1) if "rms" in name or "adagrad" in name or "lion" in name else copies
    state = copies * sum(p.nbytes for p in owned if not bench.optimizer.state.get(p))
    return float(grads + state)


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError) as error:
        raise CannotJudge(f"the free memory of a {device.type} is unknown here") from error
