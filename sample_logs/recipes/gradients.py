"""Runs whose gradients vanish, explode or are clipped away, and one with harmless spikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.shared import (
    Data,
    Knobs,
    Loop,
    Sample,
    Truth,
    cnn,
    digits,
    friedman,
    mlp,
    sink_or_nowhere,
    squared_error,
    times,
)
from recipes.sinks import Events, Table, WandbOffline


class Skip(nn.Module):
    """x + f(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def vanishing(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(21)
    if knobs.fixed:
        model: nn.Module = nn.Sequential(
            nn.Linear(64, 64), *(Skip(64) for _ in range(18)), nn.LayerNorm(64), nn.Linear(64, 10)
        )
    else:
        model = mlp([64] + [64] * 19 + [10], nn.Sigmoid)
    optimizer = torch.optim.SGD(model.parameters(), 0.05 * knobs.rate, momentum=0.9)
    sink = sink_or_nowhere(folder, lambda f: Events(f, train_loss="train/loss", val_loss="val/loss", val_acc="val/acc"))
    log = ("val", "val_acc", "layer_norms", "grad_norm")
    return Loop(model, digits(), optimizer, F.cross_entropy, sink, times(knobs, 40), log=log).run()


def adding_problem() -> Data:
    """Sum of the two marked numbers of a sequence of 20, one marked in each half."""
    rng = np.random.default_rng(0)
    n, length = 3000, 20
    values, marks, rows = rng.uniform(0, 1, (n, length)), np.zeros((n, length)), np.arange(n)
    marks[rows, rng.integers(0, length // 2, n)] = 1
    marks[rows, rng.integers(length // 2, length, n)] = 1
    y = torch.tensor((values * marks).sum(1), dtype=torch.float32)
    x = torch.tensor(np.stack([values, marks], -1), dtype=torch.float32)
    return Data((x[:1000], y[:1000]), (x[1000:1300], y[1000:1300]), (x[1300:], y[1300:]))


class Recurrent(nn.Module):
    """A tanh RNN whose recurrent matrix is 1.3 times an orthogonal one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 32, batch_first=True)
        self.head = nn.Linear(32, 1)
        with torch.no_grad():
            nn.init.orthogonal_(self.rnn.weight_hh_l0, 1.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def exploding(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(22)
    model = Recurrent()
    optimizer = torch.optim.SGD(model.parameters(), 0.07 * knobs.rate, momentum=0.9)
    sink = sink_or_nowhere(folder, lambda f: Events(f, train_loss="loss", val_loss="val_loss"))
    clip = 0.5 if knobs.fixed else 0.0
    log = ("val", "grad_norm", "layer_norms", "lr")
    return Loop(
        model, adding_problem(), optimizer, squared_error, sink, times(knobs, 8), every=1, log=log, clip=clip
    ).run()


def clipped(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(23)
    model = mlp([10, 64, 64, 1])
    optimizer = torch.optim.SGD(model.parameters(), 0.05 * knobs.rate)
    clip = 0.0 if knobs.fixed else 0.02
    config = {"optimizer": "SGD", "learning_rate": 0.05, "batch_size": 32, "max_grad_norm": 0.02, "epochs": 40}
    sink = sink_or_nowhere(folder, lambda f: WandbOffline(f, "friedman-clip", config))
    log = ("val", "grad_norm", "lr")
    return Loop(model, friedman(), optimizer, squared_error, sink, times(knobs, 40), every=5, log=log, clip=clip).run()


def benign_spikes(folder: Path | None, knobs: Knobs) -> Truth:
    """A few batches hold badly scaled examples; clipping keeps the damage small and the run recovers."""
    torch.manual_seed(24)
    model, data = cnn(), digits()
    optimizer = torch.optim.AdamW(model.parameters(), 1.5e-3 * knobs.rate)
    epochs = times(knobs, 40)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    sink = sink_or_nowhere(
        folder,
        lambda f: Events(
            f, train_loss="train_loss", val_loss="val_loss", val_acc="val_accuracy", grad_norm="grad_norm", lr="lr"
        ),
    )
    clean = data.train[0].clone()
    bad = {int(share * epochs * 28) for share in (0.12, 0.31, 0.33, 0.58)}

    def spoil(step: int) -> None:
        data.train[0].copy_(clean)
        if step in bad:
            data.train[0].mul_(12.0)

    log = ("val", "val_acc", "grad_norm", "lr")
    return Loop(
        model,
        data,
        optimizer,
        F.cross_entropy,
        sink,
        epochs,
        every=1,
        log=log,
        clip=1.0,
        scheduler=scheduler,
        before_step=spoil,
    ).run()


def wrong_parameters(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(25)
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters() if knobs.fixed else cnn().parameters(), 1e-3 * knobs.rate)
    if not knobs.fixed:  # zero_grad of the wrong optimizer would let the gradients pile up
        model.register_forward_pre_hook(lambda *_: model.zero_grad())
    sink = sink_or_nowhere(folder, Table)
    log = ("val", "val_acc", "train_acc", "lr")
    return Loop(
        model, digits(), optimizer, F.cross_entropy, sink, times(knobs, 30), every=0, log=log, by_epoch=True
    ).run()


SAMPLES = (
    Sample(
        name="vanishing_gradients",
        format="tensorboard",
        how=("20 layers of 64 sigmoid units on digits, SGD with momentum; gradient norm per weight matrix logged"),
        why=("the first layers get gradients many orders below the last; the same depth with skip connections learns"),
        verdict="sick",
        train=vanishing,
        must_any=(("vanishing-gradients",),),
        root=("vanishing-gradients",),
        must_not=("overfitting", "lr-too-low", "exploding-gradients"),
        check="fixed",
    ),
    Sample(
        name="exploding_gradients",
        format="tensorboard",
        how="tanh RNN on the adding problem, recurrent weights started 1.3 times too large, SGD at 0.07, no clipping",
        why="the gradient norm doubles from step to step until the loss overflows; clipped to 0.5 the run stays finite",
        verdict="sick",
        train=exploding,
        must=("nonfinite-loss",),
        must_any=(("exploding-gradients", "lr-too-high", "loss-divergence"),),
        must_not=("overfitting", "vanishing-gradients", "lr-too-low"),
        check="fixed",
    ),
    Sample(
        name="clipping_saturated",
        format="wandb",
        how=("MLP on Friedman's regression, SGD at 0.05, gradient clipped to 0.02; the norm before clipping is logged"),
        why=("nearly every step is clipped, so training crawls; without clipping it gets much further"),
        verdict="sick",
        train=clipped,
        must_any=(("gradient-clipping-saturated", "undertrained", "lr-too-low"),),
        must_not=("overfitting", "lr-too-high", "exploding-gradients"),
        check="fixed",
    ),
    Sample(
        name="benign_spikes",
        format="tensorboard",
        how="CNN on digits, AdamW with cosine decay and clipping; four batches are scaled by 12",
        why="the loss jumps four times and is back within a few steps",
        verdict="healthy",
        train=benign_spikes,
        must_not=("loss-divergence", "lr-too-high", "exploding-gradients"),
    ),
    Sample(
        name="no_learning_wrong_parameters",
        format="csv",
        how="CNN on digits; the optimizer was given the parameters of another model",
        why="the loss stays at ln 10 for all 30 epochs",
        verdict="sick",
        train=wrong_parameters,
        must=("no-learning",),
        root=("no-learning",),
        must_not=("overfitting", "double-softmax"),
        check="fixed",
    ),
)
