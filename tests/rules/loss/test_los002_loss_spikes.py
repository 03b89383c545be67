from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.loss.los002_loss_spikes import loss_spikes
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


def falling(n: int = 1000, noise: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (0.5 + 2 * np.exp(-np.arange(n) / (n / 5))) * np.exp(noise * rng.standard_normal(n))


def spiked(at: int, factor: float, n: int = 1000, lingers: float = 0.0) -> np.ndarray:
    values = falling(n)
    values[at] *= factor
    values[at + 1 :] *= 1 + lingers
    return values


def test_batches_of_noise_make_spikes_that_recover() -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(loss_spikes, trainings.run_of("bad batches"))
    assert finding.severity == "note"
    assert finding.message.startswith("2 spikes")
    assert {step for step, _ in finding.evidence[0].marks} == {401, 701}


def test_a_batch_that_ruins_the_weights_is_a_warning() -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(loss_spikes, trainings.run_of("ruinous batch"))
    assert finding.severity == "warning"
    assert finding.onset == 851


@pytest.mark.parametrize("name", ["sound per step", "edge of stability"])
def test_sound_trainings_have_no_spikes(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(loss_spikes, trainings.run_of(name))


def test_a_catapult_is_a_spike_that_recovers() -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert finds(loss_spikes, trainings.run_of("catapult")).severity == "note"


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_has_no_spikes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (0.5 + 2 * np.exp(-np.arange(5000) / 700)) * np.exp(0.1 * rng.standard_normal(5000))
    is_silent(loss_spikes, make_run(train_loss=values))


def test_a_spike_has_to_stand_out_from_noise_and_range() -> None:
    is_silent(loss_spikes, make_run(train_loss=spiked(600, 1.2)))
    assert finds(loss_spikes, make_run(train_loss=spiked(600, 2.0))).span.first == 600


def test_the_first_tenth_is_not_judged() -> None:
    is_silent(loss_spikes, make_run(train_loss=spiked(80, 3.0)))
    finds(loss_spikes, make_run(train_loss=spiked(120, 3.0)))


def test_a_new_level_after_a_spike_lingers() -> None:
    assert finds(loss_spikes, make_run(train_loss=spiked(600, 4.0, lingers=0.8))).severity == "warning"
    assert finds(loss_spikes, make_run(train_loss=spiked(600, 4.0))).severity == "note"


def test_neighbouring_points_are_one_spike() -> None:
    values = falling()
    values[600:604] *= [3, 5, 4, 2]
    finding = finds(loss_spikes, make_run(train_loss=values))
    assert finding.message.startswith("1 spike of")
    assert finding.span.first == 601


def test_a_spike_at_the_very_end_is_not_said_to_linger() -> None:
    assert finds(loss_spikes, make_run(train_loss=spiked(999, 5.0))).severity == "note"


def test_it_abstains() -> None:
    assert "60 are needed" in check_skips(loss_spikes, make_run(train_loss=falling(59)))
    is_silent(loss_spikes, make_run(train_loss=falling(60)))


def test_negative_losses_and_zeros_are_judged_too() -> None:
    is_silent(loss_spikes, make_run(train_loss=falling() - 3))
    finds(loss_spikes, make_run(train_loss=spiked(600, 6.0) - 3))
    is_silent(loss_spikes, make_run(train_loss=np.zeros(300)))
