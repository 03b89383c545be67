"""Write what a run logged in one of the shapes that people's logs have."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from devset_training import Outcome


@dataclass(frozen=True)
class Habit:
    """What somebody logs.

    Attributes:
        shape: "epochs" (dense table per epoch), "sparse" (step and epoch rows mixed, as Lightning's
            CSVLogger), or "tfevents".
        every: log every this many steps, in the shapes that log steps.
        lr, grad_norm, val_acc, train_acc, val: whether these are logged.
        val_on_epochs: in event files, whether epoch values carry the epoch as their step.
    """

    shape: str
    every: int
    lr: bool
    grad_norm: bool
    val_acc: bool
    train_acc: bool
    val: bool
    val_on_epochs: bool

    @classmethod
    def draw(cls, name: str, *, per_step: bool = False, full: bool = False) -> Habit:
        """A habit drawn from the name of the run; `full` logs everything, `per_step` every step."""
        rng = np.random.default_rng(list(name.encode()))
        shape = str(rng.choice(["epochs", "sparse", "tfevents"], p=[0.4, 0.35, 0.25]))
        if per_step or (full and shape == "epochs"):
            shape = "sparse"
        return cls(
            shape=shape,
            every=1 if per_step else int(rng.choice([1, 5, 10])),
            lr=full or bool(rng.random() < 0.7),
            grad_norm=full or bool(rng.random() < 0.4),
            val_acc=bool(rng.random() < 0.85),
            train_acc=bool(rng.random() < 0.4),
            val=bool(rng.random() < 0.95),
            val_on_epochs=bool(rng.random() < 0.2),
        )


def write(outcome: Outcome, folder: Path, habit: Habit) -> None:
    """Write the log of a run into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(outcome, habit))
    if habit.shape == "tfevents":
        _write_events(rows, folder, habit)
        return
    if habit.shape == "epochs":
        rows = _per_epoch(outcome, habit)
    names = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def _rows(outcome: Outcome, habit: Habit) -> Iterable[dict[str, float]]:
    for row in outcome.rows:
        if "lr" in row and row["step"] % habit.every:
            continue
        kept = {k: v for k, v in row.items() if _wanted(k, habit) and not (k == "train_acc" and math.isnan(v))}
        if len(kept) > 2:
            yield kept


def _wanted(key: str, habit: Habit) -> bool:
    switches = {
        "lr": habit.lr,
        "grad_norm": habit.grad_norm,
        "val_loss": habit.val,
        "val_acc": habit.val and habit.val_acc,
        "train_acc": habit.train_acc,
        "train_loss_epoch": habit.shape != "tfevents" or habit.val_on_epochs,
    }
    return switches.get(key, True)


def _per_epoch(outcome: Outcome, habit: Habit) -> list[dict[str, float]]:
    rows, lr, norms = [], 0.0, []
    for row in outcome.rows:
        if "lr" in row:
            lr, norms = row["lr"], [*norms, row["grad_norm"]]
            continue
        line = {
            "epoch": row["epoch"],
            "train_loss": row["train_loss_epoch"],
            **{k: row[k] for k in row if "acc" in k or k == "val_loss"},
        }
        line |= {"lr": lr, "grad_norm": float(np.mean(norms))}
        rows.append({k: v for k, v in line.items() if _wanted(k, habit)})
        norms = []
    return rows


def _write_events(rows: list[dict[str, float]], folder: Path, habit: Habit) -> None:
    from torch.utils.tensorboard import SummaryWriter

    names = {
        "train_loss": "Loss/train",
        "val_loss": "Loss/val",
        "val_acc": "Accuracy/val",
        "train_acc": "Accuracy/train",
        "train_loss_epoch": "Loss/train_epoch",
    }
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            of_epoch = "lr" not in row and "train_loss" not in row
            clock = row["epoch"] if of_epoch and habit.val_on_epochs else row["step"]
            for key, value in row.items():
                if key not in ("step", "epoch"):
                    writer.add_scalar(names.get(key, key), value, int(clock))
