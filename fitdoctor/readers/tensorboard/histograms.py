"""Histograms of an event file, reduced to the statistics that rules use.

Extremes, mean, standard deviation and norm are exact where the histogram carries its moments (TensorFlow 1,
torch); everything else is as fine as the buckets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fitdoctor.readers.raw import Statistic
from fitdoctor.run import FloatArray, IntArray

NARROW = 1e-3
"""A bucket around zero counts as "almost zero" when it is no wider than this share of the root mean square."""

_SHARES = np.array([0.5, 0.05, 0.95])  # of the entries: the median, and the ends of `spread`


@dataclass(slots=True)
class Histograms:
    """The histograms of one tag, in file order, before they are reduced.

    Attributes:
        moments: min, max, num, sum and sum of squares of each.
        edges: right edge of each bucket, float64[k] per histogram, preceded by the left edge of the first.
        counts: float64[k - 1] entries in each bucket.
    """

    steps: list[int] = field(default_factory=list)
    wall_times: list[float] = field(default_factory=list)
    moments: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    edges: list[FloatArray] = field(default_factory=list)
    counts: list[FloatArray] = field(default_factory=list)

    def add_proto(
        self,
        step: int,
        wall_time: float,
        moments: tuple[float, float, float, float, float],
        limits: FloatArray,
        counts: FloatArray,
    ) -> bool:
        """Add a HistogramProto; False when it holds no entry or its buckets make no sense."""
        n = min(len(limits), len(counts))
        if not moments[2] > 0:
            return False
        # The proto has right edges only; the smallest entry bounds the first bucket from the left.
        low = min(moments[0], float(limits[0])) if n else moments[0]
        edges = np.concatenate(([low], limits[:n]))
        return self._add(step, wall_time, moments, edges, counts[:n])

    def add_tensor(self, step: int, wall_time: float, rows: FloatArray) -> bool:
        """Add a histogram of TensorFlow 2, float64[k, 3] of left edge, right edge and count."""
        if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows):
            return False
        left, right, count = rows[:, 0], rows[:, 1], rows[:, 2]
        with np.errstate(all="ignore"):
            total = float(count.sum())
            centre = (left + right) / 2
            if not total > 0:
                return False
            moments = (
                float(left[count > 0].min()),
                float(right[count > 0].max()),
                total,
                float((centre * count).sum()),
                # A uniform spread within a bucket has the mean square c^2 + width^2 / 12.
                float(((centre**2 + (right - left) ** 2 / 12) * count).sum()),
            )
        return self._add(step, wall_time, moments, np.concatenate((left[:1], right)), count.copy())

    def _add(
        self,
        step: int,
        wall_time: float,
        moments: tuple[float, float, float, float, float],
        edges: FloatArray,
        counts: FloatArray,
    ) -> bool:
        if len(counts) and (np.any(np.diff(edges) < 0) or np.any(counts < 0) or np.isnan(edges).any()):
            edges, counts = edges[:1], counts[:0]  # broken buckets: what the moments say still holds
        self.steps.append(step)
        self.wall_times.append(wall_time)
        self.moments.append(moments)
        self.edges.append(edges)
        self.counts.append(counts)
        return True

    def reduce(self) -> dict[Statistic, tuple[IntArray, FloatArray]]:
        """Index and values of each statistic: int64[m] histograms it could be taken of, float64[m]."""
        low, high, num, total, squares = np.array(self.moments, np.float64).T
        with np.errstate(all="ignore"):
            mean = total / num
            out: dict[Statistic, FloatArray] = {
                "norm": np.sqrt(squares),
                "absmax": np.maximum(np.abs(low), np.abs(high)),
                "mean": mean,
                "std": np.sqrt(np.maximum(squares / num - mean**2, 0.0)),
            }
            rms = np.sqrt(squares / num)
            median, lower, upper = self._quantiles(low, high).T
            out["median"] = median
            out["spread"] = upper - lower
            out["zero_fraction"] = self._zero_fraction(low, high, rms)
        every = np.arange(len(num))
        known = {
            name: every if name in ("norm", "absmax", "mean", "std") else np.flatnonzero(~np.isnan(values))
            for name, values in out.items()
        }
        return {name: (index, out[name][index]) for name, index in known.items() if len(index)}

    def _quantiles(self, low: FloatArray, high: FloatArray) -> FloatArray:
        """Median, 5th and 95th percentile by linear interpolation inside the bucket; nan where there are no buckets.

        Returns:
            float64[n, 3].
        """
        out = np.full((len(low), 3), np.nan)
        for i, (edges, counts) in enumerate(zip(self.edges, self.counts, strict=True)):
            below = np.cumsum(counts)
            if len(counts) and 0 < below[-1] < np.inf:
                # Outer buckets may reach to +-1.8e308; the true extremes are known.
                known = np.clip(edges, low[i], high[i])
                out[i] = np.interp(_SHARES * below[-1], np.concatenate(([0.0], below)), known)
        return out

    def _zero_fraction(self, low: FloatArray, high: FloatArray, rms: FloatArray) -> FloatArray:
        """Share of entries in the bucket that holds zero, float64[n]; nan where that bucket is not narrow.

        Writers of TensorFlow's default buckets close one at +-1e-12; with a few equally wide
        buckets the one around zero says nothing about zeros.
        """
        out = np.full(len(low), np.nan)
        out[(low > 0) | (high < 0)] = 0.0
        out[(low == 0) & (high == 0)] = 1.0
        for i in np.flatnonzero(np.isnan(out)):
            edges, counts = self.edges[i], self.counts[i]
            total = float(counts.sum())
            # A value of exactly zero stands in the bucket [left, right) with left <= 0 < right.
            at = int(np.searchsorted(edges, 0.0, side="right")) - 1
            if not total > 0 or not 0 <= at < len(counts):
                continue
            left, right = max(edges[at], low[i]), min(edges[at + 1], high[i])
            if edges[at + 1] - edges[at] <= NARROW * rms[i] or left == 0 == right:
                out[i] = counts[at] / total
        return out
