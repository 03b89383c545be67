"""Inputs as a table of numbers, and the plain models and tests that run on it without torch's help."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitdoctor.preflight.batches import Batch
from fitdoctor.rule import CannotJudge
from fitdoctor.run import FloatArray, IntArray

WIDTH = 256
"""Columns kept: wider inputs are projected at random, which keeps distances (Johnson and Lindenstrauss 1984)."""


def table(batch: Batch, projection: NDArray[np.float64] | None = None) -> tuple[FloatArray, NDArray[np.float64] | None]:
    """The inputs as float64[n, at most WIDTH], and the projection that made it so narrow.

    Raises:
        CannotJudge: if the inputs are ids (integers), hold no row per example, or are not finite.
    """
    x = batch.x
    if x is None:
        raise CannotJudge("the inputs hold no tensor with one row per example")
    if not x.is_floating_point() and x.dtype.itemsize > 1:
        raise CannotJudge("the inputs are ids, not measurements")
    rows: FloatArray = x.detach().cpu().reshape(len(x), -1).double().numpy()
    if not np.isfinite(rows).all():
        raise CannotJudge("the inputs are not finite")
    if rows.shape[1] > WIDTH:
        if projection is None:
            projection = np.random.default_rng(0).normal(size=(rows.shape[1], WIDTH)) / WIDTH**0.5
        rows = rows @ projection
    return rows, projection


def standardised(train: FloatArray, *others: FloatArray) -> list[FloatArray]:
    """Tables with the mean and standard deviation of the first taken out."""
    mean, std = train.mean(0), train.std(0)
    std = np.where(std > 1e-12 * max(1.0, float(np.abs(train).max())), std, 1.0)
    return [(t - mean) / std for t in (train, *others)]


def ridge(x: FloatArray, y: FloatArray, strength: float = 1.0) -> FloatArray:
    """Weights of a linear model with intercept, float64[d + 1, k], least squares with a penalty."""
    a = np.column_stack([x, np.ones(len(x))])
    penalty = strength * np.eye(a.shape[1])
    penalty[-1, -1] = 0.0
    return np.asarray(np.linalg.solve(a.T @ a + penalty, a.T @ y), np.float64)


def applied(weights: FloatArray, x: FloatArray) -> FloatArray:
    """Predictions of `ridge`."""
    out: FloatArray = x @ weights[:-1] + weights[-1]
    return out


def distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean distances, float64[len(a), len(b)]."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    out: FloatArray = np.sqrt(np.maximum(squares, 0.0))
    return out


def neighbours(train: FloatArray, labels: FloatArray, x: FloatArray, k: int = 5) -> FloatArray:
    """Mean label of the k nearest training examples, float64[len(x), columns of labels]."""
    nearest = np.argpartition(distances(x, train), min(k, len(train) - 1), axis=1)[:, :k]
    out: FloatArray = labels[nearest].mean(1)
    return out


def auc(scores: FloatArray, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Area under the ROC curve and its standard error (Hanley and McNeil 1982)."""
    from scipy.stats import rankdata

    n, m = int(positive.sum()), int((~positive).sum())
    area = (float(rankdata(scores)[positive].sum()) - n * (n + 1) / 2) / (n * m)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
    return area, float(np.sqrt(max(variance, 0.0) / (n * m)))


@dataclass(frozen=True, slots=True)
class Baselines:
    """What plain models reach on held-out examples: shares of correct answers, or shares of variance explained."""

    constant: float
    linear: float
    nearest: float
    n: int
    classes: bool

    @property
    def best(self) -> float:
        """The better of the two models."""
        return max(self.linear, self.nearest)


def baselines(x: FloatArray, y: FloatArray | IntArray, x_val: FloatArray, y_val: FloatArray | IntArray) -> Baselines:
    """A constant, a linear model and five nearest neighbours, fitted on one table and measured on the other."""
    x, x_val = standardised(x, x_val)
    if np.issubdtype(y.dtype, np.integer):
        classes = np.unique(y)
        hot = (y[:, None] == classes[None]).astype(np.float64)
        right = [
            float(np.mean(classes[scores.argmax(1)] == y_val))
            for scores in (applied(ridge(x, hot), x_val), neighbours(x, hot, x_val))
        ]
        # The best constant in hindsight: among classes of one size, which leads differs from split to split by chance.
        constant = max(float(np.mean(y_val == c)) for c in classes)
        return Baselines(constant, right[0], right[1], len(y_val), True)
    y2 = y.reshape(len(y), -1).astype(np.float64)
    y2_val = y_val.reshape(len(y_val), -1).astype(np.float64)
    total = float(((y2_val - y2.mean(0)) ** 2).mean()) or 1.0
    explained = [
        1 - float(((guess - y2_val) ** 2).mean()) / total
        for guess in (applied(ridge(x, y2), x_val), neighbours(x, y2, x_val))
    ]
    return Baselines(0.0, explained[0], explained[1], len(y_val), False)
