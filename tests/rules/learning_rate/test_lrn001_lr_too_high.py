from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn001_lr_too_high import lr_too_high
from fitdoctor.signals import LR
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("rate x8", "error"),
        ("rate x1000 regression", "error"),
        ("rate jumps", "error"),
        ("rate x100 adam", "warning"),
        ("never annealed", "warning"),
    ],
)
@pytest.mark.parametrize("left_out", [(), (LR,)], ids=["", "lr not logged"])
def test_a_training_that_a_lower_rate_improves(name: str, severity: str, left_out: tuple[object, ...]) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(lr_too_high, without(trainings.run_of(name), *left_out))  # type: ignore[arg-type]
    assert finding.severity == severity
    changes = {r.change.knob for r in finding.remedies if r.change}
    assert "learning_rate" in changes


@pytest.mark.parametrize("name", ["sound", "sound per step", "rough start", "catapult", "edge of stability",
                                  "warm restarts", "tiny val set", "bad batches", "small batches, annealed",
                                  "40 examples", "frozen regression", "too narrow", "noisy targets"])  # fmt: skip
def test_a_training_that_is_sound_or_has_another_disease(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(lr_too_high, trainings.run_of(name))


def test_a_loss_that_is_maximised_looks_the_same_and_is_named_as_a_doubt() -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert "a bug in the loss" in finds(lr_too_high, trainings.run_of("uphill")).could_be


def test_a_climb_above_the_start_that_stays_is_a_blow_up() -> None:
    def climbs(peak: float) -> np.ndarray:
        return np.r_[2.0, np.linspace(2.0, peak, 30), np.full(69, peak)]

    is_silent(lr_too_high, make_run(train_loss=climbs(2.3)))
    finding = finds(lr_too_high, make_run(train_loss=climbs(2.8)))
    assert finding.onset < 40


def test_a_climb_that_is_made_up_for_is_a_catapult() -> None:
    values = np.r_[2.0, np.linspace(2.0, 4.0, 5), np.geomspace(4.0, 0.05, 94)]
    is_silent(lr_too_high, make_run(train_loss=values))


def test_a_ramp_into_nan_counts_and_a_nan_from_nowhere_does_not() -> None:
    ramp = np.r_[np.linspace(2, 1, 50), 1.0 * 2.0 ** np.arange(10), np.full(40, np.nan)]
    assert "turned non-finite at step 60" in finds(lr_too_high, make_run(train_loss=ramp)).message
    sudden = np.r_[np.linspace(2, 1, 60), np.full(40, np.nan)]
    is_silent(lr_too_high, make_run(train_loss=sudden))
    passing = np.r_[np.linspace(2, 1, 50), 4.0, 8.0, np.nan, np.linspace(1, 0.5, 47)]
    is_silent(lr_too_high, make_run(train_loss=passing))


def test_the_floor_is_not_judged_once_the_rate_is_annealed() -> None:
    rng = np.random.default_rng(0)
    shake = 0.15 * rng.standard_normal(100)
    base = 1 + np.exp(-np.arange(100) / 5)
    curves = {"train_loss": base + shake, "val_loss": base + shake + 0.01 * rng.standard_normal(100)}
    finds(lr_too_high, make_run(**curves, lr=np.full(100, 0.1)))
    is_silent(lr_too_high, make_run(**curves, lr=np.r_[np.full(50, 0.1), np.full(50, 0.01)]))


def test_noise_that_the_two_sets_do_not_share_is_not_the_weights() -> None:
    rng = np.random.default_rng(0)
    base = 1 + np.exp(-np.arange(100) / 5)
    apart = {s: base + 0.05 * rng.standard_normal(100) for s in ("train_loss", "val_loss")}
    is_silent(lr_too_high, make_run(**apart))


def test_it_abstains() -> None:
    check_skips(lr_too_high, make_run(train_loss=[1.0] * 7), "8 are needed")
    check_skips(lr_too_high, make_run(lr=[0.1]), "no train loss logged")
