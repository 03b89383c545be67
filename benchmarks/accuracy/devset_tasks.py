"""Small learning problems for the development set: data with a large held-out oracle set, and models.

Everything comes from scikit-learn, from code, or from the text of Python's own standard library.
The oracle set is never shown to a detector; it only serves to label runs.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Data of one problem.

    Attributes:
        name: name of the data set.
        train, val, oracle: inputs and targets.
        classes: number of classes, 0 for regression.
        tokens: True when inputs are token sequences with one target per token.
    """

    name: str
    train: Pair
    val: Pair
    oracle: Pair
    classes: int
    tokens: bool = False


def _split(name: str, x: np.ndarray, y: np.ndarray, n_train: int, n_val: int, classes: int) -> Task:
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    mean, std = x[:n_train].mean(0), x[:n_train].std(0)
    scaled = (x - mean) / np.where(std > 1e-6, std, 1.0)
    inputs = torch.tensor(scaled.clip(-5, 5), dtype=torch.float32)
    if classes:
        targets = torch.tensor(y, dtype=torch.long)
    else:
        targets = torch.tensor((y - y[:n_train].mean()) / y[:n_train].std(), dtype=torch.float32)
    a, b = n_train, n_train + n_val
    return Task(name, (inputs[:a], targets[:a]), (inputs[a:b], targets[a:b]), (inputs[b:], targets[b:]), classes)


def digits() -> Task:
    x, y = datasets.load_digits(return_X_y=True)
    return _split("digits", x / 16.0, y, 800, 200, 10)


def wine() -> Task:
    return _split("wine", *datasets.load_wine(return_X_y=True), 80, 30, 3)


def cancer() -> Task:
    return _split("cancer", *datasets.load_breast_cancer(return_X_y=True), 250, 100, 2)


def diabetes() -> Task:
    return _split("diabetes", *datasets.load_diabetes(return_X_y=True), 200, 80, 0)


def friedman() -> Task:
    x, y = datasets.make_friedman1(n_samples=4000, noise=1.0, random_state=0)
    return _split("friedman", x, y, 800, 200, 0)


def blobs() -> Task:
    x, y = datasets.make_classification(
        n_samples=5000, n_features=20, n_informative=8, n_classes=4, class_sep=1.2, flip_y=0.02, random_state=0
    )
    return _split("blobs", x, y, 1000, 250, 4)


def spirals() -> Task:
    rng = np.random.default_rng(0)
    y = np.arange(5000) % 3
    t = rng.uniform(0.1, 1.0, 5000)
    angle = 2.2 * np.pi * t + 2 * np.pi * y / 3 + rng.normal(0, 0.12, 5000)
    return _split("spirals", np.c_[t * np.cos(angle), t * np.sin(angle)], y, 900, 300, 3)


def moons() -> Task:
    x, y = datasets.make_moons(5000, noise=0.25, random_state=0)
    return _split("moons", x, y, 600, 200, 2)


def adding() -> Task:
    """The adding problem: the sum of the two marked numbers of a sequence of 20."""
    rng = np.random.default_rng(0)
    n, length = 4000, 20
    values = rng.uniform(0, 1, (n, length))
    marks = np.zeros((n, length))
    rows = np.arange(n)
    marks[rows, rng.integers(0, length // 2, n)] = 1
    marks[rows, rng.integers(length // 2, length, n)] = 1
    y = (values * marks).sum(1)
    x = torch.tensor(np.stack([values, marks], -1), dtype=torch.float32)
    t = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    return Task("adding", (x[:1500], t[:1500]), (x[1500:1900], t[1500:1900]), (x[2000:], t[2000:]), 0)


def text() -> Task:
    """Next-character prediction on the source of two standard library modules."""
    source = Path(argparse.__file__).read_text("utf-8") + Path(textwrap.__file__).read_text("utf-8")
    common = sorted(set(source), key=lambda c: (-source.count(c), c))[:47]
    codes = torch.tensor([common.index(c) if c in common else 47 for c in source])
    windows = codes[: len(codes) // 33 * 33].view(-1, 33)
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]
    parts = [(w[:, :-1], w[:, 1:]) for w in (windows[:2200], windows[2200:2400], windows[2400:])]
    return Task("text", parts[0], parts[1], parts[2], 48, tokens=True)


TASKS: dict[str, Callable[[], Task]] = {
    f.__name__: f for f in (digits, wine, cancer, diabetes, friedman, blobs, spirals, moons, adding, text)
}


# --- models ---------------------------------------------------------------------------------------


class Residual(nn.Module):
    """x + f(norm(x))."""

    def __init__(self, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), act())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Recurrent(nn.Module):
    """An RNN or GRU over vectors or tokens."""

    def __init__(self, cell: str, inputs: int, outputs: int, width: int, *, tokens: bool) -> None:
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Embedding(inputs, width) if tokens else nn.Identity()
        kind = nn.GRU if cell == "gru" else nn.RNN
        self.cell = kind(width if tokens else inputs, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.cell(self.embed(x))
        return self.head(h if self.tokens else h[:, -1])


class Transformer(nn.Module):
    """A small causal transformer; post-norm by default, as in the original paper."""

    def __init__(self, vocabulary: int, width: int, layers: int, *, pre_norm: bool, length: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)
        make = lambda: nn.TransformerEncoderLayer(  # noqa: E731
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=pre_norm
        )
        self.layers = nn.ModuleList(make() for _ in range(layers))
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.place
        for layer in self.layers:
            h = layer(h, src_mask=self.mask, is_causal=True)
        return self.head(h)


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def make_model(task: Task, arch: str, *, width: int = 48, dropout: float = 0.0, gain: float = 1.0) -> nn.Module:
    """A model by name: ``mlp2``, ``mlp5-tanh``, ``mlp4-bn``, ``res12``, ``cnn``, ``gru``, ``former1``, ``linear``.

    Args:
        task: the problem, for the input and output sizes.
        arch: kind, depth and variant.
        width: units per hidden layer.
        dropout: dropout after every hidden layer of an MLP.
        gain: factor on all weight matrices after initialisation.
    """
    kind, *variants = arch.split("-")
    outputs = task.classes or 1
    inputs = task.train[0].shape[-1] if not task.tokens else task.classes
    name = kind.rstrip("0123456789")
    depth = int(kind[len(name) :] or 2)
    act = next((ACTIVATIONS[v] for v in variants if v in ACTIVATIONS), nn.ReLU)
    if name == "linear":
        model: nn.Module = nn.Linear(inputs, outputs)
    elif name == "mlp":
        layers: list[nn.Module] = []
        for i in range(depth - 1):
            layers.append(nn.Linear(inputs if i == 0 else width, width))
            if "bn" in variants:
                layers.append(nn.BatchNorm1d(width))
            layers.append(act())
            if dropout:
                layers.append(nn.Dropout(dropout))
        model = nn.Sequential(*layers, nn.Linear(width, outputs))
    elif name == "res":
        model = nn.Sequential(
            nn.Linear(inputs, width), *(Residual(width, act) for _ in range(depth)), nn.Linear(width, outputs)
        )
    elif name == "cnn":
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 12, 3, padding=1),
            act(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1),
            act(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(96, outputs),
        )
    elif name in ("gru", "rnn"):
        model = Recurrent(name, inputs, outputs, width, tokens=task.tokens)
    elif name == "former":
        model = Transformer(task.classes, width, depth, pre_norm="pre" in variants)
    else:
        raise ValueError(f"unknown architecture {arch!r}")
    if gain != 1.0:
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim > 1:
                    p.mul_(gain)
    return model
