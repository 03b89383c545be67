"""Small real trainings with gradient norms: a plain network on scikit-learn's digits, a second or two each.

A recipe is a hashable value, so that a training is shared by all tests of a session.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from fitdoctor.run import Fact, Run, Series
from fitdoctor.signals import ACCURACY, EPOCH, GRAD_NORM, LOSS, LR, Quantity, Signal


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training.

    Attributes:
        depth: hidden layers.
        activation: "relu", "tanh" or "sigmoid".
        gain: factor on the initial weights.
        optimizer: "sgd" or "adam".
        lr: learning rate.
        schedule: "constant", "cosine", "step", "linear", "warmup", "one-cycle", "restarts", or "hot-start"
            (40 times the rate for 25 steps).
        schedule_steps: length given to the scheduler; the run's own where 0.
        epochs, batch: length of the run and of a batch.
        clip: clipping threshold, 0 for none.
        shuffle: new order in every epoch.
        double_softmax: softmax before the cross-entropy.
        smoothing: label smoothing.
        poison_at: step whose batch holds a nan, -1 for none.
        blow_up_at: step from which the learning rate is 1000 times too high, -1 for none.
        layers: log the gradient norm of each layer.
        n_train: training examples used.
        seed: of weights and order.
    """

    depth: int = 2
    activation: str = "relu"
    gain: float = 1.0
    optimizer: str = "sgd"
    lr: float = 0.1
    schedule: str = "constant"
    schedule_steps: int = 0
    epochs: int = 20
    batch: int = 32
    clip: float = 0.0
    shuffle: bool = True
    double_softmax: bool = False
    smoothing: float = 0.0
    poison_at: int = -1
    blow_up_at: int = -1
    layers: bool = False
    n_train: int = 1000
    seed: int = 0


@cache
def train(recipe: Recipe) -> Run:
    """Train once, and return what a careful loop would have logged."""
    torch = pytest.importorskip("torch")
    x, y, x_val, y_val = _digits(recipe.n_train)
    torch.manual_seed(recipe.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(recipe, torch, x, y, x_val, y_val)
    finally:
        torch.set_num_threads(threads)


@cache
def _digits(n_train: int) -> tuple[Any, Any, Any, Any]:
    torch = pytest.importorskip("torch")
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x = torch.tensor((x[order] - x.mean()) / x.std(), dtype=torch.float32)
    y = torch.tensor(y[order])
    return x[:n_train], y[:n_train], x[1300:], y[1300:]


def _model(recipe: Recipe, torch: Any) -> Any:
    nn = torch.nn
    make = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[recipe.activation]
    parts = []
    for _ in range(recipe.depth):
        parts += [nn.Linear(64, 64), make()]
    parts.append(nn.Linear(64, 10))
    if recipe.double_softmax:
        parts.append(nn.Softmax(dim=-1))
    model = nn.Sequential(*parts)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(recipe.gain)
    return model


def _scheduler(recipe: Recipe, torch: Any, optimizer: Any, total: int) -> Any:
    kinds = torch.optim.lr_scheduler
    length = recipe.schedule_steps or total
    return {
        "constant": lambda: kinds.LambdaLR(optimizer, lambda _: 1.0),
        "cosine": lambda: kinds.CosineAnnealingLR(optimizer, length),
        "step": lambda: kinds.StepLR(optimizer, length, 0.1),
        "warmup": lambda: kinds.LinearLR(optimizer, 1e-3, 1.0, length),
        "linear": lambda: kinds.LinearLR(optimizer, 1.0, 0.0, length),
        "one-cycle": lambda: kinds.OneCycleLR(optimizer, recipe.lr, total_steps=length + 1),
        "restarts": lambda: kinds.CosineAnnealingWarmRestarts(optimizer, max(1, length // 4)),
        "hot-start": lambda: kinds.LambdaLR(optimizer, lambda s: 40.0 if s < 25 else 1.0),
    }[recipe.schedule]()


def _train(recipe: Recipe, torch: Any, x: Any, y: Any, x_val: Any, y_val: Any) -> Run:
    model = _model(recipe, torch)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=recipe.lr)
    per_epoch = math.ceil(len(x) / recipe.batch)
    scheduler = _scheduler(recipe, torch, optimizer, recipe.epochs * per_epoch)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    weights = [(n, p) for n, p in model.named_parameters() if n.endswith("weight")]
    rows: dict[Signal, list[tuple[int, float]]] = {}

    def log(quantity: Quantity, step: int, value: float, split: str = "train", layer: str = "") -> None:
        rows.setdefault(Signal(quantity, split, layer), []).append((step, value))

    generator = torch.Generator().manual_seed(recipe.seed)
    fixed = torch.randperm(len(x), generator=generator)
    step = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(x), generator=generator) if recipe.shuffle else fixed
        for batch in order.split(recipe.batch):
            if step == recipe.blow_up_at:
                scheduler.base_lrs = [1000 * recipe.lr]
                for group in optimizer.param_groups:
                    group["lr"] *= 1000
            inputs = x[batch] * math.nan if step == recipe.poison_at else x[batch]
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, y[batch])
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf)
            log(LOSS, step, loss.item())
            log(GRAD_NORM, step, float(norm))
            log(LR, step, optimizer.param_groups[0]["lr"])
            log(ACCURACY, step, float((outputs.argmax(-1) == y[batch]).float().mean()))
            if recipe.layers:
                for name, p in weights:
                    log(GRAD_NORM, step, float(p.grad.norm()), layer=name)
            optimizer.step()
            scheduler.step()
            step += 1
        log(EPOCH, step - 1, epoch + 1)
        with torch.no_grad():
            outputs = model(x_val)
            log(LOSS, step - 1, float(criterion(outputs, y_val)), "val")
            log(ACCURACY, step - 1, float((outputs.argmax(-1) == y_val).float().mean()), "val")
    facts: dict[str, Fact] = {
        "optimizer": recipe.optimizer,
        "steps_per_epoch": per_epoch,
        "planned_epochs": recipe.epochs,
    }
    if recipe.clip:
        facts["clip_norm"] = recipe.clip
    if recipe.smoothing:
        facts["label_smoothing"] = recipe.smoothing
    found = []
    for signal, points in rows.items():
        steps, values = (np.array(column) for column in zip(*points, strict=True))
        found.append(Series(signal, steps, values, per="step" if signal.split == "train" else "epoch"))
    return Run("digits", tuple(found), facts, finished=True)


HEALTHY = (
    Recipe(),
    Recipe(optimizer="adam", lr=1e-3, schedule="cosine"),
    Recipe(schedule="one-cycle", lr=0.05),
    Recipe(schedule="restarts", lr=0.2),
    Recipe(schedule="linear", optimizer="adam", lr=3e-3, clip=5.0),
    Recipe(activation="tanh", depth=3, lr=0.2, layers=True, smoothing=0.1),
    Recipe(batch=1000, lr=0.5, epochs=200),
    Recipe(batch=8, lr=0.02, schedule="cosine", epochs=10),
)
"""Runs that learn, odd ones among them: warm restarts, one cycle, full batch, tiny batch, label smoothing."""
