"""Runs whose schedule or restart goes wrong, and runs where it only looks so."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.lightning_runs import LightningRun
from recipes.shared import (
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
from recipes.sinks import Events, JsonLines, Printed

NAMES = {"train_loss": "Loss/train", "val_loss": "Loss/val", "val_acc": "Accuracy/val", "lr": "Learning rate"}


def stepped_per_batch(folder: Path | None, knobs: Knobs) -> Truth:
    """StepLR(step_size=15 epochs) with Lightning's interval set to "step"."""
    torch.manual_seed(31)
    interval = "epoch" if knobs.fixed else "step"
    return LightningRun(
        mlp([64, 64, 64, 10]),
        digits(),
        lambda p: torch.optim.SGD(p, 0.05 * knobs.rate, momentum=0.9),
        epochs=times(knobs, 40),
        batch=32,
        folder=folder,
        interval=interval,
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 15),
    ).run()


def wrong_t_max(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(32)
    model, epochs = cnn(dropout=0.3), times(knobs, 48)
    optimizer = torch.optim.SGD(model.parameters(), 0.05 * knobs.rate, momentum=0.9)
    t_max = epochs if knobs.fixed else round(epochs / 1.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, t_max)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))
    log = ("val", "val_acc", "lr")
    return Loop(model, digits(), optimizer, F.cross_entropy, sink, epochs, log=log, scheduler=scheduler).run()


def warm_restarts(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(33)
    model, epochs = cnn(dropout=0.1), times(knobs, 45)
    optimizer = torch.optim.SGD(model.parameters(), 0.03 * knobs.rate, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, epochs // 3)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))
    log = ("val", "val_acc", "lr")
    return Loop(model, digits(), optimizer, F.cross_entropy, sink, epochs, log=log, scheduler=scheduler).run()


def resumed(folder: Path | None, knobs: Knobs) -> Truth:
    """Stop after 60 % of the run and go on from a checkpoint that holds everything."""
    torch.manual_seed(34)
    model, epochs = cnn(), times(knobs, 40)
    optimizer = torch.optim.Adam(model.parameters(), 8e-3 * knobs.rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))

    def restart(step: int) -> None:
        if step == int(0.6 * epochs) * 28:
            sink.restart()

    log = ("val", "val_acc", "lr")
    return Loop(
        model, digits(), optimizer, F.cross_entropy, sink, epochs, log=log, scheduler=scheduler, before_step=restart
    ).run()


def lost_state(folder: Path | None, knobs: Knobs) -> Truth:
    """Stop after 60 % of the run and go on from the weights alone: optimizer and schedule begin anew."""
    torch.manual_seed(35)
    model, epochs, data = mlp([10, 64, 64, 1]), times(knobs, 40), friedman(n_train=1500)
    optimizer = torch.optim.Adam(model.parameters(), 3e-2 * knobs.rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))
    loop = Loop(model, data, optimizer, squared_error, sink, epochs, log=("val", "lr"), scheduler=scheduler)

    def restart(step: int) -> None:
        if step != int(0.6 * epochs) * 46:
            return
        sink.restart()
        if not knobs.fixed:
            loop.optimizer = torch.optim.Adam(model.parameters(), 3e-2 * knobs.rate)
            loop.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(loop.optimizer, epochs)

    loop.before_step = restart
    return loop.run()


def decayed_early(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(36)
    model, epochs = mlp([64, 96, 96, 10]), times(knobs, 50)
    optimizer = torch.optim.SGD(model.parameters(), 0.02 * knobs.rate)
    milestones = [epochs // 2, epochs * 3 // 4] if knobs.fixed else [epochs // 10, epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    line = "epoch={step} lr={lr:.6f} train_loss={train_loss:.5f} val_loss={val_loss:.5f} val_acc={val_acc:.4f}"
    sink = sink_or_nowhere(folder, lambda f: Printed(f, line))
    log = ("val", "val_acc", "lr")
    return Loop(
        model, digits(), optimizer, F.cross_entropy, sink, epochs, every=0, log=log, scheduler=scheduler, by_epoch=True
    ).run()


class Block(nn.Module):
    """A residual block with the norm after the sum, as in the first transformers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, width), nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(F.relu(self.up(x))))


def no_warmup(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(37)
    model, epochs = (
        nn.Sequential(nn.Linear(64, 64), *(Block(64) for _ in range(8)), nn.Linear(64, 10)),
        times(knobs, 20),
    )
    total = epochs * 28
    optimizer = torch.optim.Adam(model.parameters(), 3e-2 * knobs.rate)
    ramp = 0.2 * total if knobs.fixed else 0

    def share(step: int) -> float:
        return (step + 1) / ramp if step < ramp else max(0.0, (total - step) / (total - ramp))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    sink = sink_or_nowhere(folder, lambda f: JsonLines(f, "step", train_loss="loss"))
    log = ("val", "val_acc", "lr", "grad_norm")
    return Loop(
        model,
        digits(),
        optimizer,
        F.cross_entropy,
        sink,
        epochs,
        every=1,
        log=log,
        scheduler=scheduler,
        scheduler_on="step",
    ).run()


SAMPLES = (
    Sample(
        name="scheduler_per_batch",
        format="lightning-csv",
        how=("MLP on digits with Lightning, StepLR(15) meant per epoch but stepped after every batch"),
        why=("the rate has fallen to nothing after two of 40 epochs; stepped per epoch, the run learns"),
        verdict="sick",
        train=stepped_per_batch,
        must_any=(("scheduler-misstepped", "lr-decay-too-early"),),
        root=("scheduler-misstepped", "lr-decay-too-early"),
        must_not=("overfitting", "lr-too-high"),
        check="fixed",
    ),
    Sample(
        name="cosine_wrong_tmax",
        format="tensorboard",
        how=("CNN with dropout on digits, SGD, CosineAnnealingLR with T_max of two thirds of the run"),
        why="the rate climbs again at the end",
        verdict="sick",
        train=wrong_t_max,
        must_any=(("scheduler-misstepped",),),
        must_not=("lr-too-low",),
        check="exact",
    ),
    Sample(
        name="lr_decay_too_early",
        format="text",
        how="MLP on digits, SGD, rate cut tenfold after 5 and again after 8 of 50 epochs",
        why="the loss freezes high at the cuts; with the cuts in the second half it gets far lower",
        verdict="sick",
        train=decayed_early,
        must_any=(("lr-decay-too-early", "undertrained", "lr-too-low"),),
        must_not=("overfitting", "lr-too-high"),
        check="fixed",
    ),
    Sample(
        name="warmup_missing",
        format="jsonl",
        how="8 residual blocks with the norm after the sum on digits, Adam at 0.03 from the first step, linear decay",
        why="with a linear warm-up over a fifth of the run, the same rate learns everything",
        verdict="sick",
        train=no_warmup,
        must_any=(("warmup-missing-or-short", "lr-too-high", "plateau", "underfitting", "no-learning"),),
        must_not=("overfitting", "lr-too-low"),
        check="fixed",
    ),
    Sample(
        name="restart_lost_state",
        format="tensorboard",
        how="MLP on Friedman's regression, Adam with cosine decay; restarted after 60 % from the weights alone",
        why=("optimizer and schedule begin anew: the rate jumps back to its peak and the loss with it"),
        verdict="sick",
        train=lost_state,
        must_any=(("restart-discontinuity", "scheduler-misstepped"),),
        must_not=("lr-too-low",),
        check="exact",
    ),
    Sample(
        name="resumed_correctly",
        format="tensorboard",
        how=("CNN on digits, Adam with cosine decay; stopped after 60 % and resumed with all of its state"),
        why="two event files, one smooth run",
        verdict="healthy",
        train=resumed,
        must_not=("restart-discontinuity", "loss-spikes"),
    ),
    Sample(
        name="warm_restarts",
        format="tensorboard",
        how="CNN on digits, SGD with CosineAnnealingWarmRestarts, three cycles",
        why="the loss jumps at each restart of the schedule and ends lower each time",
        verdict="healthy",
        train=warm_restarts,
        must_not=("scheduler-misstepped", "loss-spikes", "loss-divergence"),
    ),
)
