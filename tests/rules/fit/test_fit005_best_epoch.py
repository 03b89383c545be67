from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.fit.fit005_best_epoch import best_epoch
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["40 examples", "noisy labels", "overfitted regression", "poisoned", "overconfident"])
def test_a_training_whose_last_weights_are_not_its_best(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(best_epoch, trainings.run_of(name))
    assert finding.severity == "note"
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.value == finding.onset


@pytest.mark.parametrize("name", ["sound", "sound adam", "warm restarts", "staged decay", "dropout", "label smoothing",
                                  "tiny val set", "rate / 1000"])  # fmt: skip
def test_a_training_whose_last_weights_are_as_good_as_any(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(best_epoch, trainings.run_of(name))


@pytest.mark.parametrize("n", [20, 50, 100])
def test_the_luckiest_of_many_noisy_values_is_no_best_epoch(n: int) -> None:
    """The last of n independent values exceeds the smallest by 2 to 2.5 standard deviations on average."""
    rng = np.random.default_rng(n)
    found = 0
    for _ in range(200):
        val = 1 + 1.3 * np.exp(-8 * np.arange(n) / n) + 0.04 * rng.standard_normal(n)
        found += bool(list(best_epoch(make_run(val_loss=val))))
    assert found / 200 <= 0.04


def test_the_cost_counts_as_a_share_of_the_range() -> None:
    def ends(level: float) -> np.ndarray:
        return np.r_[np.linspace(2, 1, 30), np.linspace(1, level, 30)]

    is_silent(best_epoch, make_run(val_loss=ends(1.01)), errors=0.0)
    finds(best_epoch, make_run(val_loss=ends(1.2)))


def test_a_best_in_the_last_tenth_is_the_end() -> None:
    val = np.r_[np.linspace(2, 1, 58), 1.5, 1.5]
    is_silent(best_epoch, make_run(val_loss=val))


def test_it_abstains() -> None:
    check_skips(best_epoch, make_run(val_loss=[1.0] * 7), "8 are needed")
    check_skips(best_epoch, make_run(train_loss=[1.0] * 9), "no val loss or test loss logged")
