"""Runs that overfit or cannot fit, and runs whose val curve only looks odd."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn import datasets
from torch.nn import functional as F

from recipes.lightning_runs import LightningRun
from recipes.shared import (
    Knobs,
    Loop,
    Sample,
    Truth,
    cnn,
    digits,
    mlp,
    sink_or_nowhere,
    split,
    squared_error,
    times,
)
from recipes.sinks import Events, JsonLines, Printed, Table


def overfitting(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(11)
    data = digits(300, 300, noise=0.3)
    model = mlp([64, 256, 256, 10])
    return LightningRun(
        model, data, lambda p: torch.optim.Adam(p, 1e-3 * knobs.rate), epochs=times(knobs, 60), batch=20, folder=folder
    ).run()


def overconfident(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(12)
    data = split(*datasets.make_moons(4000, noise=0.35, random_state=0), 120, 300)
    model = mlp([2, 128, 128, 128, 2])
    optimizer = torch.optim.Adam(model.parameters(), 2e-3 * knobs.rate)
    sink = sink_or_nowhere(folder, Table)
    log = ("train_acc", "val", "val_acc")
    return Loop(
        model, data, optimizer, F.cross_entropy, sink, times(knobs, 100), batch=20, every=0, log=log, by_epoch=True
    ).run()


def dropout(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(13)
    model = mlp([64, 128, 128, 10], dropout=0.5)
    return LightningRun(
        model,
        digits(),
        lambda p: torch.optim.Adam(p, 1e-3 * knobs.rate),
        epochs=times(knobs, 40),
        batch=32,
        folder=folder,
    ).run()


def tiny_val(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(14)
    data = split(*datasets.load_breast_cancer(return_X_y=True), 300, 24)
    model = mlp([30, 16, 2], dropout=0.2)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3 * knobs.rate)
    line = "Epoch {step}: loss={train_loss:.4f}  val_loss={val_loss:.4f}  val_acc={val_acc:.3f}"
    sink = sink_or_nowhere(folder, lambda f: Printed(f, line))
    return Loop(model, data, optimizer, F.cross_entropy, sink, times(knobs, 25), batch=20, every=0, by_epoch=True).run()


def fast(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(15)
    data = split(*datasets.load_breast_cancer(return_X_y=True), 300, 120)
    model = mlp([30, 2])
    optimizer = torch.optim.Adam(model.parameters(), 2e-2 * knobs.rate, weight_decay=3e-3)
    sink = sink_or_nowhere(folder, lambda f: JsonLines(f, "epoch"))
    return Loop(
        model,
        data,
        optimizer,
        F.cross_entropy,
        sink,
        times(knobs, 30),
        batch=10,
        every=0,
        log=("val", "val_acc", "train_acc"),
        by_epoch=True,
    ).run()


def noisy_regression(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(16)
    data = split(*datasets.load_diabetes(return_X_y=True), 240, 90)
    model = mlp([10, 16, 1], dropout=0.1)
    epochs = times(knobs, 40)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3 * knobs.rate, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    sink = sink_or_nowhere(folder, lambda f: Table(f, "epoch"))
    return Loop(
        model,
        data,
        optimizer,
        squared_error,
        sink,
        epochs,
        batch=16,
        every=0,
        log=("val", "lr"),
        scheduler=scheduler,
        by_epoch=True,
    ).run()


def underfitting(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(17)
    x, y = spiral_points()
    data = split(x, y, 900, 300)
    model = mlp([2, 48, 48, 48, 3]) if knobs.fixed else mlp([2, 3])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2 * knobs.rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, times(knobs, 60))
    sink = sink_or_nowhere(
        folder,
        lambda f: Events(f, train_loss="loss/train", val_loss="loss/val", val_acc="acc/val", train_acc="acc/train"),
    )
    return Loop(
        model,
        data,
        optimizer,
        F.cross_entropy,
        sink,
        times(knobs, 60),
        every=0,
        log=("val", "val_acc", "train_acc", "lr"),
        scheduler=scheduler,
        by_epoch=True,
    ).run()


def spiral_points() -> tuple:
    """Three arms of a spiral."""
    import numpy as np

    rng = np.random.default_rng(0)
    y = np.arange(4000) % 3
    t = rng.uniform(0.1, 1.0, 4000)
    angle = 2.2 * np.pi * t + 2 * np.pi * y / 3 + rng.normal(0, 0.12, 4000)
    return np.c_[t * np.cos(angle), t * np.sin(angle)], y


def label_smoothing(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(18)
    model, epochs = cnn(), times(knobs, 40)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3 * knobs.rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def smoothed(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, y, label_smoothing=0.2)

    line = (
        "[{step:03d}/040] train loss {train_loss:.4f}, train acc {train_acc:.4f}, "
        "val loss {val_loss:.4f}, val acc {val_acc:.4f}"
    )
    sink = sink_or_nowhere(
        folder, lambda f: Printed(f, line, head="label_smoothing=0.2 optimizer=AdamW lr=0.003 cosine")
    )
    return Loop(
        model,
        digits(),
        optimizer,
        smoothed,
        sink,
        epochs,
        every=0,
        log=("val", "val_acc", "train_acc"),
        scheduler=scheduler,
        by_epoch=True,
    ).run()


def stopped(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(19)
    model = cnn(dropout=0.2)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3 * knobs.rate)
    other = {"val_loss": "== epoch end, step {step}: val_loss {val_loss:.4f} val_acc {val_acc:.4f}"}
    sink = sink_or_nowhere(
        folder, lambda f: Printed(f, "step {step} loss {train_loss:.4f} lr {lr:.6f}", other, "planned epochs: 60")
    )
    return Loop(model, digits(), optimizer, F.cross_entropy, sink, times(knobs, 22), log=("val", "val_acc", "lr")).run()


def too_short(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(20)
    model = mlp([64, 64, 10])
    optimizer = torch.optim.SGD(model.parameters(), 0.05 * knobs.rate)
    sink = sink_or_nowhere(folder, Table)
    return Loop(model, digits(), optimizer, F.cross_entropy, sink, times(knobs, 3), every=0, by_epoch=True).run()


SAMPLES = (
    Sample(
        name="overfitting",
        format="lightning-csv",
        how="MLP with 85 000 weights on 300 digits, 30 % of the labels random, Adam, 60 epochs",
        why="on 1 200 held-out examples the checkpoint with the best val loss beats the last one",
        verdict="sick",
        train=overfitting,
        must=("overfitting",),
        must_not=("lr-too-low", "undertrained", "underfitting"),
        check="overfit",
        root=("overfitting",),
    ),
    Sample(
        name="overconfident",
        format="csv",
        how="large MLP on 120 noisy points of two moons for 100 epochs",
        why="the val loss climbs far above its best; held-out accuracy moves little",
        verdict="sick",
        train=overconfident,
        must_any=(("overfitting", "overconfidence-drift"),),
        must_not=("lr-too-low", "undertrained", "underfitting"),
        check="overfit",
    ),
    Sample(
        name="underfitting_linear",
        format="tensorboard",
        how="a linear classifier on three spirals",
        why="a wider net at the same budget solves it, a longer run or another rate does not",
        verdict="sick",
        train=underfitting,
        must_any=(("underfitting", "plateau", "no-learning"),),
        must_not=("overfitting", "lr-too-high", "undertrained"),
        check="fixed",
    ),
    Sample(
        name="dropout_val_better",
        format="lightning-csv",
        how="MLP with dropout 0.5 on digits",
        why="val loss lies below train loss because dropout is off in evaluation",
        verdict="healthy",
        train=dropout,
        must_not=("underfitting", "overfitting"),
    ),
    Sample(
        name="tiny_val_set",
        format="text",
        how="small MLP on breast cancer with 24 val examples",
        why="val accuracy moves in steps of 4 %; nothing is wrong with the training",
        verdict="healthy",
        train=tiny_val,
        must_not=("overfitting", "lr-too-high"),
    ),
    Sample(
        name="fast_convergence",
        format="jsonl",
        how=("logistic regression on breast cancer with Adam at 0.02 and weight decay, nearly done after 2 epochs"),
        why="flat for most of the run because it is done",
        verdict="healthy",
        train=fast,
        must_not=("no-learning", "underfitting", "lr-too-low", "undertrained"),
    ),
    Sample(
        name="noisy_regression",
        format="csv",
        how="small MLP on diabetes, AdamW with cosine decay",
        why="half of the variance is noise: the loss stays high and no model does much better",
        verdict="healthy",
        train=noisy_regression,
        must_not=("no-learning", "overfitting", "underfitting"),
    ),
    Sample(
        name="label_smoothing",
        format="text",
        how="CNN on digits with label smoothing 0.2, train accuracy near 1",
        why="the loss cannot fall below its floor of 0.87 and is far above 0 with accuracy near 1",
        verdict="healthy",
        train=label_smoothing,
        must_not=("double-softmax", "underfitting", "overfitting"),
    ),
    Sample(
        name="stopped_early",
        format="text",
        how="CNN on digits, 60 epochs planned, interrupted by hand after 22",
        why="it had learned what there was to learn",
        verdict="healthy",
        train=stopped,
        must_not=("undertrained", "overfitting"),
    ),
    Sample(
        name="too_short",
        format="csv",
        how="three epochs, no more",
        why="three evaluations show nothing",
        verdict="cannot judge",
        train=too_short,
        check="none",
    ),
)
