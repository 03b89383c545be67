"""Real small trainings for the tests of rules: each a second or less, each made once per session.

`training(name)` trains by the recipe of that name and returns the `Run` that an ordinary script would
have logged, with what only the test knows: the loss and accuracy of the final weights, in evaluation
mode, on all training examples and on an oracle set that no log shows. A sick recipe names its `cure`:
the same recipe with one knob turned. tests/test_trainings.py checks that the cure helps, so that what the
tests call sick is sick by intervention, not by the look of its curve.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from fitdoctor.run import Run, Series
from fitdoctor.signals import ACCURACY, LOSS, LR, Signal

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

from torch import Tensor, nn  # noqa: E402  (after importorskip)

Schedule = Callable[[float], float]
"""Share of the run that is over -> factor on the learning rate."""


def constant(share: float) -> float:
    return 1.0


def cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def restarts(share: float) -> float:
    """Three cosine cycles of equal length."""
    return cosine((3 * share) % 1.0)


def staged(share: float) -> float:
    """A tenth after half, a hundredth after three quarters of the run."""
    return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01


def jumping(share: float) -> float:
    """A schedule with a slip: a hundred times the rate from 60 % on."""
    return 1.0 if share < 0.6 else 100.0


def warm(share: float) -> float:
    """Linear warm-up over a tenth, then cosine."""
    return share / 0.1 if share < 0.1 else cosine((share - 0.1) / 0.9)


@dataclass(frozen=True)
class Recipe:
    """What decides a training. The defaults are a sound one: digits, an MLP, SGD, a cosine schedule."""

    data: str = "digits"
    lr: float = 0.05
    opt: str = "sgd"
    schedule: Schedule = cosine
    epochs: int = 30
    batch: int = 32
    width: int = 64
    depth: int = 1
    act: str = "relu"
    n_train: int = 800
    n_val: int = 400
    seed: int = 0
    dropout: float = 0.0
    smoothing: float = 0.0
    label_noise: float = 0.0
    weight_decay: float = 0.0
    gain: float = 1.0
    frozen: bool = False
    dead: bool = False
    ascend: bool = False
    bad_batch_at: tuple[float, ...] = ()
    bad_scale: float = 10.0
    poison_from: float = 1.0
    pretrained: int = 0
    stop_at: float = 1.0
    per_step: bool = False
    log_lr: bool = True
    log_accuracy: bool = True
    first_step: int = 0
    cure: dict[str, object] = field(default_factory=dict, hash=False, compare=False)
    better: str = "train"


RECIPES: dict[str, Recipe] = {
    # sound
    "sound": Recipe(),
    "sound per step": Recipe(per_step=True),
    "sound adam": Recipe(opt="adam", lr=1e-3, schedule=constant),
    "sound warm-up": Recipe(opt="adam", lr=3e-3, schedule=warm),
    "sound regression": Recipe(data="friedman", lr=0.02, epochs=40),
    "sound tumours": Recipe(data="tumours", n_train=350, n_val=100, lr=0.02, weight_decay=1e-3),
    # odd but sound
    "warm restarts": Recipe(schedule=restarts, epochs=36),
    "staged decay": Recipe(schedule=staged, lr=0.1),
    "dropout": Recipe(dropout=0.4, epochs=40),
    "label smoothing": Recipe(smoothing=0.1),
    "tiny val set": Recipe(n_val=16, opt="adam", lr=1e-3),
    "edge of stability": Recipe(
        n_train=300, batch=300, opt="gd", lr=5.0, schedule=constant, epochs=150, act="tanh", width=32
    ),
    "rough start": Recipe(
        n_train=300, batch=300, opt="gd", lr=8.0, schedule=constant, epochs=150, act="tanh", width=32
    ),
    "catapult": Recipe(data="linear", opt="gd", batch=400, n_train=400, lr=0.12, schedule=constant, epochs=80,
                       act="none", width=400, per_step=True),
    "fine-tuning": Recipe(pretrained=15, lr=5e-4, epochs=15),
    "resumed": Recipe(pretrained=15, lr=0.01, epochs=20, first_step=4000),
    "noisy targets": Recipe(data="noisy", lr=0.01, epochs=20, n_train=1800, width=8),
    "noisy targets, wide": Recipe(data="noisy", lr=0.02, epochs=40),
    "small batches, annealed": Recipe(batch=4, lr=0.01, epochs=20, n_train=400),
    # steps too long
    "rate x100": Recipe(lr=5.0, cure={"lr": 0.05}),
    "rate x100 adam": Recipe(opt="adam", lr=0.3, schedule=constant, cure={"lr": 3e-3}),
    "rate x1000 regression": Recipe(data="friedman", lr=2.0, per_step=True, cure={"lr": 0.02}),
    "rate x8": Recipe(lr=0.4, schedule=constant, epochs=40, cure={"lr": 0.05}),
    "rate x100 adam, deep": Recipe(opt="adam", lr=0.3, depth=2, schedule=constant, cure={"lr": 3e-3}),
    "rate jumps": Recipe(schedule=jumping, epochs=40, cure={"schedule": constant}),
    # steps too short
    "rate / 1000": Recipe(lr=5e-5, schedule=constant, cure={"lr": 0.05}),
    "rate / 1000 adam": Recipe(opt="adam", lr=5e-6, schedule=constant, epochs=40, cure={"lr": 3e-3}),
    "rate / 1000 regression": Recipe(data="friedman", lr=2e-5, schedule=constant, epochs=40, cure={"lr": 0.02}),
    "stopped early": Recipe(lr=2e-3, epochs=60, stop_at=0.25, schedule=constant, cure={"stop_at": 1.0}),
    "stopped early, regression": Recipe(data="friedman", lr=2e-4, epochs=100, stop_at=0.2, schedule=constant,
                                        cure={"stop_at": 1.0}),
    # no annealing
    "never annealed": Recipe(data="noisy", lr=0.01, schedule=constant, batch=4, epochs=25, n_train=800, width=8,
                             cure={"schedule": cosine}),
    "never annealed, noisy labels": Recipe(lr=0.01, schedule=constant, batch=4, width=0, epochs=25, n_train=600,
                                           label_noise=0.3, cure={"schedule": cosine}, better="oracle"),
    # nothing learned
    "frozen": Recipe(frozen=True, cure={"frozen": False}),
    "dead units": Recipe(dead=True, depth=2, cure={"dead": False}),
    "frozen regression": Recipe(data="friedman", frozen=True, per_step=True, cure={"frozen": False}),
    "uphill": Recipe(ascend=True, lr=1e-3, cure={"ascend": False}),
    # fit
    "40 examples": Recipe(n_train=40, batch=10, opt="adam", lr=3e-3, schedule=constant, width=256, epochs=80,
                          label_noise=0.3, cure={"n_train": 1000, "batch": 100, "epochs": 80}, better="oracle"),
    "noisy labels": Recipe(n_train=300, opt="adam", lr=3e-3, schedule=constant, width=256, epochs=60,
                           label_noise=0.4, cure={"epochs": 6}, better="oracle"),
    "overfitted regression": Recipe(data="noisy", n_train=60, batch=20, opt="adam", lr=5e-3, schedule=constant,
                                    width=256, epochs=150, cure={"epochs": 10}, better="oracle"),
    "overconfident": Recipe(n_train=150, opt="adam", lr=0.01, schedule=constant, width=256, depth=2, epochs=150,
                            n_val=600, cure={"epochs": 8}, better="oracle"),
    "overconfident, tumours": Recipe(data="tumours", n_train=150, n_val=300, opt="adam", lr=0.01, schedule=constant,
                                     width=256, epochs=100, cure={"epochs": 8}, better="oracle"),
    "too narrow": Recipe(width=1, lr=0.1, schedule=staged, epochs=60, cure={"width": 64}),
    "too linear": Recipe(data="rings", width=0, lr=0.1, schedule=staged, epochs=60, n_train=600, cure={"width": 64}),
    "heavy dropout": Recipe(dropout=0.7, width=32, epochs=40, cure={"dropout": 0.0}),
    "tiny val set, wrong labels": Recipe(n_val=24, lr=0.1, batch=8, n_train=400, label_noise=0.4, schedule=constant),
    # batches
    "bad batches": Recipe(opt="plain", per_step=True, schedule=constant, epochs=40, bad_batch_at=(0.4, 0.7)),
    "ruinous batch": Recipe(opt="plain", per_step=True, schedule=constant, epochs=40, bad_batch_at=(0.85,),
                            bad_scale=150.0, cure={"bad_batch_at": ()}),
    "poisoned": Recipe(poison_from=0.6, schedule=constant, lr=0.02, epochs=40, cure={"poison_from": 1.0}),
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A run, and the truth about its final weights: name of the set -> loss, accuracy in evaluation mode."""

    run: Run
    truth: dict[str, float]


@cache
def training(name: str) -> Training:
    """The training of a recipe."""
    return train(RECIPES[name])


@cache
def cured(name: str) -> Training:
    """The training of the same recipe with its cure applied."""
    recipe = RECIPES[name]
    return train(replace(recipe, cure={}, **recipe.cure))  # type: ignore[arg-type]


def run_of(name: str) -> Run:
    """What the training of that name logged."""
    return training(name).run


# --- data -----------------------------------------------------------------------------------------


@cache
def dataset(name: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets, shuffled, inputs standardised."""
    rng = np.random.default_rng(0)
    if name in ("digits", "tumours"):
        x, y = (datasets.load_digits if name == "digits" else datasets.load_breast_cancer)(return_X_y=True)
    elif name == "rings":
        x, y = datasets.make_circles(1800, noise=0.08, factor=0.5, random_state=0)
    elif name == "linear":
        x = rng.standard_normal((1500, 20))
        y = x @ rng.standard_normal(20) / math.sqrt(20)
    else:
        x, y = datasets.make_friedman1(2500, n_features=10, random_state=0)
        y = (y - y.mean()) / y.std() + (0.7 if name == "noisy" else 0.0) * rng.standard_normal(len(y))
    order = rng.permutation(len(x))
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    targets = torch.tensor(y[order], dtype=torch.long if y.dtype.kind in "iu" else torch.float32)
    return torch.tensor(x[order], dtype=torch.float32), targets


def network(recipe: Recipe, inputs: int, outputs: int) -> nn.Sequential:
    acts = {"relu": nn.ReLU, "tanh": nn.Tanh, "none": nn.Identity}
    layers: list[nn.Module] = []
    size = inputs
    for _ in range(recipe.depth if recipe.width else 0):
        layers += [nn.Linear(size, recipe.width), acts[recipe.act](), nn.Dropout(recipe.dropout)]
        size = recipe.width
    net = nn.Sequential(*layers, nn.Linear(size, outputs))
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.weight *= recipe.gain
                if recipe.dead:
                    layer.bias -= 50.0
        if recipe.dead:
            net[-1].bias.zero_()
    return net


# --- the loop -------------------------------------------------------------------------------------


def train(recipe: Recipe) -> Training:
    """Train by a recipe."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return _train(recipe)
    finally:
        torch.set_num_threads(threads)


def _train(recipe: Recipe) -> Training:
    x, y = dataset(recipe.data)
    classes = int(y.max()) + 1 if y.dtype == torch.long else 0
    a, b = recipe.n_train, recipe.n_train + recipe.n_val
    sets = {"train": (x[:a], y[:a].clone()), "val": (x[a:b], y[a:b]), "oracle": (x[b:], y[b:])}
    if recipe.label_noise:
        flip = torch.rand(a) < recipe.label_noise
        sets["train"][1][flip] = torch.randint(0, classes, (int(flip.sum()),))
    net = network(recipe, x.shape[1], classes or 1)
    if recipe.pretrained:
        before = replace(
            recipe, pretrained=0, epochs=recipe.pretrained, lr=0.05, schedule=cosine, first_step=0, n_train=a
        )
        net = copy.deepcopy(_pretrained(before))
    log = _Log()
    _fit(recipe, net, sets, classes, log)
    truth = {}
    for split in ("train", "oracle"):
        truth[f"{split} loss"], truth[f"{split} accuracy"] = _evaluate(net, *sets[split], classes)
    return Training(log.run(recipe), truth)


@cache
def _pretrained(recipe: Recipe) -> nn.Sequential:
    x, y = dataset(recipe.data)
    classes = int(y.max()) + 1
    net = network(recipe, x.shape[1], classes)
    a, b = recipe.n_train, recipe.n_train + recipe.n_val
    _fit(recipe, net, {"train": (x[:a], y[:a]), "val": (x[a:b], y[a:b])}, classes, _Log())
    return net


def _criterion(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    if classes:
        return nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    return lambda out, target: nn.functional.mse_loss(out[:, 0], target)


def _optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    parameters = copy.deepcopy(net).parameters() if recipe.frozen else net.parameters()
    if recipe.opt == "adam":
        return torch.optim.Adam(parameters, recipe.lr, weight_decay=recipe.weight_decay)
    momentum = 0.9 if recipe.opt == "sgd" else 0.0
    return torch.optim.SGD(
        parameters, recipe.lr, momentum=momentum, weight_decay=recipe.weight_decay, maximize=recipe.ascend
    )


def _fit(recipe: Recipe, net: nn.Module, sets: dict[str, tuple[Tensor, Tensor]], classes: int, log: _Log) -> None:
    criterion, optimizer = _criterion(recipe, classes), _optimizer(recipe, net)
    x, y = sets["train"]
    a = len(x)
    per_epoch = math.ceil(a / recipe.batch)
    total = per_epoch * recipe.epochs
    bad = {round(share * total) for share in recipe.bad_batch_at}
    step = 0
    for _ in range(max(1, round(recipe.epochs * recipe.stop_at))):
        seen: list[tuple[float, float, int]] = []
        for index in _batches(a, recipe.batch):
            factor = recipe.schedule(step / total)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * factor
            inputs, targets = x[index], y[index]
            if step in bad:
                inputs = recipe.bad_scale * torch.randn_like(inputs)
            if step >= recipe.poison_from * total:
                targets = (targets + torch.randint(1, classes, targets.shape)) % classes
            net.train()
            out = net(inputs)
            loss = criterion(out, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            right = float((out.argmax(1) == targets).float().mean()) if classes else math.nan
            value = loss.item()
            seen.append((value, right, len(index)))
            at = recipe.first_step + step
            if recipe.per_step:
                log.add(LOSS, "train", at, value)
                log.add(LR, "train", at, recipe.lr * factor)
        weights = np.array([n for _, _, n in seen])
        at = recipe.first_step + step
        if not recipe.per_step:
            log.add(LOSS, "train", at, float(np.average([v for v, _, _ in seen], weights=weights)))
            log.add(LR, "train", at, recipe.lr * factor)
        val_loss, val_accuracy = _evaluate(net, *sets["val"], classes)
        log.add(LOSS, "val", at, val_loss)
        if classes:
            log.add(ACCURACY, "train", at, float(np.average([v for _, v, _ in seen], weights=weights)))
            log.add(ACCURACY, "val", at, val_accuracy)


def _batches(n: int, size: int) -> Iterator[Tensor]:
    return iter(torch.randperm(n).split(size))


def _evaluate(net: nn.Module, x: Tensor, y: Tensor, classes: int) -> tuple[float, float]:
    net.eval()
    with torch.no_grad():
        out = net(x)
        if classes:
            return float(nn.functional.cross_entropy(out, y)), float((out.argmax(1) == y).float().mean())
        return float(nn.functional.mse_loss(out[:, 0], y)), math.nan


class _Log:
    """Rows by signal, as a script writes them."""

    def __init__(self) -> None:
        self.rows: dict[Signal, dict[int, float]] = {}

    def add(self, quantity: object, split: str, step: int, value: float) -> None:
        self.rows.setdefault(Signal(quantity, split), {})[step] = value  # type: ignore[arg-type]

    def run(self, recipe: Recipe) -> Run:
        kept = {
            s: rows
            for s, rows in self.rows.items()
            if (recipe.log_lr or s.quantity != LR) and (recipe.log_accuracy or s.quantity != ACCURACY)
        }
        return Run(
            "trained",
            tuple(
                Series(s, np.array(list(rows)), np.array(list(rows.values())),
                       per="step" if recipe.per_step and s in (Signal(LOSS), Signal(LR)) else "epoch")
                for s, rows in kept.items()
            ),
            finished=True,
        )  # fmt: skip
