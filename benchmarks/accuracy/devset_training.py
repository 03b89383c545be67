"""One training run of the development set: the loop, its deliberate faults, and what it logs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from devset_tasks import TASKS, Pair, Task, make_model
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run. Fields after `seed` are faults and oddities; the defaults are neither."""

    task: str
    arch: str
    opt: str
    lr: float
    schedule: str = "constant"
    epochs: int = 40
    batch: int = 32
    seed: int = 0
    width: int = 48
    weight_decay: float = 0.0
    dropout: float = 0.0
    smoothing: float = 0.0
    gain: float = 1.0
    clip: float = 0.0
    n_train: int = 0
    n_val: int = 0
    label_noise: float = 0.0
    shuffled: bool = True
    double_softmax: bool = False
    wrong_params: bool = False
    keep_grads: bool = False
    scheduler_every: str = "right"
    restart: str = ""
    bad_batch_at: float = 0.0
    stop_at: float = 1.0
    pretrain: int = 0
    schedule_epochs: int = 0


@dataclass
class Outcome:
    """What a run logged (rows of step, epoch and tags) and what only the labels may use.

    `truth` holds per epoch: train (evaluation mode), val and oracle loss and accuracy.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    truth: list[dict[str, float]] = field(default_factory=list)
    steps_per_epoch: int = 0
    initial: float = math.nan
    final: float = math.nan
    oracle_final: float = math.nan
    oracle_hits: Tensor | None = None
    best_hits: Tensor | None = None


@cache
def load(name: str) -> Task:
    return TASKS[name]()


def prepared(recipe: Recipe) -> tuple[Task, Pair, Pair]:
    """The task and its train and val parts as the recipe wants them."""
    task = load(recipe.task)
    x, y = task.train
    if recipe.n_train:
        x, y = x[: recipe.n_train], y[: recipe.n_train]
    if recipe.label_noise:
        g = torch.Generator().manual_seed(99)
        flip = torch.rand(len(y), generator=g) < recipe.label_noise
        y = torch.where(flip, y[torch.randperm(len(y), generator=g)], y)
    vx, vy = task.val
    n_val = recipe.n_val or len(vx)
    return task, (x, y), (vx[:n_val], vy[:n_val])


def loss_module(task: Task, recipe: Recipe) -> nn.Module:
    """The module that a script would call for its loss."""
    return nn.CrossEntropyLoss(label_smoothing=recipe.smoothing) if task.classes else nn.MSELoss()


def loss_arguments(task: Task, output: Tensor, y: Tensor, recipe: Recipe) -> Pair:
    """What the recipe (mis)takes for the input and target of its loss."""
    if not task.classes:
        return output.squeeze(-1), y
    if recipe.double_softmax:
        output = output.softmax(-1)
    return output.flatten(0, -2), y.flatten()


def criterion(task: Task, output: Tensor, y: Tensor, recipe: Recipe, *, training: bool) -> Tensor:
    """The loss as the recipe (mis)computes it."""
    given, wanted = loss_arguments(task, output, y, recipe)
    if not task.classes:
        return F.mse_loss(given, wanted)
    return F.cross_entropy(given, wanted, label_smoothing=recipe.smoothing if training else 0.0)


Watch = Callable[..., AbstractContextManager[Any]]
"""Called with model, optimizer, loss module, task and recipe; gives a monitor, or None."""


def unwatched(*parts: object) -> AbstractContextManager[Any]:
    """No monitor."""
    return nullcontext()


def factor(schedule: str, done: float, epoch: int, epochs: int) -> float:
    """Learning rate as a share of its peak, `done` being the share of the run that is over."""
    match schedule:
        case "step":
            return 0.1 ** ((epoch >= epochs // 2) + (epoch >= epochs * 3 // 4))
        case "exponential":
            return 0.02 ** (epoch / epochs)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        case "linear":
            return max(1 - done, 0.0)
        case "warmup-cosine":
            return done / 0.08 if done < 0.08 else 0.5 * (1 + math.cos(math.pi * min((done - 0.08) / 0.92, 1)))
        case "warmup":
            return min(done / 0.08, 1.0)
        case "onecycle":
            if done < 0.3:
                return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done / 0.3))
            return 1e-4 + 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))
        case "restarts":
            return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * ((4 * done) % 1.0)))
        case "tmax-short":  # CosineAnnealingLR(T_max=epochs // 3) rises again
            return 0.5 * (1 + math.cos(math.pi * epoch / max(epochs // 3, 1)))
        case "early":  # decayed to almost nothing at an eighth of the run
            return 1.0 if done < 0.125 else 0.003
        case _:
            return 1.0


def make_optimizer(recipe: Recipe, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer by its short name."""
    lr, wd = recipe.lr, recipe.weight_decay
    match recipe.opt:
        case "sgd":
            return torch.optim.SGD(params, lr, weight_decay=wd, foreach=True)
        case "momentum":
            return torch.optim.SGD(params, lr, momentum=0.9, weight_decay=wd, foreach=True)
        case "adam":
            return torch.optim.Adam(params, lr, weight_decay=wd, foreach=True)
        case "adamw":
            return torch.optim.AdamW(params, lr, weight_decay=wd or 0.01, foreach=True)
    raise ValueError(f"unknown optimizer {recipe.opt!r}")


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, data: Pair, recipe: Recipe) -> tuple[float, float, Tensor]:
    """Mean loss, accuracy (nan for regression), and hits per example (or negative squared errors)."""
    model.eval()
    x, y = data[0][:1500], data[1][:1500]
    if task.tokens:
        x, y = x[:250], y[:250]
    output = model(x)
    loss = float(criterion(task, output, y, recipe, training=False))
    model.train()
    if not task.classes:
        return loss, math.nan, -((output.squeeze(-1) - y) ** 2)
    hits = (output.argmax(-1) == y).float()
    return loss, float(hits.mean()), hits.flatten()


class Rates:
    """Sets the learning rate before every step, as the recipe's schedule (rightly or wrongly) says."""

    def __init__(self, recipe: Recipe, optimizer: torch.optim.Optimizer, per_epoch: int) -> None:
        self.recipe, self.optimizer, self.per_epoch = recipe, optimizer, per_epoch
        self.epochs = recipe.schedule_epochs or recipe.epochs
        self.plateau = (
            torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=4)
            if recipe.schedule == "plateau"
            else None
        )

    def before_step(self, step: int) -> float:
        r = self.recipe
        if self.plateau is None:
            epoch = step if r.scheduler_every == "batch" else step // self.per_epoch
            done = min(step / (self.per_epoch * self.epochs), 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = r.lr * factor(r.schedule, done, epoch, self.epochs)
        return float(self.optimizer.param_groups[0]["lr"])

    def after_epoch(self, val_loss: float) -> None:
        if self.plateau is not None:
            self.plateau.step(val_loss)


def train(recipe: Recipe, *, layer_norms: bool = False, watch: Watch = unwatched) -> Outcome:
    """Run a recipe. Deterministic in the recipe.

    Args:
        recipe: what to do.
        layer_norms: log the gradient norm of every weight matrix once per epoch.
        watch: attaches a monitor to the training.
    """
    torch.manual_seed(recipe.seed)
    task, (x, y), val = prepared(recipe)
    model = make_model(task, recipe.arch, width=recipe.width, dropout=recipe.dropout, gain=recipe.gain)
    initial = evaluate(model, task, (x, y), recipe)[0]  # before pretraining: the range is that of the problem
    if recipe.pretrain:
        _pretrain(model, task, recipe)
    owner = copy.deepcopy(model) if recipe.wrong_params else model
    optimizer = make_optimizer(recipe, list(owner.parameters()))
    batch = min(recipe.batch, len(x))
    per_epoch = max(len(x) // batch, 1)
    rates = Rates(recipe, optimizer, per_epoch)
    out = Outcome(steps_per_epoch=per_epoch)
    out.initial = initial
    g = torch.Generator().manual_seed(recipe.seed + 1)
    fixed = torch.randperm(len(x), generator=g)
    total, step = recipe.epochs * per_epoch, 0
    best_val, module = math.inf, loss_module(task, recipe)
    with watch(model, optimizer, module, task, recipe) as monitor:
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(x), generator=g) if recipe.shuffled else fixed
            sums = [0.0, 0.0]
            for i in range(per_epoch):
                index = order[i * batch : (i + 1) * batch]
                bx, by = x[index], y[index]
                if recipe.bad_batch_at and step == int(recipe.bad_batch_at * total):
                    bx = bx * torch.nan if recipe.bad_batch_at > 0.5 else bx * 300
                if recipe.restart == "no-state" and step == int(0.55 * total):
                    optimizer = rates.optimizer = make_optimizer(recipe, list(owner.parameters()))
                lr = rates.before_step(step)
                value, accuracy, norm = _step(recipe, task, model, module, optimizer, bx, by)
                sums = [sums[0] + value, sums[1] + accuracy]
                out.rows.append({"step": step, "epoch": epoch, "train_loss": value, "lr": lr, "grad_norm": norm})
                step += 1
            best_val = _end_of_epoch(out, model, task, (x, y), val, recipe, best_val)
            last = out.truth[-1]
            rates.after_epoch(last["val_loss"])
            row = {"step": step - 1, "epoch": epoch, "train_loss_epoch": sums[0] / per_epoch}
            row["val_loss"] = last["val_loss"]
            if task.classes:
                row |= {"train_acc": sums[1] / per_epoch, "val_acc": last["val_acc"]}
            if monitor is not None:
                monitor.log(**{k: v for k, v in row.items() if k.startswith("val")})
            if layer_norms:
                row |= _layer_norms(model)
            out.rows.append(row)
            if epoch + 1 >= recipe.stop_at * recipe.epochs:
                break
    return out


def _step(
    recipe: Recipe,
    task: Task,
    model: nn.Module,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
) -> tuple[float, float, float]:
    """One step of training: its loss, accuracy and gradient norm before clipping."""
    output = model(x)
    loss = module(*loss_arguments(task, output, y, recipe))
    params = list(model.parameters())
    if not recipe.keep_grads:
        optimizer.zero_grad()
        for p in params if recipe.wrong_params else ():
            p.grad = None
    loss.backward()
    grads = [p.grad for p in params if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(grads, foreach=True))
    if recipe.clip:
        torch.nn.utils.clip_grad_norm_(params, recipe.clip, foreach=True)
    optimizer.step()
    accuracy = float((output.detach().argmax(-1) == y).float().mean()) if task.classes else math.nan
    return float(loss.detach()), accuracy, norm


def _layer_norms(model: nn.Module) -> dict[str, float]:
    return {
        f"grad_norm/{name}": float(p.grad.norm())
        for name, p in model.named_parameters()
        if p.grad is not None and p.ndim > 1
    }


def _end_of_epoch(
    out: Outcome, model: nn.Module, task: Task, data: Pair, val: Pair, recipe: Recipe, best_val: float
) -> float:
    train_loss, train_acc, _ = evaluate(model, task, data, recipe)
    val_loss, val_acc, _ = evaluate(model, task, val, recipe)
    oracle_loss, oracle_acc, hits = evaluate(model, task, task.oracle, recipe)
    out.truth.append(
        {
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": val_loss,
            "val_acc": val_acc,
            "oracle_loss": oracle_loss,
            "oracle_acc": oracle_acc,
        }
    )
    out.final, out.oracle_final, out.oracle_hits = train_loss, oracle_loss, hits
    if val_loss < best_val:
        out.best_hits = hits
        return val_loss
    return best_val


def _pretrain(model: nn.Module, task: Task, recipe: Recipe) -> None:
    """Train on other data first (the end of the oracle set, which `evaluate` does not touch): a fine-tuning."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    x, y = task.oracle[0][2000:], task.oracle[1][2000:]
    for i in range(recipe.pretrain):
        index = torch.arange(i * 64, i * 64 + 64) % len(x)
        loss = criterion(task, model(x[index]), y[index], recipe, training=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    base = Recipe(recipe.task, recipe.arch, recipe.opt, recipe.lr)
    return {k: v for k, v in vars(recipe).items() if v != getattr(base, k)}
