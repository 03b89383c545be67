"""Short trainings watched by the monitor, each with one fault of bookkeeping or none; made once per session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from fitdoctor.run import Run
from tests.hooked import digits, mlp, ordinary_step, watch

torch = pytest.importorskip("torch")

import fitdoctor  # noqa: E402  (after importorskip)
from torch import Tensor, nn  # noqa: E402

Optimizers = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(lr: float = 0.1, **more: Any) -> Optimizers:
    """Makes SGD for a model's parameters."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, **more)


def adam(lr: float = 1e-3) -> Optimizers:
    """Makes Adam for a model's parameters."""
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr)


def net() -> nn.Module:
    """A network without modes."""
    return mlp(64, 32, 10)


def modal(norm: bool = True, dropout: float = 0.2) -> nn.Module:
    """A network with batch norm and dropout."""
    middle = ([nn.BatchNorm1d(32)] if norm else []) + [nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(nn.Linear(64, 32), *middle, nn.Linear(32, 10))


def short(build: Callable[[], nn.Module] = net, optimizer: Optimizers | None = None, **more: Any) -> Run:
    """72 steps on the digits, recorded at every third, without validation."""
    given = {"data": digits()[0], "epochs": 3, "every": 3, "tier": "light"} | more
    return watch(build, optimizer=optimizer or sgd(), **given)


@cache
def healthy() -> Run:
    """Nothing wrong, with the modes and the layers measured."""
    return short(modal, tier="standard")


def loop(
    *,
    build: Callable[[], nn.Module] = modal,
    train_mode: Callable[[nn.Module], object] = lambda model: model.train(),
    eval_mode: Callable[[nn.Module], object] = lambda model: model.eval(),
    gradients: bool = False,
    keep: str = "",
    epochs: int = 4,
    before: Callable[[nn.Module, Tensor, Tensor], object] | None = None,
) -> Run:
    """A training of 12 steps an epoch with an evaluation of 6 batches after each, and one of its lines wrong.

    Args:
        build: makes the model.
        train_mode: what is called before an epoch.
        eval_mode: what is called before an evaluation.
        gradients: evaluate with gradients on.
        keep: "outputs" or "losses" of an evaluation that are kept until its end.
        epochs: length.
        before: what is done with the model and a batch before the step on it.
    """
    torch.manual_seed(0)
    model, criterion = build(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (x, y), (x_val, y_val) = digits()
    with fitdoctor.attach(model, optimizer, criterion, record_every=2, judge_every=10**9, tier="light") as monitor:
        for _ in range(epochs):
            train_mode(model)
            for batch in torch.randperm(len(x)).split(100):
                if before is not None:
                    before(model, x[batch], y[batch])
                ordinary_step(model, criterion, optimizer, x[batch], y[batch])
            eval_mode(model)
            kept: list[Tensor] = []
            total: Any = 0.0
            with contextlib.nullcontext() if gradients else torch.no_grad():
                for part, labels in zip(x_val.split(100), y_val.split(100), strict=True):
                    out = model(part)
                    loss = criterion(out, labels)
                    total = total + (loss if keep == "losses" else loss.item())
                    kept += [out] if keep == "outputs" else []
            monitor.log(val_loss=(total.item() if isinstance(total, Tensor) else total) / 6)
    return monitor.run


@cache
def sound_loop() -> Run:
    """The same with nothing wrong."""
    return loop()
