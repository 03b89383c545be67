from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn006_adam_second_moment_lag import adam_second_moment_lag
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["gradients grow", "gradients grow, wide"])
def test_gradients_that_outgrow_their_second_moment(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(adam_second_moment_lag, watched.watched(name))
    assert 150 <= finding.onset <= 170
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.knob == "beta2"


@pytest.mark.parametrize("name", ["gradients grow, rate 0.06", "gradients grow, rate 0.1"])
def test_a_training_that_never_recovers_from_it_is_a_warning(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(adam_second_moment_lag, watched.watched(name))
    assert finding.severity == "warning"
    assert 150 <= finding.onset <= 170


@pytest.mark.parametrize("name", ["Adam, constant rate", "tiny validation set", "rate x30, deep Adam", "wrong labels"])
def test_a_training_whose_second_moment_follows(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(adam_second_moment_lag, watched.watched(name))


def looks(height: float, *, jump: float = 0.0, lasts: bool = False) -> Run:
    """A surprise of that height after half of the steps, and a loss that jumps there."""
    rng = np.random.default_rng(0)
    loss = 1 + np.exp(-np.arange(200) / 20) + 0.01 * rng.standard_normal(200)
    loss[100 : None if lasts else 120] += jump
    seen = {i: 1.0 + 0.1 * rng.standard_normal() for i in range(0, 200, 5)}
    seen[100] = height
    surprise = np.array([seen[i] for i in sorted(seen)])
    return make_run(
        train_loss=loss, layers={"adam_surprise": {"0.weight": surprise}, "grad_norm": {"0.weight": np.ones(200)}}
    )


def test_the_surprise_and_the_jump_are_both_needed() -> None:
    finds(adam_second_moment_lag, looks(2.6, jump=0.5))
    is_silent(adam_second_moment_lag, looks(2.2, jump=0.5))
    is_silent(adam_second_moment_lag, looks(5.0))


def test_a_loss_that_stays_up_is_a_warning() -> None:
    assert finds(adam_second_moment_lag, looks(5.0, jump=0.5)).severity == "note"
    assert finds(adam_second_moment_lag, looks(5.0, jump=0.5, lasts=True)).severity == "warning"


def test_it_abstains() -> None:
    few = make_run(train_loss=np.linspace(2, 1, 20), layers={"adam_surprise": {"0.weight": np.ones(7)}})
    check_skips(adam_second_moment_lag, few, "fewer than 8 looks")
