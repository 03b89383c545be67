"""Permutation tests of a setting against what became of the configurations.

The unit that is exchanged is a configuration, never a run: seeds of one configuration are no independent trials of
a setting. The statistic looks for the stretch of values that differs most from the rest, and every rearrangement
looks as hard, so the search is paid for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from fitdoctor.compare.significance import MOST_ARRANGEMENTS
from fitdoctor.run import FloatArray, IntArray

SAMPLED = 9_999
"""Rearrangements where they are too many to be counted out."""

_FEWEST_SAMPLED = 1_999
_MOST_CELLS = 20_000_000
"""Numbers held at a time."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A test of one setting.

    Attributes:
        p: share of arrangements at least as extreme as the one observed.
        smallest: the smallest p that any arrangement of these outcomes reaches.
        explained: share of the variance of the outcomes that lies between the stretch, or the words, and the rest.
        first, last: the stretch of levels that differs most; of no meaning for words.
        higher: the outcome is higher inside the stretch.
    """

    p: float
    smallest: float
    explained: float
    first: int
    last: int
    higher: bool


@dataclass(frozen=True, slots=True, eq=False)
class Arrangements:
    """Outcomes as they could have fallen on the configurations, had chance alone dealt them out.

    Attributes:
        outcome: float64[n], as observed, minus the mean of the stratum.
        columns: float64[n, many], likewise.
        exact: whether these are all there are.
        strata: int64[n] within which outcomes were exchanged; None for all with all.
    """

    outcome: FloatArray
    columns: FloatArray
    exact: bool
    strata: IntArray | None = None


def arrange(outcome: Sequence[float], strata: Sequence[int] | None = None) -> Arrangements:
    """All arrangements of the outcomes, or a sample of them.

    Args:
        outcome: float[n], such as 1 for sick and 0 for healthy.
        strata: int[n]; outcomes are exchanged within a stratum only, and compared with its mean.
    """
    y = np.asarray(outcome, np.float64)
    within = None if strata is None else np.asarray(strata, np.int64)
    columns, exact = _arrangements(y, within)
    return Arrangements(_centred(y, within), _centred(columns, within), exact, within)


def compare_levels(level: Sequence[int], arranged: Arrangements, *, ordered: bool) -> Tested:
    """Test whether outcomes differ between levels.

    Args:
        level: int[n], level of each configuration, 0 to m-1, in order where that means something.
        arranged: the outcomes of the configurations, and how they could have fallen.
        ordered: look for a stretch of levels; otherwise for any differences.
    """
    y, exact = arranged.outcome, arranged.exact
    levels = np.asarray(level, np.int64)
    members = np.zeros((int(levels.max(initial=0)) + 1, len(y)))
    members[levels, np.arange(len(y))] = 1.0
    observed, first, last, higher = _statistic(members, y[:, None], ordered=ordered)
    found = np.concatenate(
        [
            _statistic(members, block, ordered=ordered)[0]
            for block in np.array_split(arranged.columns, arranged.columns.size // _MOST_CELLS + 1, axis=1)
        ]
    )
    edge = 1e-9 * max(float(found.max(initial=0.0)), 1e-300)
    hits = int(np.sum(found >= observed[0] - edge))
    total = float(np.sum(y**2))
    return Tested(
        # The observed arrangement is counted in (Davison & Hinkley 1997, section 4.3).
        p=hits / len(found) if exact else (hits + 1) / (len(found) + 1),
        smallest=float(np.mean(found >= found.max() - edge)) if exact else 1 / (len(found) + 1),
        explained=float(observed[0]) / total if total > 0 else 0.0,
        first=int(first[0]),
        last=int(last[0]),
        higher=bool(higher[0]),
    )


def _centred(y: FloatArray, strata: IntArray | None) -> FloatArray:
    """Outcomes minus the mean of their stratum, along the first axis."""
    if strata is None:
        return np.asarray(y - y.mean(axis=0), np.float64)
    out = np.array(y, np.float64)
    for stratum in np.unique(strata):
        out[strata == stratum] -= out[strata == stratum].mean(axis=0)
    return out


def _statistic(
    members: FloatArray, y: FloatArray, *, ordered: bool
) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """Sum of squares between levels, per column of `y` (which has mean 0); with the stretch where it is largest."""
    counts, sums = members.sum(axis=1), members @ y
    n, none = float(counts.sum()), np.zeros(y.shape[1], np.int64)
    if not ordered:
        between = (sums**2 / np.maximum(counts, 1.0)[:, None]).sum(axis=0)
        return between, none, none, none.astype(np.float64)
    best = np.zeros(y.shape[1])
    first, last, higher = none.copy(), none.copy(), none.astype(np.float64)
    before, size = np.vstack([np.zeros((1, y.shape[1])), np.cumsum(sums, axis=0)]), np.r_[0.0, np.cumsum(counts)]
    for i in range(len(counts)):
        for j in range(i, len(counts)):
            inside = size[j + 1] - size[i]
            if inside in (0.0, n):
                continue
            total = before[j + 1] - before[i]
            between = total**2 * n / (inside * (n - inside))  # as the rest sums to -total
            larger = between > best + 1e-12
            best = np.where(larger, between, best)
            first, last = np.where(larger, i, first), np.where(larger, j, last)
            higher = np.where(larger, total > 0, higher)
    return best, first, last, higher


def _arrangements(y: FloatArray, strata: IntArray | None) -> tuple[FloatArray, bool]:
    """Arrangements of the outcomes, float64[n, many], and whether they are all there are."""
    n = len(y)
    if strata is None:
        ones = int((y == 1).sum())
        if bool(np.isin(y, (0.0, 1.0)).all()) and math.comb(n, ones) <= MOST_ARRANGEMENTS:
            out = np.zeros((n, math.comb(n, ones)))
            for column, chosen in enumerate(combinations(range(n), ones)):
                out[list(chosen), column] = 1.0
            return out, True
        if n <= 7:
            return np.array(list(permutations(y.tolist()))).T, True
    many = int(np.clip(_MOST_CELLS // max(n, 1), _FEWEST_SAMPLED, SAMPLED))
    generator = np.random.default_rng(0)
    out = np.repeat(y[:, None], many, axis=1)
    for stratum in (0,) if strata is None else np.unique(strata):
        rows = np.arange(n) if strata is None else np.flatnonzero(strata == stratum)
        out[rows] = generator.permuted(out[rows], axis=0)
    return out, False
