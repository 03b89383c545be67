from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.loss.los003_plateau import plateau
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["too narrow", "too linear", "rate x100 adam, deep"])
def test_a_training_that_got_stuck(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert finds(plateau, trainings.run_of(name)).severity == "note"


@pytest.mark.parametrize("name", ["rate / 1000", "rate / 1000 regression", "sound per step",
                                  "staged decay", "catapult"])  # fmt: skip
def test_a_training_that_still_falls_or_has_solved_its_task(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(plateau, trainings.run_of(name))


def flat_from(share: float, level: float = 1.0, slope: float = 0.0, n: int = 100) -> np.ndarray:
    t = np.arange(n) / n
    rng = np.random.default_rng(2)
    return np.where(t < share, 3 - (3 - level) * t / share, level - slope * (t - share)) + 0.01 * rng.standard_normal(n)


def test_the_flat_part_is_dated() -> None:
    finding = finds(plateau, make_run(train_loss=flat_from(0.4)))
    assert 30 <= finding.onset <= 50
    assert "flat at 0.99" in finding.message


def test_a_slow_fall_is_no_plateau() -> None:
    is_silent(plateau, make_run(train_loss=flat_from(0.4, slope=0.5)))


def test_a_solved_task_is_no_plateau() -> None:
    is_silent(plateau, make_run(train_loss=0.5 * (flat_from(0.4, level=0.09))), solved=0.05)
    finds(plateau, make_run(train_loss=0.5 * (flat_from(0.4, level=0.3))), solved=0.05)


def test_the_advice_to_anneal_is_left_out_where_the_rate_was_annealed() -> None:
    constant = finds(plateau, make_run(train_loss=flat_from(0.4), lr=np.full(100, 0.1)))
    annealed = finds(plateau, make_run(train_loss=flat_from(0.4), lr=np.r_[np.full(60, 0.1), np.full(40, 1e-4)]))
    assert any("decay the" in r.title for r in constant.remedies)
    assert not any("decay the" in r.title for r in annealed.remedies)
    assert "lr-too-high" in constant.could_be
    assert "lr-too-high" not in annealed.could_be


def test_it_abstains() -> None:
    check_skips(plateau, make_run(train_loss=[1.0] * 19), "20 are needed")
    check_skips(plateau, make_run(train_loss=[1.0] * 24), "in the last 30%")
