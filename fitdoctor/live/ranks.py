"""Several processes of one training: rank 0 writes and judges, the others send it what they measured.

Nothing here is a collective operation: a monitor that only some ranks attach must never make the others
wait. The numbers go through the key-value store that `torch.distributed` was started with. Each
process sends a batch of rows per flush; rank 0 joins rows of a step when all ranks have sent theirs.

- Sharded parameters (FSDP2): each rank knows its part of a norm; squares add up.
- Replicated parameters (DDP): the norms of the weights must agree; their spread is a measurement.
"""

from __future__ import annotations

import itertools
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fitdoctor.live.sinks import ABSENT, Point, Vector
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import (
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    QUANTITIES,
    RANK_DISAGREEMENT,
    UPDATE_NORM,
    UPDATE_RATIO,
    WEIGHT_NORM,
    Signal,
)

log = logging.getLogger("fitdoctor")

_NORMS = (GRAD_NORM, WEIGHT_NORM, UPDATE_NORM)
_CLIP = "clip"
_KEPT = 64  # rows that rank 0 holds back for a rank that may not have recorded their step
_attached = itertools.count()


def replicas_of(tensor: torch.Tensor, world: int) -> int:
    """How many processes hold the same part of a tensor: all of them unless it is a sharded DTensor."""
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return world
    copies = world // mesh.size()
    for placement, size in zip(tensor.placements, mesh.shape, strict=True):  # type: ignore[attr-defined]
        copies *= 1 if placement.is_shard() else int(size)
    return max(1, int(copies))


@dataclass(slots=True)
class _Part:
    """What one rank says of one step: squares of norms by quantity, and the weights it should share."""

    squares: dict[tuple[str, str], FloatArray]
    shared: float


class Ranks:
    """The exchange between the processes of one training.

    Args:
        sharded: whether any parameter is sharded, so that norms must be added up.
        replicas: per parameter, how many processes hold the same part.
    """

    def __init__(self, sharded: bool, replicas: Mapping[str, int]) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.sharded = sharded
        self._replicas = replicas
        self._store = dist.distributed_c10d._get_default_store()
        self._prefix = f"fitdoctor/{next(_attached)}"
        self._sent = 0
        self._received = [0] * self.world
        self._waiting: dict[int, dict[int, _Part]] = {}
        self._queue: list[tuple[Row, list[Point | Vector]]] = []

    @property
    def leads(self) -> bool:
        """Whether this process writes and judges."""
        return self.rank == 0

    def send(self, rows: Sequence[tuple[Row, Sequence[Point | Vector]]]) -> None:
        """Send the norms of recorded rows to rank 0."""
        parts = {row.step: part for row, items in rows if (part := self._part(row, items)) is not None}
        if parts and not self.leads:
            data = {s: ({k: v.tobytes() for k, v in p.squares.items()}, p.shared) for s, p in parts.items()}
            self._store.set(f"{self._prefix}/{self.rank}/{self._sent}", pickle.dumps(data))  # type: ignore[arg-type]
            self._sent += 1

    def _part(self, row: Row, items: Sequence[Point | Vector]) -> _Part | None:
        squares: dict[tuple[str, str], FloatArray] = {}
        shared = 0.0
        for item in items:
            if isinstance(item, Vector) and item.quantity in {q.name for q in _NORMS}:
                copies = np.array([self._replicas.get(name, self.world) for name in item.layers], float)
                there = item.values != ABSENT
                squares[item.quantity, item.group] = np.where(there, item.values**2 / copies, 0.0)
                if item.quantity == WEIGHT_NORM.name:
                    shared += float(np.sum(item.values[there & (copies == self.world)] ** 2))
                share = row.context.get(f"clip_share{item.group}")
                if item.quantity == GRAD_NORM.name and share is not None:
                    squares[_CLIP, item.group] = np.array([share**2])
        return _Part(squares, shared) if squares else None

    def join(self, rows: Sequence[tuple[Row, list[Point | Vector]]]) -> list[tuple[Row, list[Point | Vector]]]:
        """Rank 0: rows in their order, up to the first whose norms another rank has yet to send."""
        done: list[tuple[Row, list[Point | Vector]]] = []
        for row, items in rows:
            part = self._part(row, items)
            if part is not None:
                self._waiting.setdefault(row.step, {})[0] = part
            (self._queue if self.sharded else done).append((row, items))
        self._fetch()
        if not self.sharded:
            return done + self._compared()
        while self._queue:
            row, items = self._queue[0]
            parts = self._waiting.get(row.step, {})
            if 0 in parts and len(parts) < self.world:
                if len(self._queue) < _KEPT:
                    break
                items = [i for i in items if not _partial(i)]  # some rank did not record this step
            elif 0 in parts:
                items = [self._whole(i, parts) for i in items if isinstance(i, Vector) or not _partial(i)]
                items += self._totals(row, items, parts)
            self._waiting.pop(row.step, None)
            done.append((row, items))
            del self._queue[0]
        return done

    def _compared(self) -> list[tuple[Row, list[Point | Vector]]]:
        """How far the norms of shared weights lie apart, for steps that all ranks have sent."""
        out: list[tuple[Row, list[Point | Vector]]] = []
        for step in sorted(self._waiting):
            parts = self._waiting[step]
            if len(parts) == self.world:
                shared = np.sqrt([p.shared for p in parts.values()])
                del self._waiting[step]
                if np.isfinite(shared).all() and shared.max() > 0:
                    row = Row(step)
                    spread = float((shared.max() - shared.min()) / shared.max())
                    out.append((row, [row.point(RANK_DISAGREEMENT, spread)]))
        for step in sorted(self._waiting)[:-_KEPT]:
            del self._waiting[step]
        return out

    def _fetch(self) -> None:
        for rank in range(1, self.world):
            while self._store.check([key := f"{self._prefix}/{rank}/{self._received[rank]}"]):
                data: dict[int, Any] = pickle.loads(self._store.get(key))
                self._store.delete_key(key)
                self._received[rank] += 1
                for step, (squares, shared) in data.items():
                    part = _Part({k: np.frombuffer(v) for k, v in squares.items()}, shared)
                    self._waiting.setdefault(step, {})[rank] = part

    def _whole(self, item: Point | Vector, parts: Mapping[int, _Part]) -> Point | Vector:
        if not isinstance(item, Vector):
            return item
        if item.quantity == UPDATE_RATIO.name:
            update, weight = (
                sum(p.squares[q.name, item.group] for p in parts.values()) for q in (UPDATE_NORM, WEIGHT_NORM)
            )
            with np.errstate(all="ignore"):
                return item._replace(values=np.where(weight > 0, np.sqrt(update / weight), ABSENT))
        squares = [p.squares.get((item.quantity, item.group)) for p in parts.values()]
        if any(s is None or len(s) != len(item.values) for s in squares):
            return item
        total = np.sum(np.array(squares), 0)
        return item._replace(values=np.where((item.values == ABSENT) & (total == 0), ABSENT, np.sqrt(total)))

    def _totals(self, row: Row, items: list[Point | Vector], parts: Mapping[int, _Part]) -> list[Point]:
        """Norms of the whole model, which each rank could only know of its part; gradients as before clipping."""
        out = []
        for i, item in enumerate(items):
            if not isinstance(item, Vector) or item.quantity not in {q.name for q in _NORMS}:
                continue
            there = item.values != ABSENT
            total = float(np.sqrt(np.sum(item.values[there] ** 2)))
            quantity = QUANTITIES[item.quantity]
            shares = [p.squares.get((_CLIP, item.group)) for p in parts.values()]
            if quantity == GRAD_NORM and all(share is not None for share in shares):
                before = float(np.sqrt(np.sum([np.sum(s) for s in shares if s is not None])))
                factor = min(1.0, row.context[f"clip_limit{item.group}"] / (before + 1e-6))
                items[i] = item._replace(values=np.where(there, item.values / factor, ABSENT))
                out.append(row.point(GRAD_NORM_CLIPPED, total, item.group))
                total = before
            out.append(row.point(quantity, total, item.group))
            weight = next((p.value for p in out if p.signal == Signal(WEIGHT_NORM, layer=item.group)), 0.0)
            if quantity == UPDATE_NORM and weight:
                out.append(row.point(UPDATE_RATIO, total / weight, item.group))
        return out


def _partial(item: Point | Vector) -> bool:
    """Whether a measurement is of one process's part of the parameters only."""
    name = item.quantity if isinstance(item, Vector) else item.signal.quantity.name
    return name in {GRAD_NORM.name, WEIGHT_NORM.name, UPDATE_NORM.name, UPDATE_RATIO.name}


def ranks_of(params: Mapping[str, torch.Tensor]) -> Ranks | None:
    """The exchange, where this process is one of several; None where it trains alone."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    world = dist.get_world_size()
    replicas = {name: replicas_of(p, world) for name, p in params.items()}
    return Ranks(any(hasattr(p, "device_mesh") for p in params.values()), replicas)
