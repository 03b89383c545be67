from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.loss.los001_loss_divergence import loss_divergence
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "onset"), [("poisoned", (575, 650)), ("uphill", (0, 400)), ("rate x8", (0, 700))]
)  # fmt: skip
def test_a_training_that_undoes_itself(name: str, onset: tuple[int, int]) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(loss_divergence, trainings.run_of(name))
    assert finding.severity == "error"
    assert onset[0] <= finding.onset <= onset[1]


@pytest.mark.parametrize("name", ["rough start", "catapult", "edge of stability", "warm restarts", "bad batches",
                                  "never annealed", "overconfident"])  # fmt: skip
def test_a_training_that_recovers_or_only_jitters(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(loss_divergence, trainings.run_of(name))


def ends_at(level: float, noise: float = 0.0) -> np.ndarray:
    """From 2 to 1, then up to a level for the last third."""
    curve = np.r_[np.linspace(2, 1, 40), np.linspace(1, level, 10), np.full(25, level)]
    return curve + noise * RNG.standard_normal(len(curve))


def test_the_rise_counts_against_the_first_loss() -> None:
    is_silent(loss_divergence, make_run(train_loss=ends_at(1.36)))
    finding = finds(loss_divergence, make_run(train_loss=ends_at(1.46)))
    assert "from 1" in finding.message
    assert "to 1.46" in finding.message


def test_a_rise_within_the_noise_does_not_count() -> None:
    is_silent(loss_divergence, make_run(train_loss=ends_at(1.5, noise=0.15)))


def test_options_move_the_threshold() -> None:
    run = make_run(train_loss=ends_at(1.3))
    is_silent(loss_divergence, run)
    finds(loss_divergence, run, rise=0.1)
    is_silent(loss_divergence, make_run(train_loss=ends_at(1.9)), rise=2.0, returned=1.0)


def test_a_loss_below_zero_is_judged_by_what_was_gained() -> None:
    is_silent(loss_divergence, make_run(train_loss=ends_at(1.2) - 1.5))
    finds(loss_divergence, make_run(train_loss=ends_at(1.9) - 1.5))


def test_it_abstains() -> None:
    assert "8 are needed" in check_skips(loss_divergence, make_run(train_loss=[1.0] * 7))
    check_skips(loss_divergence, make_run(train_loss=[np.nan] * 50), "0 finite values")
    check_skips(loss_divergence, make_run(val_loss=[1.0] * 20), "no train loss logged")


def test_one_value_that_is_not_finite_changes_nothing() -> None:
    values = ends_at(1.0)
    values[60] = np.nan
    is_silent(loss_divergence, make_run(train_loss=values))


def test_a_loss_that_rises_while_the_held_out_loss_gets_best_is_a_note() -> None:
    """A curriculum: the training data turn harder."""
    loss = np.r_[np.linspace(1.0, 0.2, 100), np.linspace(0.2, 0.8, 200)]
    better, worse = np.geomspace(1.0, 0.5, 30), np.r_[np.linspace(1, 0.6, 10), np.linspace(0.6, 1.2, 20)]
    assert finds(loss_divergence, make_run(train_loss=loss, val_loss=better)).severity == "note"
    assert finds(loss_divergence, make_run(train_loss=loss, val_loss=worse)).severity == "error"


def test_a_loss_below_zero_of_an_unknown_kind_is_not_judged() -> None:
    """The surrogate of a policy gradient shrinks towards zero where the policy gets good."""
    loss = np.r_[np.linspace(-0.5, -1.2, 60), np.linspace(-1.2, -0.3, 240)]
    check_skips(loss_divergence, make_run(train_loss=loss), "below zero")
    assert finds(loss_divergence, make_run(train_loss=loss, facts={"loss_function": "GaussianNLLLoss"}))
