from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn004_lr_noise_floor import lr_noise_floor
from fitdoctor.signals import LR, PROBE_LOSS
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize("name", ["never annealed", "never annealed, noisy labels", "rate x100 adam, deep"])
def test_a_training_that_annealing_improves(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(lr_noise_floor, trainings.run_of(name))
    assert finding.severity == "note"
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.knob == "schedule"


@pytest.mark.parametrize("name", ["sound", "staged decay", "small batches, annealed", "rate / 1000", "sound adam",
                                  "edge of stability", "overconfident"])  # fmt: skip
def test_a_training_that_was_annealed_or_makes_progress(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(lr_noise_floor, trainings.run_of(name))


def curves(jitter: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    base = 1 + np.exp(-np.arange(80) / 5)
    return {s: base + jitter * rng.standard_normal(80) for s in ("train_loss", "val_loss")}


def test_the_jitter_counts_as_a_share_of_the_range() -> None:
    finds(lr_noise_floor, make_run(**curves(0.03), lr=np.full(80, 0.1)))
    is_silent(lr_noise_floor, make_run(**curves(0.003), lr=np.full(80, 0.1)))


def test_a_rate_below_a_third_of_its_peak_is_annealed() -> None:
    for factor, found in ((0.5, True), (0.2, False)):
        run = make_run(**curves(0.03), lr=np.r_[np.full(40, 0.1), np.full(40, 0.1 * factor)])
        finds(lr_noise_floor, run) if found else is_silent(lr_noise_floor, run)


def test_it_abstains_without_the_rate_or_without_evaluations() -> None:
    trainings = pytest.importorskip("tests.trainings")
    check_skips(lr_noise_floor, without(trainings.run_of("never annealed"), LR), "no learning rate logged")
    check_skips(lr_noise_floor, without(trainings.run_of("never annealed"), "val"), "fewer than 20 evaluations")
    check_skips(lr_noise_floor, make_run(train_loss=[1.0] * 19), "20 are needed")


@pytest.mark.parametrize("name", ["never annealed", "never annealed, batch 6"])
def test_watched_a_floor_of_noise_is_seen_on_a_fixed_batch(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finds(lr_noise_floor, watched.watched(name))


@pytest.mark.parametrize("name", ["ordinary", "rate / 300", "dropout"])
def test_watched_no_floor(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.watched(name)
    if run.get(LR) is not None and len(run.get(PROBE_LOSS)) >= 20:
        is_silent(lr_noise_floor, run)
