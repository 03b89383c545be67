"""Small trainings watched by the monitor, for tests of rules that need the hooks' signals.

`watch(...)` runs an ordinary loop with `fitdoctor.attach` and returns the `Run` that the rules see.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from fitdoctor.run import Run

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

import fitdoctor  # noqa: E402  (after importorskip)
from torch import Tensor, nn  # noqa: E402

Data = tuple[Tensor, Tensor]


@cache
def digits() -> tuple[Data, Data]:
    """1,200 training and 597 validation images of scikit-learn's digits: inputs float32[n, 64], mean 0, and labels."""
    x, y = datasets.load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    inputs = torch.as_tensor(x, dtype=torch.float32)[order] / 16
    inputs = (inputs - inputs[:1200].mean()) / inputs[:1200].std()
    labels = torch.as_tensor(y)[order]
    return (inputs[:1200], labels[:1200]), (inputs[1200:], labels[1200:])


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


def batches(data: Data, size: int, epochs: int, seed: int = 0) -> list[list[Data]]:
    """Shuffled batches, one list per epoch."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(epochs):
        order = torch.randperm(len(data[0]), generator=generator)
        out.append([(data[0][i], data[1][i]) for i in order.split(size) if len(i) == size])
    return out


def watch(
    build: Callable[[], nn.Module],
    *,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    criterion: nn.Module | None = None,
    data: Data | None = None,
    val: Data | None = None,
    size: int = 50,
    epochs: int = 8,
    seed: int = 0,
    step: Callable[[nn.Module, nn.Module, torch.optim.Optimizer, Tensor, Tensor], object] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    every: int = 5,
    **attached: Any,
) -> Run:
    """Train and return what the monitor saw.

    Args:
        build: makes the model, after the seed is set.
        optimizer: makes the optimizer for the model.
        criterion: the loss; cross-entropy unless given.
        data: training inputs and targets; the digits unless given.
        val: validation data, evaluated in eval mode after each epoch and logged; the digits' unless data is given.
        size: batch size.
        epochs: passes over the data.
        seed: of torch, for the weights and the order.
        step: one training step, in place of the ordinary one: ``step(model, criterion, optimizer, x, y)``.
        scheduler: makes a scheduler that is stepped after each epoch.
        every: steps between records.
        attached: more arguments of `fitdoctor.attach`.
    """
    torch.manual_seed(seed)
    if data is None:
        data, val = digits() if val is None else (digits()[0], val)
    model = build()
    loss = criterion or nn.CrossEntropyLoss()
    opt = optimizer(model)
    plan = scheduler(opt) if scheduler else None
    if plan is not None:
        attached = {"scheduler": plan, **attached}
    monitor = fitdoctor.attach(
        model, opt, loss, record_every=every, probe_every=4 * every, judge_every=10**9, **attached
    )
    with monitor:
        for epoch in batches(data, size, epochs, seed):
            model.train()
            for x, y in epoch:
                (step or ordinary_step)(model, loss, opt, x, y)
            if plan is not None:
                plan.step()
            if val is not None:
                model.eval()
                with torch.no_grad():
                    out = model(val[0])
                    monitor.log(val_loss=torch.nn.functional.cross_entropy(out, val[1]).item())
                    monitor.log(val_accuracy=(out.argmax(1) == val[1]).float().mean().item())
    return monitor.run


def ordinary_step(
    model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> None:
    """What a loop does with a batch when nothing is wrong."""
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    optimizer.step()
