"""What is learned: small problems with a large oracle set that no detector ever sees.

Everything comes from scikit-learn, from code, or from the text of Python's own standard library.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Data of one problem.

    Attributes:
        name: name of the data set.
        train, val, oracle: inputs and targets.
        classes: number of classes; 0 for numbers as targets, 1 for a yes-or-no target with one logit.
        tokens: vocabulary where inputs are token sequences with one target per token, else 0.
    """

    name: str
    train: Pair
    val: Pair
    oracle: Pair
    classes: int
    tokens: int = 0


def _split(name: str, x: Tensor, y: Tensor, n_train: int, n_val: int, classes: int, tokens: int = 0) -> Task:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    if not tokens and x.ndim == 2:
        mean, std = x[:n_train].mean(0), x[:n_train].std(0)
        x = ((x - mean) / torch.where(std > 1e-6, std, 1.0)).clamp(-5, 5)
    if classes == 0 and y.ndim == 1:
        y = (y - y[:n_train].mean()) / y[:n_train].std()
    a, b = n_train, n_train + n_val
    return Task(name, (x[:a], y[:a]), (x[a:b], y[a:b]), (x[b:], y[b:]), classes, tokens)


def _floats(x: np.ndarray) -> Tensor:
    return torch.tensor(x, dtype=torch.float32)


def digits() -> Task:
    """Handwritten digits, 8 by 8."""
    x, y = datasets.load_digits(return_X_y=True)
    return _split("digits", _floats(x / 16.0), torch.tensor(y), 800, 200, 10)


def blobs() -> Task:
    """Four classes in twenty dimensions, two per cent of the labels wrong."""
    x, y = datasets.make_classification(
        n_samples=5000, n_features=20, n_informative=8, n_classes=4, class_sep=1.2, flip_y=0.02, random_state=1
    )
    return _split("blobs", _floats(x), torch.tensor(y), 1000, 250, 4)


def friedman() -> Task:
    """Friedman's first regression problem with noise."""
    x, y = datasets.make_friedman1(n_samples=4000, noise=1.0, random_state=1)
    return _split("friedman", _floats(x), _floats(y), 800, 200, 0)


def text() -> Task:
    """The next character of two modules of the standard library."""
    return _characters("text", Path(argparse.__file__), Path(textwrap.__file__))


def _characters(name: str, *files: Path) -> Task:
    source = "".join(f.read_text("utf-8") for f in files)[:90_000]
    common = sorted(set(source), key=lambda c: (-source.count(c), c))[:47]
    place = {c: i for i, c in enumerate(common)}
    codes = torch.tensor([place.get(c, 47) for c in source])
    windows = codes[: len(codes) // 25 * 25].view(-1, 25)
    return _split(name, windows[:, :-1].clone(), windows[:, 1:].clone(), 1500, 250, 48, 48)


def spirals() -> Task:
    """Three arms of a spiral in the plane, noisy, four per cent of the labels wrong."""
    rng = np.random.default_rng(10)
    n = 4200
    labels, r = rng.integers(0, 3, n), rng.uniform(0.15, 1, n)
    angle = 2 * np.pi * labels / 3 + 5 * r + rng.normal(0, 0.18, n)
    shown = np.where(rng.random(n) < 0.04, rng.integers(0, 3, n), labels)
    return _split("spirals", _floats(np.c_[r * np.cos(angle), r * np.sin(angle)]), torch.tensor(shown), 900, 250, 3)


def textures() -> Task:
    """Six directions of stripes of any width in noisy pictures of 10 by 10."""
    rng = np.random.default_rng(11)
    n = 3500
    labels = rng.integers(0, 6, n)
    rows, columns = np.mgrid[0:10, 0:10]
    angle = (np.pi * labels / 6 + rng.normal(0, 0.08, n))[:, None, None]
    wave = rng.uniform(1.0, 2.0, (n, 1, 1)) * (np.cos(angle) * rows + np.sin(angle) * columns)
    pictures = np.sin(wave + rng.uniform(0, 2 * np.pi, (n, 1, 1))) + rng.normal(0, 1.0, (n, 10, 10))
    return _split("textures", _floats(pictures[:, None]), torch.tensor(labels), 800, 200, 6)


def cancer() -> Task:
    """Benign or malign, from thirty measures of a cell nucleus: few examples; one logit."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return _split("cancer", _floats(x), _floats(y), 220, 80, 1)


def tally() -> Task:
    """The sum of all tokens so far, modulo four."""
    x = torch.randint(0, 4, (3200, 12), generator=torch.Generator().manual_seed(12))
    return _split("tally", x, x.cumsum(1) % 4, 1200, 250, 4, 4)


def pairs() -> Task:
    """The sum of a token and the one before it, modulo ten."""
    x = torch.randint(0, 10, (4000, 10), generator=torch.Generator().manual_seed(13))
    y = (x + torch.cat([torch.zeros(4000, 1, dtype=torch.long), x[:, :-1]], 1)) % 10
    return _split("pairs", x, y, 1000, 250, 10, 10)


def shapes() -> Task:
    """Four outlines drawn at random places in noisy pictures of 12 by 12."""
    rng = np.random.default_rng(3)
    n = 3500
    labels = rng.integers(0, 4, n)
    rows, columns = np.mgrid[0:12, 0:12]
    size = rng.uniform(2.2, 4.2, (n, 1, 1))
    dy = rows - rng.uniform(4, 7.5, (n, 1, 1))
    dx = columns - rng.uniform(4, 7.5, (n, 1, 1))
    measures = np.stack(
        [np.hypot(dx, dy), np.maximum(abs(dx), abs(dy)), abs(dx) + abs(dy), np.minimum(abs(dx), abs(dy))]
    )
    distance = np.where(labels[:, None, None] == 3, measures[3] + size, 0)
    for k in range(3):
        distance = np.where(labels[:, None, None] == k, measures[k], distance)
    pictures = np.exp(-(((distance - size) / 0.7) ** 2)) * (np.hypot(dx, dy) < 7) + rng.normal(0, 0.45, (n, 12, 12))
    return _split("shapes", _floats(pictures[:, None]), torch.tensor(labels), 700, 200, 4)


def waves() -> Task:
    """Five kinds of noisy signals of 48 samples: sine, square, saw-tooth, chirp, two tones."""
    rng = np.random.default_rng(4)
    n, t = 3600, np.linspace(0, 1, 48)
    labels = rng.integers(0, 5, n)
    f, phase = rng.uniform(2, 5, (n, 1)), rng.uniform(0, 2 * np.pi, (n, 1))
    angle = 2 * np.pi * f * t + phase
    kinds = np.stack(
        [
            np.sin(angle),
            np.sign(np.sin(angle)),
            (angle / np.pi) % 2 - 1,
            np.sin(angle * (0.5 + t)),
            0.6 * np.sin(angle) + 0.6 * np.sin(2.4 * angle),
        ]
    )
    signal = kinds[labels, np.arange(n)] + rng.normal(0, 0.5, (n, 48))
    return _split("waves", _floats(signal[:, None]), torch.tensor(labels), 800, 200, 5)


def clusters() -> Task:
    """Ten classes in thirty dimensions, two clusters each."""
    x, y = datasets.make_classification(
        n_samples=5000, n_features=30, n_informative=12, n_redundant=6, n_classes=10, n_clusters_per_class=2,
        class_sep=1.6, flip_y=0.03, random_state=5,
    )  # fmt: skip
    return _split("clusters", _floats(x), torch.tensor(y), 1200, 300, 10)


def checkerboard() -> Task:
    """The colour of a field of a board of 4 by 4, three per cent wrong; one logit."""
    rng = np.random.default_rng(6)
    x = rng.uniform(0, 4, (4500, 2))
    colour = (np.floor(x).sum(1) % 2).astype(int) ^ (rng.random(4500) < 0.03)
    return _split("checkerboard", _floats(x), _floats(colour), 900, 250, 1)


def arm() -> Task:
    """The distance of a three-jointed robot arm's hand from a target, from its angles and lengths; some noise."""
    rng = np.random.default_rng(7)
    n = 4200
    angles, lengths = rng.uniform(-2, 2, (n, 3)), rng.uniform(0.5, 1.5, (n, 3))
    total = angles.cumsum(1)
    hand = np.stack([(lengths * np.cos(total)).sum(1), (lengths * np.sin(total)).sum(1)], 1)
    target = rng.normal(0, 1, (n, 2))
    y = np.hypot(*(hand - target).T) + rng.normal(0, 0.15, n)
    return _split("arm", _floats(np.c_[angles, lengths, target]), _floats(y), 1000, 250, 0)


def pictures() -> Task:
    """Handwritten digits to be drawn again from a narrow code."""
    x, _ = datasets.load_digits(return_X_y=True)
    image = _floats(x / 16.0).view(-1, 1, 8, 8)
    return _split("pictures", image, image.flatten(1), 800, 200, 0)


def recall() -> Task:
    """Eight tokens, a pause, then the same eight tokens again; the targets of the pause are the pause."""
    g = torch.Generator().manual_seed(8)
    first = torch.randint(1, 9, (3000, 6), generator=g)
    pause, quiet = torch.zeros(3000, 3, dtype=torch.long), torch.zeros(3000, 6, dtype=torch.long)
    x = torch.cat([first, pause, torch.full_like(quiet, 9)], 1)
    y = torch.cat([quiet, pause, first], 1)
    return _split("recall", x, y, 1200, 200, 10, 10)


def sorting() -> Task:
    """Ten digits, to be given back in order."""
    x = torch.randint(0, 10, (4000, 8), generator=torch.Generator().manual_seed(9))
    return _split("sorting", x, x.sort(1).values, 1200, 250, 10, 10)


TASKS: dict[str, Callable[[], Task]] = {
    f.__name__: f
    for f in (
        digits, blobs, friedman, text, spirals, textures, cancer, tally, pairs,
        shapes, waves, clusters, checkerboard, arm, pictures, recall, sorting,
    )
}  # fmt: skip


@cache
def load(name: str) -> Task:
    """The task, made once per process."""
    return TASKS[name]()
