"""Small training programs, sound and defective, and a hash of everything that a probe might change."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from fitdoctor import catalogue, preflight
from fitdoctor.report import Outcome, Report
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PROBES = {p.name: p for p in catalogue.probes()}


@dataclass
class Program:
    """What `preflight` takes; every test changes what it is about."""

    model: nn.Module
    criterion: Any = field(default_factory=nn.CrossEntropyLoss)
    optimizer: Any = None
    train_loader: Any = None
    val_loader: Any = None
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        if self.train_loader is None:
            self.train_loader, val = loaders()
            self.val_loader = self.val_loader or val

    def check(self, *names: str, **more: Any) -> Report:
        """Run some probes."""
        return preflight(
            self.model, self.criterion, self.optimizer, self.train_loader, self.val_loader, select=names,
            **{**self.more, **more},
        )  # fmt: skip

    def outcome(self, name: str, **more: Any) -> Outcome:
        """What one probe says; a crash is a failure of the test."""
        (outcome,) = self.check(name, **more).outcomes
        assert outcome.status != "crashed", outcome.why
        return outcome

    def finds(self, name: str, *parts: str, severity: str = "", **more: Any) -> str:
        """The message of a probe that must find something."""
        outcome = self.outcome(name, **more)
        assert outcome.status == "found", (outcome.status, outcome.why)
        first = outcome.findings[0]
        check_form(outcome)
        for part in parts:
            assert part in first.message, first.message
        assert not severity or first.severity == severity, (first.severity, first.message)
        return first.message

    def sound(self, name: str, **more: Any) -> None:
        """A probe must look and find nothing."""
        outcome = self.outcome(name, **more)
        assert outcome.status == "clean", (outcome.why, [f.message for f in outcome.findings])

    def skips(self, name: str, *parts: str, **more: Any) -> None:
        """A probe must say why it cannot judge."""
        outcome = self.outcome(name, **more)
        assert outcome.status == "skipped", [f.message for f in outcome.findings]
        for part in parts:
            assert part in outcome.why, outcome.why


def check_form(outcome: Outcome) -> None:
    """Findings keep the form of a finding."""
    for f in outcome.findings:
        assert len(f.message) <= 100
        assert not f.message.endswith((".", "?"))
        assert f.evidence
        assert f.remedies or f.severity == "note"
        assert f.rule == outcome.rule


def vectors(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ten normal features, three classes by a linear rule."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 10, generator=g)
    rule = torch.randn(10, 3, generator=torch.Generator().manual_seed(99))
    return x, (x @ rule).argmax(1)


def images(n: int = 200) -> tuple[Tensor, Tensor]:
    """One-channel images of 8 by 8 with a bright half: which half is the class."""
    g = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 2
    x = 0.3 * torch.randn(n, 1, 8, 8, generator=g)
    x[y == 0, :, :4] += 1
    x[y == 1, :, 4:] += 1
    return x - x.mean(), y


def loader(x: Tensor, y: Tensor, batch: int = 32, **more: Any) -> DataLoader[Any]:
    """A shuffled loader."""
    return DataLoader(TensorDataset(x, y), batch, **{"shuffle": True, **more})


def loaders(n: int = 400, batch: int = 32) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training and validation loaders of `vectors`."""
    x, y = vectors(n + 400)
    return loader(x[:n], y[:n], batch), loader(x[n:], y[n:], 100, shuffle=False)


def mlp(
    *sizes: int, activation: type[nn.Module] = nn.ReLU, seed: int = 0, end: tuple[nn.Module, ...] = ()
) -> nn.Sequential:
    """A plain network."""
    torch.manual_seed(seed)
    sizes = sizes or (10, 32, 3)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1], *end)


def state_hash(*things: Any) -> str:
    """A hash of modules, optimizers, schedulers, scalers, loaders, tensors and all random generators."""
    out = blake2b()

    def add(thing: Any) -> None:
        if isinstance(thing, nn.Module):
            for module in thing.modules():
                out.update(repr((module.training, type(module).__name__, len(module._forward_hooks))).encode())
            for name, t in [*thing.named_parameters(), *thing.named_buffers()]:
                out.update(repr((name, t.requires_grad, id(t), t.data_ptr())).encode())
                add(t.detach())
                add(t.grad)
        elif isinstance(thing, Tensor):
            out.update(repr((thing.dtype, tuple(thing.shape))).encode())
            out.update(thing.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(thing, DataLoader):
            add(thing.generator)
            add({k: v for k, v in vars(thing.dataset).items() if isinstance(v, int | float | Tensor)})
            add({k: v for k, v in vars(thing.sampler).items() if isinstance(v, int)})
        elif isinstance(thing, torch.Generator):
            add(thing.get_state())
        elif hasattr(thing, "state_dict"):
            add(thing.state_dict())
        elif isinstance(thing, dict):
            for key, value in thing.items():
                out.update(repr(key).encode())
                add(value)
        elif isinstance(thing, list | tuple):
            for value in thing:
                add(value)
        else:
            out.update(repr(thing).encode())

    for thing in things:
        add(thing)
    out.update(repr((random.getstate(), np.random.get_state(legacy=False)["state"])).encode())  # noqa: NPY002
    add(torch.get_rng_state())
    return out.hexdigest()
