"""One training: the loop that a person might write, with the mistakes that a recipe asks for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from benchmarks.accuracy.ward.nets import build
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.schedules import Schedule
from benchmarks.accuracy.ward.tasks import Pair, Task, load
from torch import Tensor, nn
from torch.nn import functional as F

SEEN = 600
"""Examples on which loss and accuracy of a split are measured after each epoch."""


@dataclass
class Outcome:
    """What a run logged, and what only the labels may use.

    Attributes:
        rows: of steps (step, epoch, train_loss, lr, grad_norm) and of epochs (val_loss, val_acc, train_acc ...).
        truth: per epoch train (evaluation mode), val and oracle loss and accuracy, by the sound loss function.
        initial: sound training loss before the first step.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    truth: list[dict[str, float]] = field(default_factory=list)
    initial: float = math.nan


@dataclass
class Program:
    """What a script holds before its first step: everything that a monitor or a preflight check is given."""

    recipe: Recipe
    task: Task
    model: nn.Module
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: Pair
    val: Pair

    def loss_of(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss as the recipe (mis)computes it, through the loss module that monitors watch."""
        return self.criterion(*arguments(self.task, self.recipe, output, target))


Watch = Callable[[Program], AbstractContextManager[Any]]


def unwatched(program: Program) -> AbstractContextManager[Any]:
    """No monitor."""
    return nullcontext()


def sound_loss(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """The loss that the task calls for."""
    if task.classes > 1:
        return F.cross_entropy(output.flatten(0, -2).float(), target.flatten())
    output = output.float() if target.ndim > 1 else output.float().squeeze(-1)
    return F.binary_cross_entropy_with_logits(output, target) if task.classes else F.mse_loss(output, target)


def arguments(task: Task, recipe: Recipe, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What the recipe hands to its loss module."""
    output = output.float()
    if task.classes > 1:
        output = output.softmax(-1) if recipe.loss_input == "softmax" else output
        return output.flatten(0, -2), target.flatten()
    if recipe.loss_input == "sigmoid":
        output = output.sigmoid()
    if recipe.loss_input == "broadcast" or target.ndim > 1:
        return output, target
    return output.squeeze(-1), target


def criterion_of(task: Task, recipe: Recipe, labels: Tensor) -> nn.Module:
    """The loss module that the script makes."""
    if task.classes == 0:
        return nn.MSELoss()
    if task.classes == 1:
        return nn.BCEWithLogitsLoss()
    if recipe.loss_input == "log-free":
        return nn.NLLLoss()
    weights = None
    if recipe.loss_weights:
        counts = torch.bincount(labels.flatten(), minlength=task.classes).clamp(min=1).float()
        weights = counts.sum() / counts / task.classes
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=recipe.smoothing)


def prepare(recipe: Recipe) -> Program:
    """Data, model, loss and optimizer as the recipe wants them. Deterministic in the recipe."""
    torch.manual_seed(recipe.seed)
    task = load(recipe.task)
    x, y = task.train
    g = torch.Generator().manual_seed(99)
    if recipe.imbalance and task.classes > 1:  # all but class 0 lose this share of their examples
        keep = (y == 0) | (torch.rand(len(y), generator=g) >= recipe.imbalance)
        x, y = x[keep], y[keep]
    if recipe.n_train:
        x, y = x[: recipe.n_train], y[: recipe.n_train]
    if recipe.label_noise:
        flip = torch.rand(len(y), generator=g) < recipe.label_noise
        mixed = y[torch.randperm(len(y), generator=g)]
        y = torch.where(flip.view(-1, *[1] * (y.ndim - 1)), mixed, y)
    if recipe.random_labels:
        y = y[torch.randperm(len(y), generator=g)]
    vx, vy = task.val
    vx, vy = vx[: recipe.n_val or len(vx)], vy[: recipe.n_val or len(vy)]
    if not task.tokens:
        x, vx = x * recipe.input_scale, vx * recipe.input_scale + recipe.val_shift
        if recipe.bad_rows:
            x = x.clone()
            x[torch.randperm(len(x), generator=g)[: recipe.bad_rows], ..., 0] = math.nan
    model = build(recipe, task)
    if recipe.pretrain:
        _pretrain(model, task, recipe)
    if recipe.bf16:
        model = model.to(torch.bfloat16)
        x, vx = (x, vx) if task.tokens else (x.bfloat16(), vx.bfloat16())
    optimizer = optimizer_of(recipe, model)
    per_epoch = max(len(x) // min(recipe.batch, len(x)) // recipe.accumulate, 1)
    schedule = Schedule(recipe, optimizer, per_epoch)
    return Program(recipe, task, model, criterion_of(task, recipe, y), optimizer, schedule, (x, y), (vx, vy))


def optimizer_of(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the parameters that the recipe gives it."""
    parameters = list(model.parameters())
    for share, kind in (
        (recipe.frozen, "frozen"),
        (recipe.frozen_on_purpose, "purpose"),
        (recipe.left_out, "left out"),
    ):
        first = parameters[: math.ceil(share * (len(parameters) - 2))]
        for p in first if kind != "left out" else ():
            p.requires_grad_(False)
        if kind != "frozen" and share:
            parameters = parameters[len(first) :]
    if recipe.wrong_parameters:
        parameters = [p.detach().clone().requires_grad_() for p in parameters]
    lr, decay = recipe.lr, recipe.weight_decay
    adam = {"betas": (0.9, recipe.beta2 or 0.999), "eps": recipe.eps or 1e-8}
    match recipe.opt:
        case "sgd":
            return torch.optim.SGD(parameters, lr, weight_decay=decay)
        case "momentum":
            return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=decay)
        case "nesterov":
            return torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr, weight_decay=decay, eps=recipe.eps or 1e-8)
        case "adam":
            return torch.optim.Adam(parameters, lr, weight_decay=decay, **adam)
        case "adamw":
            return torch.optim.AdamW(parameters, lr, weight_decay=decay or 0.01, **adam)
    raise ValueError(f"{recipe.opt}: expected sgd, momentum, nesterov, rmsprop, adam or adamw")


def _pretrain(model: nn.Module, task: Task, recipe: Recipe) -> None:
    """Train on the end of the oracle set, which `measure` does not touch: what follows is a fine-tuning."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    x, y = task.oracle[0][SEEN:], task.oracle[1][SEEN:]
    for i in range(recipe.pretrain):
        index = torch.arange(i * 64, i * 64 + 64) % len(x)
        optimizer.zero_grad()
        sound_loss(task, model(x[index]), y[index]).backward()
        optimizer.step()


@torch.no_grad()
def measure(program: Program, data: Pair, *, model: nn.Module | None = None) -> tuple[float, float]:
    """Loss and accuracy (nan for numbers as targets) of a split.

    Args:
        program: model and task.
        data: inputs and targets.
        model: a copy of the model, measured in evaluation mode with the sound loss; the script itself measures its own
            model, with its own loss, in the mode that it forgot to change.
    """
    own = model is None
    net = program.model if model is None else model
    was = net.training
    if not (own and program.recipe.never_eval):
        net.eval()
    x, y = data[0][:SEEN], data[1][:SEEN]
    x = x.bfloat16() if program.recipe.bf16 and x.is_floating_point() else x
    output = net(x).float()
    loss = program.loss_of(output, y) if own else sound_loss(program.task, output, y)
    net.train(was)
    if not program.task.classes:
        return float(loss), math.nan
    guess = output.argmax(-1) if program.task.classes > 1 else (output.squeeze(-1) > 0).float()
    return float(loss), float((guess == y).float().mean())


def train(recipe: Recipe, watch: Watch = unwatched) -> Outcome:
    """Run a recipe. Deterministic in the recipe, watched or not."""
    program = prepare(recipe)
    out = Outcome()
    clean = program.train[0].isfinite().flatten(1).all(1) if program.train[0].is_floating_point() else slice(None)
    usable = (program.train[0][clean], program.train[1][clean])
    out.initial = measure(program, usable, model=copy.deepcopy(program.model))[0]
    size, per_epoch = min(recipe.batch, len(program.train[0])), program.schedule.per_epoch
    total, step = recipe.epochs * per_epoch, 0
    g = torch.Generator().manual_seed(recipe.seed + 1)
    fixed, kept = torch.randperm(len(program.train[0]), generator=g), []
    program.model.train()
    with watch(program) as monitor:
        for epoch in range(recipe.epochs):
            batches = _batches(program, size, g, fixed)
            sums = [0.0, 0.0]
            for _ in range(per_epoch):
                if recipe.restart and step == int(0.55 * total):
                    _resume(program, recipe.restart)
                if step >= (1 - recipe.stays_eval) * total:
                    program.model.eval()
                row = {"step": step, "epoch": epoch, "lr": program.schedule.rate}
                loss, accuracy, norm = _step(program, batches, step, kept)
                sums = [sums[0] + loss, sums[1] + accuracy]
                out.rows.append(row | {"train_loss": loss, "grad_norm": norm})
                program.schedule.after_step()
                step += 1
            row = {"step": step - 1, "epoch": epoch, "train_loss_epoch": sums[0] / per_epoch}
            row |= _validate(program, out, usable)
            if program.task.classes:
                row["train_acc"] = sums[1] / per_epoch
            program.schedule.after_epoch(row["val_loss"])
            if monitor is not None:
                monitor.log(**{k: v for k, v in row.items() if k.startswith("val")})
            out.rows.append(row)
            if epoch + 1 >= recipe.stop_at * recipe.epochs:
                break
    return out


def _batches(program: Program, size: int, g: torch.Generator, fixed: Tensor) -> Iterator[Pair]:
    """The mini-batches of one epoch."""
    x, y = program.train
    order = epoch_order(program, g, fixed)
    for i in range(len(x) // size):
        index = order[i * size : (i + 1) * size]
        yield x[index], y[index]


def epoch_order(program: Program, g: torch.Generator, fixed: Tensor) -> Tensor:
    """The order of the training examples in one epoch.

    Args:
        program: what is trained.
        g: what orders are drawn from.
        fixed: the order of every epoch of a recipe that has but one.
    """
    y, recipe = program.train[1], program.recipe
    order = torch.randperm(len(y), generator=g)
    if recipe.fixed_order:
        order = fixed
    if recipe.sorted_batches and y.ndim == 1:
        part = order[: int(recipe.sorted_batches * len(order))]
        order = torch.cat([part[y[part].argsort(stable=True)], order[len(part) :]])
    return order


def forward(program: Program, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Output and loss of one training batch."""
    recipe, model = program.recipe, program.model
    if not recipe.mixup or program.task.tokens:
        output = model(x)
        return output, program.loss_of(output, y)
    share = float(torch.distributions.Beta(recipe.mixup, recipe.mixup).sample())
    other = torch.randperm(len(x))
    output = model(share * x + (1 - share) * x[other])
    return output, share * program.loss_of(output, y) + (1 - share) * program.loss_of(output, y[other])


def _step(program: Program, batches: Iterator[Pair], step: int, kept: list[Tensor]) -> tuple[float, float, float]:
    """One step of the optimizer: its loss, accuracy and gradient norm before clipping."""
    recipe, task, model, optimizer = program.recipe, program.task, program.model, program.optimizer
    if recipe.zero_every and step % recipe.zero_every == 0:
        optimizer.zero_grad()
        for p in model.parameters() if recipe.wrong_parameters else ():
            p.grad = None
    loss, accuracy = 0.0, 0.0
    for _ in range(recipe.accumulate):
        x, y = next(batches)
        if recipe.outlier and recipe.outlier_every and step % recipe.outlier_every == recipe.outlier_every - 1:
            x = x * recipe.outlier
        output, value = forward(program, x, y)
        (value if recipe.undivided else value / recipe.accumulate).backward()
        kept += [value] if recipe.keep_losses else []
        loss += float(value.detach()) / recipe.accumulate
        if task.classes:
            guess = output.detach().argmax(-1) if task.classes > 1 else (output.detach().squeeze(-1) > 0).float()
            accuracy += float((guess == y).float().mean()) / recipe.accumulate
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(grads)) if grads else math.nan
    if recipe.clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return loss, accuracy, norm


def _validate(program: Program, out: Outcome, usable: Pair) -> dict[str, float]:
    """What the script logs of its validation set after an epoch; the truth is noted on the way."""
    copied, truth = copy.deepcopy(program.model), {}  # no monitor sees what is done to a copy
    for split, data in (("train", usable), ("val", program.val), ("oracle", program.task.oracle)):
        truth[f"{split}_loss"], truth[f"{split}_acc"] = measure(program, data, model=copied)
    out.truth.append(truth)
    if program.recipe.grad_in_eval:
        program.model.eval()
        program.loss_of(program.model(program.val[0]), program.val[1])
        program.model.train()
    loss, accuracy = measure(program, program.val)
    return {"val_loss": loss, "val_acc": accuracy} if program.task.classes else {"val_loss": loss}


def _resume(program: Program, how: str) -> None:
    """Carry on as from a checkpoint, with or without the optimizer's state."""
    if how == "no-state":
        program.optimizer.state.clear()
    else:
        program.optimizer.load_state_dict(program.optimizer.state_dict())
