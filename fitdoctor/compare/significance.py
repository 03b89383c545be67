"""Could seeds alone have made the difference? Exact permutation tests, and what they can reach at all.

A permutation test of n pairs has 2^n arrangements, so its two-sided p cannot fall below 2 / 2^n: 3 pairs never
reach p < 0.05, whatever they show; 6 pairs do. This is said instead of a p-value where it is so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np

from fitdoctor.run import FloatArray

LEVEL = 0.05
"""The conventional significance level; two-sided."""

MOST_ARRANGEMENTS = 1 << 16
"""More arrangements than these are sampled, with a fixed seed."""

SAMPLED = 19_999

Method = Literal["sign flips of pairs", "exchange of labels", "none"]


@dataclass(frozen=True, slots=True)
class Significance:
    """What a permutation test says of a difference between two sides.

    Attributes:
        method: "sign flips of pairs", "exchange of labels", or "none" with one run per side.
        before, after: number of runs.
        p: two-sided p-value; 1 where no test is possible.
        smallest: the smallest p that this many runs can reach.
        interval: 95 % interval of the difference of means (Student's t), None below two runs or with failed ones.
    """

    method: Method
    before: int
    after: int
    p: float
    smallest: float
    interval: tuple[float, float] | None = None

    @property
    def possible(self) -> bool:
        """Whether this many runs can reach p < 0.05 at all."""
        return self.smallest < LEVEL

    @property
    def reached(self) -> bool:
        """Whether p < 0.05."""
        return self.p < LEVEL


def significance(before: Sequence[float], after: Sequence[float], *, paired: bool) -> Significance:
    """Test the difference between two sides.

    Args:
        before: one value per run; inf for a run that failed.
        after: likewise.
        paired: value i of both sides belongs together (same seed, same data order).

    Raises:
        ValueError: if pairs are asked for and the sides differ in number.
    """
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if paired and len(a) != len(b):
        raise ValueError(f"pairs need as many runs before as after, got {len(a)} and {len(b)}")
    if min(len(a), len(b)) == 0 or len(a) + len(b) < 3:
        return Significance("none", len(a), len(b), 1.0, 1.0)
    if paired:
        p, smallest = _sign_flips(_differences(a, b))
        return Significance("sign flips of pairs", len(a), len(b), p, smallest, _interval(a, b, paired=True))
    p, smallest = _exchanges(a, b)
    return Significance("exchange of labels", len(a), len(b), p, smallest, _interval(a, b, paired=False))


def _differences(a: FloatArray, b: FloatArray) -> FloatArray:
    """After minus before; ranks with a sign where a run failed, so that one inf does not decide alone."""
    with np.errstate(invalid="ignore"):
        d = np.where(a == b, 0.0, b - a)
    return d if bool(np.isfinite(d).all()) else np.asarray(np.sign(d) * _ranks(np.abs(d)), dtype=np.float64)


def _sign_flips(d: FloatArray) -> tuple[float, float]:
    n = len(d)
    smallest = 2.0 / 2.0**n
    observed = abs(float(d.sum()))
    if 2**n <= MOST_ARRANGEMENTS:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
        return _share(np.abs(signs @ d), observed), smallest
    signs = np.random.default_rng(0).choice([1.0, -1.0], (SAMPLED, n))
    return _sampled_share(np.abs(signs @ d), observed), max(smallest, 1 / (SAMPLED + 1))


def _exchanges(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    pooled = np.concatenate([a, b])
    if not bool(np.isfinite(pooled).all()):
        pooled = _ranks(pooled)
    pooled = pooled - pooled.mean()  # then the sum over one side says all about the difference of means
    n, k = len(pooled), len(a)
    count = math.comb(n, k)
    smallest = (2.0 if len(a) == len(b) else 1.0) / count
    observed = abs(float(pooled[:k].sum()))
    if count <= MOST_ARRANGEMENTS:
        sums = np.array([pooled[list(chosen)].sum() for chosen in combinations(range(n), k)])
        return _share(np.abs(sums), observed), smallest
    generator = np.random.default_rng(0)
    sums = np.array([generator.permutation(pooled)[:k].sum() for _ in range(SAMPLED)])
    return _sampled_share(np.abs(sums), observed), max(smallest, 1 / (SAMPLED + 1))


def _share(statistics: FloatArray, observed: float) -> float:
    """Share of arrangements at least as extreme; equal ones differ by rounding only."""
    return float(np.mean(statistics >= observed - 1e-9 * max(float(statistics.max()), 1e-300)))


def _sampled_share(statistics: FloatArray, observed: float) -> float:
    """The same from a sample, the observed arrangement counted in (Davison & Hinkley 1997, section 4.3)."""
    hits = int(np.sum(statistics >= observed - 1e-9 * max(float(statistics.max()), 1e-300)))
    return (hits + 1) / (len(statistics) + 1)


def _ranks(values: FloatArray) -> FloatArray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _interval(a: FloatArray, b: FloatArray, *, paired: bool) -> tuple[float, float] | None:
    """95 % interval of mean(b) - mean(a), Student's t for pairs and Welch's for two groups."""
    if min(len(a), len(b)) < 2 or not bool(np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    from scipy.stats import t

    if paired:
        d = b - a
        error, freedom, middle = float(d.std(ddof=1)) / math.sqrt(len(d)), float(len(d) - 1), float(d.mean())
    else:
        va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
        error, middle = math.sqrt(va + vb), float(b.mean() - a.mean())
        spread = va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)
        freedom = (va + vb) ** 2 / spread if spread > 0 else float(len(a) + len(b) - 2)
    half = float(t.ppf(0.975, freedom)) * error
    return middle - half, middle + half
