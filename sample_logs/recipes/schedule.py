"""Runs whose schedule or restart goes wrong, and runs where it only looks so."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.lightning_runs import LightningRun
from recipes.shared import Data, Knobs, Loop, Sample, Truth, cnn, digits, mlp, sink_or_nowhere, times
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
    model, epochs = cnn(), times(knobs, 48)
    optimizer = torch.optim.SGD(model.parameters(), 0.1 * knobs.rate, momentum=0.9)
    t_max = epochs if knobs.fixed else round(epochs / 1.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, t_max)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))
    log = ("val", "val_acc", "lr")
    data = digits(noise=0.2)
    return Loop(model, data, optimizer, F.cross_entropy, sink, epochs, log=log, scheduler=scheduler).run()


def warm_restarts(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(33)
    model, epochs = cnn(dropout=0.1), times(knobs, 45)
    optimizer = torch.optim.SGD(model.parameters(), 0.03 * knobs.rate, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, epochs // 3)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))
    log = ("val", "val_acc", "lr")
    return Loop(model, digits(), optimizer, F.cross_entropy, sink, epochs, log=log, scheduler=scheduler).run()


def resumed(folder: Path | None, knobs: Knobs, *, lose: bool = False) -> Truth:
    """Stop after 60 % of the run and go on from a checkpoint, with or without optimizer and schedule."""
    torch.manual_seed(34 + lose)
    model, epochs = cnn(), times(knobs, 40)
    optimizer = torch.optim.Adam(model.parameters(), 8e-3 * knobs.rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    sink = sink_or_nowhere(folder, lambda f: Events(f, **NAMES))
    data = digits(noise=0.1) if lose else digits()
    loop = Loop(
        model, data, optimizer, F.cross_entropy, sink, epochs, log=("val", "val_acc", "lr"), scheduler=scheduler
    )

    def restart(step: int) -> None:
        if step != int(0.6 * epochs) * 28:
            return
        sink.restart()
        if lose and not knobs.fixed:
            loop.optimizer = torch.optim.Adam(model.parameters(), 8e-3 * knobs.rate)
            loop.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(loop.optimizer, epochs)

    loop.before_step = restart
    return loop.run()


def lost_state(folder: Path | None, knobs: Knobs) -> Truth:
    return resumed(folder, knobs, lose=True)


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


# --- a transformer that adds two-digit numbers, without warm-up -----------------------------------

SYMBOLS = "0123456789+= "


def sums() -> Data:
    """Strings such as ``37+85=122``; the target of every position is the next character."""
    g = torch.Generator().manual_seed(0)
    pairs = torch.randperm(10_000, generator=g)[:6000]
    texts = [f"{p // 100:02d}+{p % 100:02d}={p // 100 + p % 100:<3d}" for p in pairs.tolist()]
    codes = torch.tensor([[SYMBOLS.index(c) for c in text] for text in texts])
    parts = [(c[:, :-1], c[:, 1:]) for c in (codes[:3000], codes[3000:3500], codes[3500:])]
    return Data(*parts)


class Decoder(nn.Module):
    """A post-norm causal transformer; logits come as (batch, classes, position)."""

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(len(SYMBOLS), width), nn.Parameter(torch.randn(8, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, len(SYMBOLS))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.place
        for layer in self.layers:
            h = layer(h, src_mask=self.mask, is_causal=True)
        return self.head(h).transpose(1, 2)


def no_warmup(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(37)
    model, epochs = Decoder(), times(knobs, 16)
    total = epochs * 46
    optimizer = torch.optim.Adam(model.parameters(), 2e-3 * knobs.rate)
    ramp = 0.2 * total if knobs.fixed else 0

    def share(step: int) -> float:
        return (step + 1) / ramp if step < ramp else max(0.0, (total - step) / (total - ramp))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    sink = sink_or_nowhere(folder, lambda f: JsonLines(f, "step", train_loss="loss", val_loss="val_loss"))
    log = ("val", "val_acc", "lr", "grad_norm")
    return Loop(
        model,
        sums(),
        optimizer,
        F.cross_entropy,
        sink,
        epochs,
        batch=64,
        every=2,
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
        how=("CNN on digits with 20 % random labels, CosineAnnealingLR with T_max of two thirds of the run"),
        why="the rate climbs again at the end",
        verdict="sick",
        train=wrong_t_max,
        must_any=(("scheduler-misstepped",),),
        must_not=("lr-too-low",),
        check="none",
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
        how=("post-norm transformer of 4 layers on two-digit sums, Adam at 0.002 from the first step on"),
        why="with a linear warm-up over a fifth of the run the same rate learns much better",
        verdict="sick",
        train=no_warmup,
        must_any=(("warmup-missing-or-short", "lr-too-high", "plateau", "underfitting", "no-learning"),),
        must_not=("overfitting", "lr-too-low"),
        check="fixed",
    ),
    Sample(
        name="restart_lost_state",
        format="tensorboard",
        how="CNN on digits, Adam with cosine decay; restarted after 60 % from the weights alone",
        why=("optimizer and schedule begin anew: the rate jumps back to its peak and the loss with it"),
        verdict="sick",
        train=lost_state,
        must_any=(("restart-discontinuity", "scheduler-misstepped"),),
        must_not=("lr-too-low",),
        check="fixed",
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
