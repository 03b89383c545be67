"""Trainings that the overhead of the hooks is measured on, and exact counts of what a step costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Workload = tuple[nn.Module, torch.optim.Optimizer, nn.Module, Tensor, Tensor]

SYNCS = ("_local_scalar_dense", "equal", "is_nonzero", "item", "nonzero")
"""Operations that make the host wait for a device."""


def cnn(device: str = "cpu") -> Workload:
    """A small CNN: three blocks, 32 images of 32 x 32."""
    layers: list[nn.Module] = []
    for a, b in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10)).to(device)
    x, y = torch.randn(32, 3, 32, 32, device=device), torch.randint(0, 10, (32,), device=device)
    return model, torch.optim.AdamW(model.parameters(), 1e-3), nn.CrossEntropyLoss(), x, y


def mlp40(device: str = "cpu") -> Workload:
    """40 layers of 64 units: next to no arithmetic per layer, the worst case for anything done per layer."""
    layers = [module for _ in range(40) for module in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10)).to(device)
    x, y = torch.randn(64, 64, device=device), torch.randint(0, 10, (64,), device=device)
    return model, torch.optim.AdamW(model.parameters(), 1e-3), nn.CrossEntropyLoss(), x, y


class _Transformer(nn.Module):
    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.1)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 256)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.embed(x))).flatten(0, 1)
        return out


def transformer(device: str = "cpu") -> Workload:
    """A small transformer: 4 blocks of width 128, 16 sequences of 64 tokens."""
    model = _Transformer().to(device)
    x = torch.randint(0, 256, (16, 64), device=device)
    y = torch.randint(0, 256, (16 * 64,), device=device)
    return model, torch.optim.AdamW(model.parameters(), 1e-3), nn.CrossEntropyLoss(), x, y


WORKLOADS: dict[str, Callable[..., Workload]] = {"mlp40": mlp40, "cnn": cnn, "transformer": transformer}


def step(work: Workload) -> None:
    """One plain training step."""
    model, optimizer, criterion, x, y = work
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    optimizer.step()


@dataclass
class Counts(TorchDispatchMode):
    """Counts operations, waits of the host and bytes read while it is on."""

    operations: int = 0
    syncs: int = 0
    bytes_read: int = 0
    hook_calls: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = object.__hash__

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.operations += 1
        self.kinds[name] += 1
        self.syncs += name in SYNCS
        if not func.is_view:
            self.bytes_read += sum(_size(a) for a in args)
        return func(*args, **(kwargs or {}))


def _size(value: Any) -> int:
    if isinstance(value, Tensor):
        return int(value.numel()) * int(value.element_size())
    return sum(_size(v) for v in value) if isinstance(value, list | tuple) else 0


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what happens inside."""
    from fitdoctor.live.taps import Tap

    counts = Counts()
    own = Tap.__call__

    def call(self: Tap, *args: Any) -> None:
        counts.hook_calls += 1
        own(self, *args)

    Tap.__call__ = call  # type: ignore[method-assign]
    try:
        with counts:
            yield counts
    finally:
        Tap.__call__ = own  # type: ignore[method-assign]


def counts_by_level(make: Callable[[], Workload], tier: Any = "standard") -> dict[str, Counts]:
    """What one step of each level costs, bare steps among them.

    Returns:
        "bare", "idle", "tick", "gradient", "record" -> counts of one whole step, training included; "adam" -> those of
        the record (one in four) that looks at Adam's state too.
    """
    from fitdoctor.live import attach
    from fitdoctor.live.adam import EVERY
    from fitdoctor.live.cadence import Level

    torch.manual_seed(0)
    work = make()
    for _ in range(3):
        step(work)
    out = {}
    with counted() as out["bare"]:
        step(work)
    with attach(work[0], work[1], work[2], tier=tier) as monitor:
        loop = monitor._loop
        for _ in range(4):
            step(work)
        loop.probes.wanted = False
        for level in Level:
            taken = []
            for _ in range(2 + EVERY):
                loop.begin(level)
                monitor._flushed = float("inf")  # a flush is not part of a step
                with counted() as counts:
                    step(work)
                taken.append(counts)
            taken = sorted(taken[2:], key=lambda c: c.operations)  # the first ones may still set something up
            out[level.name.lower()] = taken[0]
        out["adam"] = taken[-1]
        monitor._flushed = 0.0
    return out
