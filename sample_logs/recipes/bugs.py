"""Runs with a bug in the code around the model."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn import datasets
from torch import Tensor
from torch.nn import functional as F

from recipes.shared import Knobs, Loop, Sample, Truth, cnn, digits, mlp, sink_or_nowhere, split, times
from recipes.sinks import JsonLines, Printed


def double_softmax(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(41)
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3 * knobs.rate)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output if knobs.fixed else output.softmax(-1), y)

    line = (
        "Epoch [{step}/50]  loss: {train_loss:.4f}  acc: {train_acc:.4f}"
        "  val_loss: {val_loss:.4f}  val_acc: {val_acc:.4f}"
    )
    sink = sink_or_nowhere(folder, lambda f: Printed(f, line))
    log = ("val", "val_acc", "train_acc")
    return Loop(model, digits(), optimizer, loss, sink, times(knobs, 50), every=0, log=log, by_epoch=True).run()


def same_order(folder: Path | None, knobs: Knobs) -> Truth:
    torch.manual_seed(42)
    x, y = datasets.make_classification(4000, 20, n_informative=6, n_classes=3, flip_y=0.1, random_state=1)
    model = mlp([20, 32, 3])
    optimizer = torch.optim.SGD(model.parameters(), 0.02 * knobs.rate, momentum=0.5)
    sink = sink_or_nowhere(folder, lambda f: JsonLines(f, "step", train_loss="loss"))
    return Loop(
        model,
        split(x, y, 1000, 300),
        optimizer,
        F.cross_entropy,
        sink,
        times(knobs, 30),
        batch=20,
        every=1,
        log=("val", "val_acc"),
        shuffle=knobs.fixed,
    ).run()


SAMPLES = (
    Sample(
        name="double_softmax",
        format="text",
        how="CNN on digits; softmax outputs are fed to cross_entropy, which applies softmax again",
        why="the loss cannot fall below 1.461 although the accuracy is high",
        verdict="sick",
        train=double_softmax,
        must=("double-softmax",),
        root=("double-softmax",),
        must_not=("overfitting", "no-learning"),
        check="none",
    ),
    Sample(
        name="no_shuffling",
        format="jsonl",
        how=("MLP on made classes, batches drawn in the same order every epoch; the loss of every batch is logged"),
        why="the pattern of the batch losses repeats each epoch",
        verdict="sick",
        train=same_order,
        must=("repeated-batch-order",),
        must_not=("lr-too-high", "lr-too-low"),
        check="exact",
    ),
)
