"""Runs whose learning rate is wrong, and runs that look as if it were."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
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
from recipes.sinks import Events, JsonLines, Printed, WandbOffline


def too_high_noisy(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(1)
    data, model = friedman(n_train=2000), mlp([10, 64, 64, 1])
    optimizer = torch.optim.SGD(model.parameters(), 0.17 * knobs.rate, momentum=0.9)
    names = {"train_loss": "Loss/train", "val_loss": "Loss/val", "lr": "LR"}
    sink = sink_or_nowhere(folder, lambda f: Events(f, **names))
    return Loop(model, data, optimizer, squared_error, sink, times(knobs, 40), every=5, log=("val", "lr")).run()


def too_high_nan(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(2)
    data, model = friedman(), mlp([10, 64, 64, 64, 1])
    optimizer = torch.optim.SGD(model.parameters(), 0.6 * knobs.rate, momentum=0.9)
    sink = sink_or_nowhere(folder, lambda f: JsonLines(f, train_loss="loss"))
    return Loop(
        model, data, optimizer, squared_error, sink, times(knobs, 40), batch=64, every=1, log=("val", "lr", "grad_norm")
    ).run()


def too_low(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(3)
    data, model = digits(), mlp([64, 64, 64, 10])
    optimizer = torch.optim.SGD(model.parameters(), 1e-3 * knobs.rate)
    line = (
        "epoch {step:3d} | train_loss {train_loss:.4f} | train_acc {train_acc:.4f} | "
        "val_loss {val_loss:.4f} | val_acc {val_acc:.4f} | lr {lr:.1e}"
    )
    sink = sink_or_nowhere(folder, lambda f: Printed(f, line, head="training mlp on digits, sgd, batch size 32"))
    log = ("val", "val_acc", "train_acc", "lr")
    return Loop(model, data, optimizer, F.cross_entropy, sink, times(knobs, 60), every=0, log=log, by_epoch=True).run()


def full_batch(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(4)
    data, model = digits(n_train=500), mlp([64, 48, 48, 10], nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), 0.9 * knobs.rate)
    sink = sink_or_nowhere(
        folder, lambda f: JsonLines(f, "step", train_loss="train/loss", val_loss="val/loss", val_acc="val/accuracy")
    )
    return Loop(
        model,
        data,
        optimizer,
        F.cross_entropy,
        sink,
        times(knobs, 300),
        batch=500,
        every=1,
        log=("val", "val_acc", "lr"),
    ).run()


def one_cycle(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(5)
    data, model, epochs = digits(), mlp([64, 96, 96, 96, 10], norm=True), times(knobs, 40)
    peak = 0.5 * knobs.rate
    optimizer = torch.optim.SGD(model.parameters(), peak, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=epochs * 28 + 1)
    config = {"optimizer": "sgd", "lr": 0.5, "batch_size": 32, "epochs": 40, "schedule": "onecycle"}
    names = {"train_loss": "train/loss", "val_loss": "val/loss", "val_acc": "val/accuracy", "lr": "lr"}

    class Renamed(WandbOffline):
        def log(self, step: int, **values: float) -> None:
            super().log(step, **{names.get(k, k): v for k, v in values.items()})

    sink = sink_or_nowhere(folder, lambda f: Renamed(f, "onecycle-bn", config))
    return Loop(
        model,
        data,
        optimizer,
        F.cross_entropy,
        sink,
        epochs,
        every=5,
        log=("val", "val_acc", "lr"),
        scheduler=scheduler,
        scheduler_on="step",
    ).run()


def fine_tuning(folder: Path | None, knobs: Knobs) -> Truth:
    """Pretrain on clean digits without logging, then fine-tune with a small rate on other, noisy ones."""
    torch.manual_seed(6)
    model, data = cnn(), digits(n_train=900)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    x, y = data.train[0][:450], data.train[1][:450]
    for i in range(420):
        index = (torch.arange(i * 32, i * 32 + 32) * 7) % len(x)
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    data = Data(*((_smudged(part[0], seed), part[1]) for seed, part in enumerate((data.train, data.val, data.oracle))))
    data = Data((data.train[0][450:], data.train[1][450:]), data.val, data.oracle)
    optimizer = torch.optim.AdamW(model.parameters(), 8e-4 * knobs.rate)
    epochs = times(knobs, 30)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, epochs)
    sink = sink_or_nowhere(
        folder,
        lambda f: Events(
            f, train_loss="train/loss", val_loss="eval/loss", val_acc="eval/accuracy", lr="train/learning_rate"
        ),
    )
    return Loop(
        model,
        data,
        optimizer,
        F.cross_entropy,
        sink,
        epochs,
        batch=25,
        every=5,
        log=("val", "val_acc", "lr"),
        scheduler=scheduler,
    ).run()


def _smudged(x: torch.Tensor, seed: int) -> torch.Tensor:
    return x + 1.0 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


SAMPLES = (
    Sample(
        name="lr_too_high_noisy",
        format="tensorboard",
        how=("MLP on Friedman's regression, SGD with momentum 0.9 at a constant rate of 0.17"),
        why=(
            "a three to ten times lower rate reaches a clearly lower training loss in the same time; nothing diverges"
        ),
        verdict="sick",
        train=too_high_noisy,
        must_any=(("lr-too-high", "lr-noise-floor"),),
        must_not=("lr-too-low", "undertrained", "overfitting"),
        check="lower rate",
    ),
    Sample(
        name="lr_too_high_nan",
        format="jsonl",
        how="MLP on Friedman's regression, SGD with momentum at 0.6; the loss overflows",
        why="the same run at a lower rate trains well",
        verdict="sick",
        train=too_high_nan,
        must=("nonfinite-loss",),
        must_any=(("lr-too-high", "loss-divergence", "exploding-gradients"),),
        must_not=("overfitting", "lr-too-low"),
        check="lower rate",
    ),
    Sample(
        name="lr_too_low",
        format="text",
        how="MLP on digits, plain SGD at a constant rate of 0.001 for 60 epochs",
        why=("a higher rate gets much further in the same time; the loss is still falling at the end"),
        verdict="sick",
        train=too_low,
        must_any=(("lr-too-low", "undertrained"),),
        must_not=("lr-too-high", "overfitting", "no-learning"),
        check="higher rate",
    ),
    Sample(
        name="full_batch_edge_of_stability",
        format="jsonl",
        how="tanh MLP on digits, full-batch gradient descent at a large rate",
        why=("the loss goes up and down over single steps at the edge of stability, while it keeps falling over many"),
        verdict="healthy",
        train=full_batch,
        must_not=("lr-too-high", "loss-spikes", "loss-divergence"),
    ),
    Sample(
        name="onecycle_high_peak",
        format="wandb",
        how="MLP with batch norm on digits, SGD with OneCycleLR up to 0.5",
        why="the loss is noisy around the peak of the rate, and ends as low as with any other peak",
        verdict="healthy",
        train=one_cycle,
        must_not=("lr-too-high", "warmup-too-long", "scheduler-misstepped", "plateau"),
    ),
    Sample(
        name="finetune_small_lr",
        format="tensorboard",
        how=("CNN trained before on clean digits, then fine-tuned on noisy ones with AdamW at 8e-4, decaying linearly"),
        why="starts low and moves little, as fine-tuning does",
        verdict="healthy",
        train=fine_tuning,
        must_not=("lr-too-low", "plateau", "no-learning", "undertrained"),
    ),
)
