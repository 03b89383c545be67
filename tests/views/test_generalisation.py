"""The test for a regress after the best: how often it cries wolf, and how much it sees.

Monte Carlo with fixed seeds on artificial curves; what real trainings look like is tests/rules/fit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from fitdoctor.rules.fit.fit001_overfitting import overfitting
from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import LOSS, Signal
from fitdoctor.views.curves import Curve, make_curve
from fitdoctor.views.generalisation import MOST_WANDER, regress, worsened
from hypothesis import given
from hypothesis import strategies as st

DRAWS = 200


def curve_of(values: FloatArray) -> Curve:
    return make_curve(Series(Signal(LOSS, "val"), np.arange(len(values)), values))


def run_of(train: FloatArray, val: FloatArray) -> Run:
    steps = np.arange(1, len(val) + 1) * 100
    return Run("synthetic", (Series(Signal(LOSS), steps, train), Series(Signal(LOSS, "val"), steps, val)))


def ar1(rng: np.random.Generator, n: int, rho: float) -> FloatArray:
    """Unit-variance noise whose neighbours correlate by rho."""
    drive = rng.standard_normal(n)
    values = np.empty(n)
    values[0] = drive[0]
    for i in range(1, n):
        values[i] = rho * values[i - 1] + math.sqrt(1 - rho**2) * drive[i]
    return values


def healthy(rng: np.random.Generator, n: int, rho: float, noise: float) -> Run:
    """From 2.3 to a plateau at 1 while training falls on; noise is a share of the loss."""
    t = np.arange(n) / n
    val = (1 + 1.3 * np.exp(-8 * t)) * (1 + noise * ar1(rng, n, rho))
    return run_of(0.95 + 1.35 * np.exp(-8 * t) - 0.1 * t + 0.01 * rng.standard_normal(n), val)


def overfitted(rng: np.random.Generator, n: int, rise: float, noise: float) -> Run:
    """The same, but from 35 % on val rises in a straight line by a share of its range."""
    t = np.arange(n) / n
    val = 1 + 1.3 * np.exp(-12 * t) + 1.3 * rise * np.clip((t - 0.35) / 0.65, 0, None)
    return run_of(
        0.9 + 1.4 * np.exp(-12 * t) - 0.3 * t + 0.01 * rng.standard_normal(n),
        val * (1 + noise * rng.standard_normal(n)),
    )


@pytest.mark.parametrize("n", [10, 20, 50, 100])
@pytest.mark.parametrize("noise", [0.02, 0.04, 0.06])
@pytest.mark.parametrize(("rho", "most"), [(0.0, 0.01), (0.3, 0.02), (0.5, 0.04), (0.7, 0.07)])
def test_overfitting_is_rarely_found_on_a_healthy_plateau(n: int, noise: float, rho: float, most: float) -> None:
    rng = np.random.default_rng(n)
    alarms = [bool(list(overfitting(healthy(rng, n, rho, noise)))) for _ in range(DRAWS)]
    assert np.mean(alarms) <= most


def test_overfitting_is_found_on_less_than_2_percent_of_healthy_plateaus_over_all() -> None:
    rng = np.random.default_rng(0)
    alarms = [
        bool(list(overfitting(healthy(rng, int(rng.integers(10, 101)), rng.uniform(0, 0.7), rng.uniform(0.02, 0.06)))))
        for _ in range(1000)
    ]
    assert np.mean(alarms) < 0.02


@pytest.mark.parametrize("n", [20, 30, 50, 100])
@pytest.mark.parametrize("noise", [0.002, 0.02])
def test_a_rise_by_a_fifth_of_the_range_is_found(n: int, noise: float) -> None:
    rng = np.random.default_rng(n)
    assert np.mean([bool(list(overfitting(overfitted(rng, n, 0.2, noise)))) for _ in range(DRAWS)]) >= 0.9


@pytest.mark.parametrize(("n", "rise", "noise"), [(10, 0.4, 0.02), (20, 0.4, 0.04), (50, 0.2, 0.04), (100, 0.1, 0.02)])
def test_a_rise_that_is_large_for_its_noise_is_found(n: int, rise: float, noise: float) -> None:
    rng = np.random.default_rng(n)
    assert np.mean([bool(list(overfitting(overfitted(rng, n, rise, noise)))) for _ in range(DRAWS)]) >= 0.9


def test_a_rise_that_drowns_in_its_noise_is_not_claimed() -> None:
    rng = np.random.default_rng(1)
    assert np.mean([bool(list(overfitting(overfitted(rng, 20, 0.05, 0.06)))) for _ in range(DRAWS)]) <= 0.1


def test_the_best_is_where_the_smoothed_curve_is_lowest_and_the_rise_is_counted_from_there() -> None:
    values = np.r_[np.linspace(5, 1, 20), np.linspace(1.05, 3, 20)]
    found = regress(curve_of(values))
    assert found is not None
    assert abs(found.best_index - 19) <= 1
    assert found.rise == pytest.approx(1.8, abs=0.2)
    assert found.share == pytest.approx(found.rise / 4, rel=0.05)
    assert found.p < 1e-4
    assert worsened(found, errors=3, share=0.05, p=0.05)
    assert not worsened(found, errors=3, share=0.6, p=0.05)
    assert not worsened(None, errors=3, share=0.05, p=0.05)


def test_a_jump_after_the_best_that_stays_has_no_trend_and_counts() -> None:
    for after, trend in ((np.full(40, 3.0), False), (np.linspace(3.5, 2.5, 40), False), (np.linspace(2, 3, 40), True)):
        found = regress(curve_of(np.r_[np.linspace(5, 1, 10), after]))
        assert found is not None
        assert (found.p < 1e-6) == trend
        assert found.kept > 0.3
        assert worsened(found, errors=3, share=0.05, p=0.05)
    passing = regress(curve_of(np.r_[np.linspace(5, 1, 10), np.linspace(3.0, 1.0, 40)]))
    assert not worsened(passing, errors=3, share=0.05, p=0.05)


def test_too_little_after_the_best_is_no_regress() -> None:
    assert regress(curve_of(np.linspace(5, 1, 40))) is None
    assert regress(curve_of(np.r_[np.linspace(5, 1, 30), 3.0])) is None


def test_correlated_noise_widens_the_error_and_independent_noise_does_not() -> None:
    rng = np.random.default_rng(4)

    def widening(rho: float) -> float:
        """Median of (standard error of independent noise) over (standard error used)."""
        ratios = []
        for _ in range(60):
            curve = curve_of(1 + 1.3 * np.exp(-np.arange(100) / 5) + 0.04 * ar1(rng, 100, rho))
            found = regress(curve)
            if found is None or found.rise <= 0:
                continue
            last = max(2, (100 - found.best_index) // 4)
            plain = 1.25 * curve.noise * math.sqrt(1 / last + 1 / 5)
            ratios.append(found.rise / found.errors / plain)
        return float(np.median(ratios))

    assert widening(0.0) == pytest.approx(1.0, abs=0.15)
    assert 1.3 < widening(0.5) < 2.2
    assert 2.0 < widening(0.8) <= MOST_WANDER + 1e-9


@given(st.lists(st.integers(-100, 100), min_size=8, max_size=60), st.integers(-3, 3), st.integers(-1000, 1000))
def test_a_regress_ignores_the_unit_of_the_loss(values: list[int], power: int, shift: int) -> None:
    plain = regress(curve_of(np.array(values, dtype=np.float64)))
    moved = regress(curve_of(np.array(values) * 2.0**power + shift))
    assert (plain is None) == (moved is None)
    if plain is None or moved is None:
        return
    assert moved.best_index == plain.best_index
    assert moved.rise == pytest.approx(plain.rise * 2.0**power)
    assert (moved.errors, moved.p, moved.share) == pytest.approx((plain.errors, plain.p, plain.share))
