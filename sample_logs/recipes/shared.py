"""What the recipes share: data with an oracle set, one plain PyTorch loop, and the truth about a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.sinks import Nowhere, Sink

Pair = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """Train and val are what the training sees; the oracle set only serves to check the label."""

    train: Pair
    val: Pair
    oracle: Pair


@dataclass(frozen=True)
class Knobs:
    """What may be changed about a recipe to check its label.

    Attributes:
        rate: factor on the learning rate.
        length: factor on the number of epochs or steps.
        fixed: leave out what makes the run sick.
    """

    rate: float = 1.0
    length: float = 1.0
    fixed: bool = False


@dataclass
class Truth:
    """What is true about a run whatever its log says.

    Attributes:
        start: training loss before the first step (evaluation mode, whole training set).
        train: the same at the end.
        oracle: loss on the oracle set at each evaluation.
        score: accuracy on the oracle set at each evaluation (minus the loss for regression).
        val: val loss at each evaluation.
    """

    start: float
    train: float = math.nan
    oracle: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)


Check = Literal["lower rate", "higher rate", "fixed", "exact", "overfit", "healthy", "none"]
"""Which intervention has to bear a label out. "exact": the fault is a fact of the code, its harm is only recorded."""


@dataclass(frozen=True)
class Sample:
    """A sample log and what is expected of a diagnosis.

    Attributes:
        name: folder of the sample.
        format: format of the log.
        how: how the run was made.
        why: what makes it sick, or why it is healthy though odd.
        verdict: "sick", "healthy" or "cannot judge".
        train: the training; takes a folder (None to log nothing) and knobs.
        must: rules that have to be found.
        must_any: of each list, at least one rule has to be found.
        must_not: rules that must not be found with a warning or an error.
        root: rules of which one has to be the root of the first diagnosis; empty for any.
        check: which intervention has to confirm the label.
    """

    name: str
    format: str
    how: str
    why: str
    verdict: str
    train: Callable[[Path | None, Knobs], Truth]
    must: tuple[str, ...] = ()
    must_any: tuple[tuple[str, ...], ...] = ()
    must_not: tuple[str, ...] = ()
    root: tuple[str, ...] = ()
    check: Check = "healthy"


# --- data -----------------------------------------------------------------------------------------


def split(x: np.ndarray, y: np.ndarray, n_train: int, n_val: int, *, seed: int = 0) -> Data:
    """Shuffle, standardise by the training part, cut in three. Integer targets become class indices."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order]
    mean, std = x[:n_train].mean(0), x[:n_train].std(0)
    inputs = torch.tensor(((x - mean) / np.where(std > 1e-6, std, 1)).clip(-5, 5), dtype=torch.float32)
    whole = np.issubdtype(y.dtype, np.integer)
    targets = torch.tensor(y if whole else (y - y[:n_train].mean()) / y[:n_train].std())
    targets = targets.long() if whole else targets.float()
    a, b = n_train, n_train + n_val
    return Data((inputs[:a], targets[:a]), (inputs[a:b], targets[a:b]), (inputs[b:], targets[b:]))


def digits(n_train: int = 900, n_val: int = 300, *, noise: float = 0.0) -> Data:
    """Handwritten 8×8 digits; `noise` is the share of training and val labels drawn at random."""
    data = split(*datasets.load_digits(return_X_y=True), n_train, n_val)
    if not noise:
        return data
    g = torch.Generator().manual_seed(7)

    def spoilt(pair: Pair) -> Pair:
        drawn = torch.randint(0, 10, pair[1].shape, generator=g)
        return pair[0], torch.where(torch.rand(len(drawn), generator=g) < noise, drawn, pair[1])

    return Data(spoilt(data.train), spoilt(data.val), data.oracle)


def friedman(n_train: int = 800, n_val: int = 250) -> Data:
    """The Friedman regression problem."""
    x, y = datasets.make_friedman1(n_samples=4000, noise=1.0, random_state=0)
    return split(x, y, n_train, n_val)


# --- models ---------------------------------------------------------------------------------------


def mlp(sizes: Iterable[int], act: type[nn.Module] = nn.ReLU, *, dropout: float = 0.0, norm: bool = False) -> nn.Module:
    """A multilayer perceptron."""
    sizes = list(sizes)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            layers += [nn.BatchNorm1d(b)] if norm else []
            layers.append(act())
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def cnn(dropout: float = 0.0) -> nn.Module:
    """A small convolutional net for the digits."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )


# --- the loop -------------------------------------------------------------------------------------


def squared_error(output: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of a single output."""
    return F.mse_loss(output.squeeze(-1), y)


@torch.no_grad()
def measure(model: nn.Module, pair: Pair, loss: Loss) -> tuple[float, float]:
    """Loss and accuracy in evaluation mode; for regression, the accuracy is minus the loss."""
    model.eval()
    output = model(pair[0])
    value = float(loss(output, pair[1]))
    model.train()
    if pair[1].is_floating_point():
        return value, -value
    return value, float((output.argmax(1) == pair[1]).float().mean())


@dataclass
class Loop:
    """A plain training loop with the bookkeeping that people write.

    Attributes:
        model, data, optimizer, loss: what is trained, on what, by what, against what.
        sink: where to log.
        epochs, batch: length of an epoch's pass and of the run.
        every: log the batch loss every so many steps; 0 logs the epoch's mean only.
        log: which of "lr", "grad_norm", "layer_norms", "val", "val_acc", "train_acc" to log.
        scheduler: stepped after each "epoch" or "step", by `scheduler_on`.
        clip: clip the gradient norm; 0 for not.
        shuffle: draw a new order of the training set each epoch.
        by_epoch: log with the epoch as the step.
        eval_loss: loss of evaluations, where it differs (label smoothing).
        before_step: called with the step, before it; may change anything.
    """

    model: nn.Module
    data: Data
    optimizer: torch.optim.Optimizer
    loss: Loss
    sink: Sink
    epochs: int
    batch: int = 32
    every: int = 10
    log: tuple[str, ...] = ("val", "val_acc")
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    scheduler_on: str = "epoch"
    clip: float = 0.0
    shuffle: bool = True
    by_epoch: bool = False
    eval_loss: Loss | None = None
    before_step: Callable[[int], None] = lambda step: None
    seed: int = 0

    def run(self) -> Truth:
        """Train; returns the truth about the run."""
        judge = self.eval_loss or self.loss
        truth = Truth(measure(self.model, self.data.train, judge)[0])
        x, y = self.data.train
        g = torch.Generator().manual_seed(self.seed)
        fixed, per_epoch, step = torch.randperm(len(x), generator=g), len(x) // self.batch, 0
        for epoch in range(self.epochs):
            order = torch.randperm(len(x), generator=g) if self.shuffle else fixed
            sums = torch.zeros(2)
            for i in range(per_epoch):
                index = order[i * self.batch : (i + 1) * self.batch]
                self.before_step(step)
                sums += self._step(step, x[index], y[index])
                step += 1
            self._evaluate(truth, epoch, step, sums / per_epoch, judge)
            if self.scheduler is not None and self.scheduler_on == "epoch":
                self.scheduler.step()
        truth.train = measure(self.model, self.data.train, judge)[0]
        self.sink.close()
        return truth

    def _step(self, step: int, x: Tensor, y: Tensor) -> Tensor:
        output = self.model(x)
        loss = self.loss(output, y)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        row = {"train_loss": loss.item()}
        if "lr" in self.log:
            row["lr"] = self.optimizer.param_groups[0]["lr"]
        if "grad_norm" in self.log:
            row["grad_norm"] = norm.item()
        if "layer_norms" in self.log and step % (5 * self.every or 5) == 0:
            row |= {f"grad_norm/{n}": p.grad.norm().item() for n, p in self.model.named_parameters() if p.ndim > 1}
        self.optimizer.step()
        if self.every and step % self.every == 0:
            self.sink.log(step, **row)
        if self.scheduler is not None and self.scheduler_on == "step":
            self.scheduler.step()
        right = 0.0 if y.is_floating_point() else float((output.argmax(1) == y).float().mean())
        return torch.tensor([loss.item(), right])

    def _evaluate(self, truth: Truth, epoch: int, step: int, means: Tensor, judge: Loss) -> None:
        val_loss, val_acc = measure(self.model, self.data.val, judge)
        oracle_loss, oracle_score = measure(self.model, self.data.oracle, judge)
        truth.val.append(val_loss)
        truth.oracle.append(oracle_loss)
        truth.score.append(oracle_score)
        row = {} if self.every else {"train_loss": float(means[0])}
        if "train_acc" in self.log:
            row["train_acc"] = float(means[1])
        if "val" in self.log:
            row["val_loss"] = val_loss
        if "val_acc" in self.log:
            row["val_acc"] = val_acc
        if "lr" in self.log and not self.every:
            row["lr"] = self.optimizer.param_groups[0]["lr"]
        if row:
            self.sink.log(epoch + 1 if self.by_epoch else step, **row)


def times(knobs: Knobs, epochs: int) -> int:
    """Epochs, with the knob."""
    return max(1, round(epochs * knobs.length))


def sink_or_nowhere(folder: Path | None, make: Callable[[Path], Sink]) -> Sink:
    """The sink in that folder, or one that forgets."""
    return Nowhere() if folder is None else make(folder)
