"""`fitdoctor.stats` against slow references, scipy, and what has to hold for any input."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from fitdoctor.stats import (
    FloatArray,
    autocorrelation,
    block_edges,
    block_medians,
    change_point,
    forecast,
    log10_safe,
    mad_sigma,
    noise_scale,
    running_median,
    smooth,
    spike_z,
    trend,
    turning_fraction,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

ANY_SIZE = st.sampled_from([0.0, 1e-200, 1e-30, 1e-3, 1.0, 1e4, 1e38, 1e150])
"""Magnitudes that a log can hold: nothing, underflow, ordinary losses, the end of float32, beyond it."""


@st.composite
def series(draw: st.DrawFn, least: int = 0, most: int = 300) -> FloatArray:
    """Finite values of one magnitude, a share of them equal, sometimes around an offset."""
    n = draw(st.integers(least, most))
    scale = draw(ANY_SIZE)
    unit = st.floats(-1, 1, allow_subnormal=False)
    values = draw(arrays(np.float64, n, elements=unit, fill=unit))
    return values * scale + draw(st.sampled_from([0.0, 1.0, -5.0])) * scale


def ordinary(least: int = 0, most: int = 200) -> st.SearchStrategy[FloatArray]:
    """Whole numbers, so that shifting and scaling by powers of two is exact."""
    return arrays(np.int64, st.integers(least, most), elements=st.integers(-1000, 1000)).map(lambda a: a * 1.0)


# --- scales ---------------------------------------------------------------------------------------


def test_mad_sigma_is_the_scipy_median_abs_deviation() -> None:
    values = np.random.default_rng(1).standard_normal(501)
    assert mad_sigma(values) == pytest.approx(scipy.stats.median_abs_deviation(values, scale="normal"), rel=1e-4)
    assert mad_sigma(values[:1]) == 0.0
    assert mad_sigma(values[:0]) == 0.0


@pytest.mark.parametrize("n", [10, 30, 100, 1000])
@pytest.mark.parametrize("slope", [0.0, -0.5, 5.0])
def test_noise_scale_finds_the_noise_under_any_trend(n: int, slope: float) -> None:
    rng = np.random.default_rng(n)
    found = [noise_scale(np.linspace(0, slope * n, n) + rng.standard_normal(n)) for _ in range(200)]
    assert np.median(found) == pytest.approx(1.0, rel=0.15)


def test_noise_scale_is_not_moved_by_outliers_or_a_steep_beginning() -> None:
    rng = np.random.default_rng(0)
    values = 3 * np.exp(-np.arange(400) / 10) + 0.01 * rng.standard_normal(400)
    values[[100, 200, 300]] += 50
    assert noise_scale(values) == pytest.approx(0.01, rel=0.2)


@given(ordinary(), st.integers(-1000, 1000), st.integers(-3, 3))
def test_scales_ignore_a_shift_and_follow_a_factor(values: FloatArray, shift: int, power: int) -> None:
    for scale in (mad_sigma, noise_scale):
        assert scale(values + shift) == scale(values)
        assert scale(values * 2.0**power) == pytest.approx(scale(values) * 2.0**power)
        assert scale(-values) == pytest.approx(scale(values))


# --- medians --------------------------------------------------------------------------------------


def slow_running_median(values: FloatArray, window: int) -> FloatArray:
    n, half = len(values), window // 2
    reach = [min(half, i, n - 1 - i) for i in range(n)]
    return np.array([np.median(values[i - r : i + r + 1]) for i, r in enumerate(reach)])


@given(ordinary(), st.sampled_from([1, 3, 5, 7, 21]))
def test_running_median_is_the_median_of_a_shrinking_window(values: FloatArray, window: int) -> None:
    assert running_median(values, window).tolist() == slow_running_median(values, window).tolist()


@given(ordinary(least=5))
def test_running_median_agrees_with_scipy_away_from_the_ends(values: FloatArray) -> None:
    theirs = scipy.ndimage.median_filter(values, 5)
    assert running_median(values, 5)[2:-2].tolist() == theirs[2:-2].tolist()


def test_smooth_removes_one_outlier_and_keeps_both_ends() -> None:
    for n in (10, 40):
        values = np.arange(n, dtype=np.float64)
        values[n // 2] = 1e6
        assert np.abs(smooth(values) - np.arange(n)).max() <= 1
        assert smooth(values)[[0, -1]].tolist() == [0, n - 1]


@given(st.integers(0, 5000), st.integers(1, 200))
def test_blocks_cover_everything_once_and_evenly(n: int, blocks: int) -> None:
    edges = block_edges(n, blocks)
    assert edges[0] == 0
    assert edges[-1] == n
    sizes = np.diff(edges)
    assert len(sizes) == min(n, blocks)
    if len(sizes):
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1


@given(ordinary(), st.integers(1, 60))
def test_block_medians_are_medians_of_the_blocks(values: FloatArray, blocks: int) -> None:
    edges = block_edges(len(values), blocks)
    expected = [float(np.median(values[a:b])) for a, b in pairwise(edges)]
    assert block_medians(values, blocks).tolist() == expected


def test_block_medians_never_hand_out_the_input() -> None:
    values = np.arange(5.0)
    block_medians(values)[0] = 99
    running_median(values, 1)[0] = 99
    assert values[0] == 0


# --- trend ----------------------------------------------------------------------------------------


@given(ordinary(least=3, most=60))
def test_trend_is_theil_sen(values: FloatArray) -> None:
    assert trend(values).slope == pytest.approx(float(scipy.stats.theilslopes(values)[0]), abs=1e-12)


@given(ordinary(least=3, most=40))
def test_trend_significance_is_mann_kendall(values: FloatArray) -> None:
    """Against the textbook formula, written as loops."""
    n = len(values)
    s = sum(int(np.sign(values[j] - values[i])) for i in range(n) for j in range(i + 1, n))
    counts = [int((values == v).sum()) for v in set(values.tolist())]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in counts)) / 18
    found = trend(values)
    if variance <= 0:
        assert (found.p_up, found.p_down) == (1.0, 1.0)
        return
    assert found.p_up == pytest.approx(float(scipy.stats.norm.sf((s - 1) / math.sqrt(variance))), abs=1e-12)
    assert found.p_down == pytest.approx(float(scipy.stats.norm.sf((-s - 1) / math.sqrt(variance))), abs=1e-12)


@pytest.mark.parametrize("n", [8, 12, 30])
def test_trend_significance_agrees_with_the_exact_distribution_of_kendalls_tau(n: int) -> None:
    rng = np.random.default_rng(n)
    for strength in (0.0, 0.05, 0.2):
        values = strength * np.arange(n) + rng.standard_normal(n)
        exact = scipy.stats.kendalltau(np.arange(n), values, alternative="greater", method="exact").pvalue
        assert trend(values).p_up == pytest.approx(exact, abs=0.02)


@given(ordinary(), st.integers(-1000, 1000), st.integers(-3, 3))
def test_trend_ignores_a_shift_follows_a_factor_and_turns_with_the_sign(
    values: FloatArray, shift: int, power: int
) -> None:
    plain, moved, turned = trend(values), trend(values * 2.0**power + shift), trend(-values)
    assert moved.slope == pytest.approx(plain.slope * 2.0**power)
    assert (moved.p_up, moved.p_down) == pytest.approx((plain.p_up, plain.p_down))
    assert turned.slope == pytest.approx(-plain.slope)
    assert (turned.p_up, turned.p_down) == pytest.approx((plain.p_down, plain.p_up))


def test_trend_counts_x_and_reports_the_change_over_it() -> None:
    found = trend(np.array([1.0, 2, 3, 5]), np.array([10.0, 20, 30, 50]))
    assert found.slope == pytest.approx(0.1)
    assert found.change == pytest.approx(4.0)


def test_trend_of_a_long_series_is_that_of_its_blocks() -> None:
    rng = np.random.default_rng(3)
    values = np.linspace(1, 0, 5000) + 0.3 * rng.standard_normal(5000)
    found = trend(values)
    assert found.slope == pytest.approx(-1 / 5000, rel=0.1)
    assert found.p_down < 1e-6
    assert trend(values[:2]).p_down == 1.0


@pytest.mark.parametrize("n", [20, 50, 100])
def test_trend_cries_wolf_at_its_nominal_rate_on_white_noise(n: int) -> None:
    rng = np.random.default_rng(n)
    alarms = np.mean([trend(rng.standard_normal(n)).p_up < 0.05 for _ in range(1000)])
    assert 0.02 < alarms < 0.08


# --- change points and spikes ---------------------------------------------------------------------


@given(ordinary(most=40), st.integers(1, 6))
def test_change_point_is_the_cheapest_of_all_cuts(values: FloatArray, least: int) -> None:
    def cost(part: FloatArray) -> float:
        return sum(abs(v - float(np.median(part))) for v in part)

    found = change_point(values, least=least)
    if len(values) < 2 * least or cost(values) == 0:
        assert found is None
        return
    assert found is not None
    costs = {k: cost(values[:k]) + cost(values[k:]) for k in range(least, len(values) - least + 1)}
    assert costs[found.index] == pytest.approx(min(costs.values()))
    assert found.gain == pytest.approx(1 - min(costs.values()) / cost(values))
    assert found.before == np.median(values[: found.index])
    assert found.after == np.median(values[found.index :])


def test_change_point_finds_a_step_in_noise() -> None:
    rng = np.random.default_rng(5)
    values = np.r_[np.full(37, 2.0), np.full(23, 1.0)] + 0.1 * rng.standard_normal(60)
    found = change_point(values)
    assert found is not None
    assert abs(found.index - 37) <= 1
    assert found.before == pytest.approx(2.0, abs=0.1)
    assert found.after == pytest.approx(1.0, abs=0.1)
    assert found.gain > 0.7


def test_spike_z_knows_only_the_past() -> None:
    rng = np.random.default_rng(7)
    values = rng.standard_normal(1000)
    z = spike_z(values, window=80)
    for end in (10, 20, 21, 500, 777):
        assert spike_z(values[:end], window=80).tolist() == z[:end].tolist()


def test_spike_z_is_small_on_noise_and_large_on_a_spike() -> None:
    rng = np.random.default_rng(8)
    values = 0.1 * rng.standard_normal(4000)
    z = spike_z(values)
    assert np.std(z[200:]) == pytest.approx(1.0, rel=0.15)
    assert np.abs(z).max() < 6
    values[2500] += 2.0
    assert int(np.argmax(spike_z(values))) == 2500
    assert spike_z(values)[2500] > 15
    assert not spike_z(values, window=200)[:50].any()


@given(ordinary(), st.integers(-1000, 1000), st.integers(1, 300))
def test_spike_z_ignores_a_factor_of_the_series_itself(values: FloatArray, shift: int, window: int) -> None:
    """The values are logarithms, so a factor is a shift."""
    np.testing.assert_allclose(spike_z(values + shift, window=window), spike_z(values, window=window))


# --- forecasts ------------------------------------------------------------------------------------

CURVES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "power 0.5": lambda t: 0.5 + 2 * t**-0.5,
    "power 1": lambda t: 0.1 + 3 / t,
    "exponential, slow": lambda t: 1 + np.exp(-2 * t / t[0]),
    "exponential, fast": lambda t: np.exp(-8 * t / t[0]),
    "straight line": lambda t: 5 - t / t[0],
}


def truth(name: str, n: int, horizon: float = 0.25) -> tuple[FloatArray, float, float]:
    """The n points of a curve, how far it falls over the horizon, and its range."""
    t = np.arange(1, n + 1, dtype=np.float64)
    ends = np.array([float(n), n * (1 + horizon)])
    make = CURVES[name]
    if name.startswith("power"):
        y, later = make(t), make(ends)
    else:  # the rate is given per run: t[0] carries the length
        y, later = (make_with_length(make, part, n) for part in (t, ends))
    return y, float(later[0] - later[1]), float(np.ptp(y))


def make_with_length(make: Callable[[FloatArray], FloatArray], t: FloatArray, n: int) -> FloatArray:
    return make(np.r_[float(n), t])[1:]


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("n", [10, 30, 60, 500])
def test_forecast_of_a_clean_curve_is_right_or_too_modest(name: str, n: int) -> None:
    y, gain, extent = truth(name, n)
    found = forecast(y)
    assert found is not None
    if name == "straight line":  # no saturating curve is straight: it promises three quarters of what comes
        assert 0.7 * gain < found.gain < gain
    else:
        assert found.gain == pytest.approx(gain, abs=0.001 * extent)


def forecast_errors(name: str, n: int, noise: float) -> FloatArray:
    """Forecast minus true gain, in ranges, over 200 draws of the noise."""
    rng = np.random.default_rng(n)
    y, gain, extent = truth(name, n)
    found = [forecast(y + noise * extent * rng.standard_normal(n)) for _ in range(200)]
    return np.array([(f.gain - gain) / extent for f in found if f is not None])


@pytest.mark.parametrize("name", [c for c in CURVES if c != "straight line"])
def test_forecast_of_a_noisy_curve_errs_by_little(name: str) -> None:
    assert np.quantile(np.abs(forecast_errors(name, 20, 0.05)), 0.9) < 0.07
    assert np.quantile(np.abs(forecast_errors(name, 100, 0.05)), 0.9) < 0.015
    assert np.quantile(np.abs(forecast_errors(name, 20, 0.02)), 0.9) < 0.015


@pytest.mark.parametrize("name", ["power 1", "exponential, fast"])
@pytest.mark.parametrize("n", [20, 50, 100])
def test_forecast_of_a_settled_curve_stays_below_half_the_floor_of_undertrained(name: str, n: int) -> None:
    assert np.quantile(forecast_errors(name, n, 0.05), 0.9) < 0.015


def test_forecast_promises_nothing_on_a_plateau_or_a_rise() -> None:
    rng = np.random.default_rng(2)
    for n in (10, 30, 100):
        assert forecast(np.linspace(1, 2, n)).gain == 0.0  # type: ignore[union-attr]
        assert forecast(np.full(n, 3.0)).gain == pytest.approx(0.0, abs=1e-12)  # type: ignore[union-attr]
        gains = [forecast(1 + 0.1 * rng.standard_normal(n)).gain for _ in range(200)]  # type: ignore[union-attr]
        assert np.median(gains) < 0.02
    assert forecast(np.arange(7.0)) is None


@given(ordinary(least=8), st.integers(-1000, 1000), st.integers(-3, 3))
def test_forecast_ignores_a_shift_and_follows_a_factor(values: FloatArray, shift: int, power: int) -> None:
    plain, moved = forecast(values), forecast(values * 2.0**power)
    assert plain is not None
    assert moved is not None
    assert moved.gain == pytest.approx(plain.gain * 2.0**power, rel=1e-6, abs=1e-9)
    assert moved.scatter == pytest.approx(plain.scatter * 2.0**power, rel=1e-6, abs=1e-9)
    assert plain.gain >= 0


# --- small ones -----------------------------------------------------------------------------------


def test_turning_fraction_of_noise_zigzag_and_trend() -> None:
    rng = np.random.default_rng(0)
    assert turning_fraction(rng.standard_normal(5000)) == pytest.approx(2 / 3, abs=0.02)
    assert turning_fraction(np.array([0.0, 1] * 10)) == 1.0
    assert turning_fraction(np.arange(10.0)) == 0.0
    assert turning_fraction(np.arange(2.0)) == 0.0


def test_autocorrelation_of_an_ar1_series_is_its_coefficient() -> None:
    rng = np.random.default_rng(0)
    for rho in (0.0, 0.5, 0.9):
        values = np.zeros(20_000)
        for i in range(1, len(values)):
            values[i] = rho * values[i - 1] + rng.standard_normal()
        assert autocorrelation(values) == pytest.approx(rho, abs=0.03)
        assert autocorrelation(values, 3) == pytest.approx(rho**3, abs=0.05)
    assert autocorrelation(np.ones(50)) == 0.0
    assert autocorrelation(np.arange(3.0)) == 0.0


def test_log10_safe_replaces_what_has_no_logarithm() -> None:
    assert log10_safe(np.array([100.0, 0.0, -5.0, 0.1])).tolist() == pytest.approx([2, -1, -1, -1])
    assert log10_safe(np.zeros(3)).tolist() == [-300] * 3


# --- whatever the input ---------------------------------------------------------------------------

ALL: dict[str, Callable[[FloatArray], object]] = {
    "mad_sigma": mad_sigma,
    "noise_scale": noise_scale,
    "smooth": smooth,
    "running_median": lambda v: running_median(v, 21),
    "block_medians": block_medians,
    "trend": trend,
    "change_point": change_point,
    "spike_z": spike_z,
    "forecast": forecast,
    "turning_fraction": turning_fraction,
    "autocorrelation": autocorrelation,
    "log10_safe": log10_safe,
}


def numbers(result: object) -> list[float]:
    if result is None:
        return []
    if isinstance(result, np.ndarray):
        return [float(v) for v in result]
    if isinstance(result, (int, float)):
        return [float(result)]
    return [float(getattr(result, name)) for name in result.__dataclass_fields__]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ALL)
@given(values=series())
def test_finite_in_finite_out_and_the_input_is_left_alone(name: str, values: FloatArray) -> None:
    before = values.copy()
    values.flags.writeable = False
    with np.errstate(under="ignore"):
        assert all(math.isfinite(v) for v in numbers(ALL[name](values)))
    assert values.tolist() == before.tolist()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 8, 59, 60, 61])
def test_any_length_will_do(name: str, n: int) -> None:
    for values in (np.zeros(n), np.arange(n, dtype=np.float64), -(np.arange(n, dtype=np.float64) ** 3)):
        assert all(math.isfinite(v) for v in numbers(ALL[name](values)))
