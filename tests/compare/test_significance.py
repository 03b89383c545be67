"""Permutation tests: exact where they can be, and honest about what they can reach."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from fitdoctor.compare.significance import MOST_ARRANGEMENTS, significance
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


def test_one_run_each_allows_no_test() -> None:
    found = significance([1.0], [0.0], paired=False)
    assert (found.method, found.p, found.smallest, found.possible, found.interval) == ("none", 1.0, 1.0, False, None)
    assert significance([1.0], [0.0], paired=True).method == "none"


@pytest.mark.parametrize(("pairs", "smallest", "possible"), [(3, 0.25, False), (5, 0.0625, False), (6, 0.03125, True)])
def test_few_pairs_cannot_reach_significance_whatever_they_show(pairs: int, smallest: float, possible: bool) -> None:
    before = [10.0 + i for i in range(pairs)]
    found = significance(before, [b - 9 for b in before], paired=True)
    assert found.smallest == found.p == smallest
    assert found.possible is found.reached is possible


@pytest.mark.parametrize(("a", "b", "smallest"), [(3, 3, 0.1), (4, 4, 2 / 70), (1, 3, 0.25), (2, 6, 1 / 28)])
def test_the_smallest_p_of_two_groups_is_reached_by_groups_far_apart(a: int, b: int, smallest: float) -> None:
    found = significance([100.0 + i for i in range(a)], [1.0 + 0.1 * i for i in range(b)], paired=False)
    assert found.smallest == pytest.approx(smallest)
    assert found.p == pytest.approx(smallest)


def test_sign_flips_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal(8)
    b = a + rng.standard_normal(8) + 0.7
    peer = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert significance(list(a), list(b), paired=True).p == pytest.approx(peer.pvalue)


def test_exchanges_agree_with_scipy() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal(5), rng.standard_normal(5) + 1
    peer = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf, alternative="two-sided"
    )
    assert significance(list(a), list(b), paired=False).p == pytest.approx(peer.pvalue)


def test_intervals_are_students() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal(6), rng.standard_normal(6) + 1
    paired, welch = stats.ttest_rel(b, a), stats.ttest_ind(b, a, equal_var=False)
    assert significance(list(a), list(b), paired=True).interval == pytest.approx(tuple(paired.confidence_interval()))
    assert significance(list(a), list(b), paired=False).interval == pytest.approx(tuple(welch.confidence_interval()))


def test_many_runs_are_sampled_with_a_fixed_seed() -> None:
    n = 20
    assert 2**n > MOST_ARRANGEMENTS
    before = list(np.linspace(1, 2, n))
    after = [b - 0.5 + 0.01 * (-1) ** i for i, b in enumerate(before)]
    first, second = (significance(before, after, paired=True) for _ in range(2))
    assert first == second
    assert first.p == first.smallest == 1 / 20_000
    apart = significance(before, [b + 5 for b in before], paired=False)
    assert apart.p == apart.smallest == 1 / 20_000


def test_a_failed_run_counts_as_the_worst_and_no_more() -> None:
    found = significance([1.0, 1.1, 1.2, math.inf], [0.1, 0.2, 0.3, 0.4], paired=False)
    assert found.p == found.smallest
    assert found.interval is None
    mixed = significance([1.0, 1.1, 1.2, math.inf], [1.05, 1.15, 1.16, 0.9], paired=False)
    assert mixed.p > 0.1
    assert significance([math.inf] * 6, [math.inf] * 6, paired=True).p == 1.0


def test_pairs_need_partners() -> None:
    with pytest.raises(ValueError, match="as many runs"):
        significance([1.0, 2.0], [1.0], paired=True)


def test_exchanged_seeds_are_called_different_in_5_percent_at_most() -> None:
    """Two groups of the same distribution: the false alarms of the test itself, over 400 draws."""
    rng = np.random.default_rng(6)
    for paired in (True, False):
        hits = sum(
            significance(list(rng.standard_normal(6)), list(rng.standard_normal(6)), paired=paired).reached
            for _ in range(400)
        )
        assert hits <= stats.binom.ppf(0.999, 400, 0.05)


finite_or_failed = st.floats(-1e6, 1e6) | st.sampled_from([math.inf])


@given(st.lists(finite_or_failed, min_size=1, max_size=6), st.lists(finite_or_failed, min_size=1, max_size=6))
def test_a_p_value_is_one_and_the_sides_may_be_exchanged(a: list[float], b: list[float]) -> None:
    for paired in {False, len(a) == len(b)}:
        found, other = significance(a, b, paired=paired), significance(b, a, paired=paired)
        assert 0 < found.smallest <= found.p + 1e-12
        assert found.p <= 1
        assert found.p == pytest.approx(other.p)
    assert math.isclose(significance(a, a, paired=True).p, 1.0)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=5), st.lists(st.integers(-50, 50), min_size=2, max_size=5))
def test_the_exchange_test_is_its_definition(a: list[int], b: list[int]) -> None:
    pooled = np.array([*a, *b], dtype=float)
    observed = abs(np.mean(a) - np.mean(b))
    chosen = list(itertools.combinations(range(len(pooled)), len(a)))
    hits = 0
    for index in chosen:
        mask = np.isin(np.arange(len(pooled)), index)
        hits += abs(pooled[mask].mean() - pooled[~mask].mean()) >= observed - 1e-9
    assert significance([float(x) for x in a], [float(x) for x in b], paired=False).p == pytest.approx(
        hits / len(chosen)
    )
