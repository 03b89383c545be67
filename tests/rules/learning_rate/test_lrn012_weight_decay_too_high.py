from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn012_weight_decay_too_high import weight_decay_too_high
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["decay 30", "decay 0.1, SGD"])
def test_a_training_that_less_decay_improves(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(weight_decay_too_high, watched.watched(name))
    assert finding.severity == "warning"
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.knob == "weight_decay"


@pytest.mark.parametrize("name", ["batch norm, strong decay", "ordinary", "too narrow", "rate / 30, Adam"])
def test_a_sound_decay_or_another_disease(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(weight_decay_too_high, watched.watched(name))


def decayed(gradient: float, *, left: float = 0.6, steps: int = 400, shrunk: float = 0.5) -> Run:
    """SGD at rate 0.1 with decay 0.1 on weights of norm 10 and less."""
    t = np.arange(steps)
    return make_run(
        train_loss=2 * left + 2 * (1 - left) * np.exp(-t / 10),
        lr=np.full(steps, 0.1),
        weight_norm=10 * (shrunk + (1 - shrunk) * np.exp(-t / 50)),
        grad_norm=np.full(steps, gradient),
        facts={"optimizer": "SGD", "weight_decay": 0.1},
    )


def test_the_pull_is_measured_against_the_gradient() -> None:
    finds(weight_decay_too_high, decayed(1.2))
    is_silent(weight_decay_too_high, decayed(1.7))


def test_weights_that_did_not_shrink_and_a_loss_that_is_low_are_no_harm() -> None:
    is_silent(weight_decay_too_high, decayed(1.2, left=0.1))
    is_silent(weight_decay_too_high, decayed(0.5, shrunk=0.95))


def test_weights_that_are_gone_need_no_gradient_to_compare_with() -> None:
    """Of a dead model nothing is left of the gradient but the noise of the batches, which hides the pull."""
    found = finds(weight_decay_too_high, decayed(50.0, left=1.0, shrunk=0.02).with_facts(classes=7))
    assert (found.severity, found.confidence) == ("error", "high")
    assert (
        finds(weight_decay_too_high, decayed(50.0, left=0.4, shrunk=0.02).with_facts(classes=7)).severity == "warning"
    )
    is_silent(weight_decay_too_high, decayed(50.0, left=0.1, shrunk=0.02))
    is_silent(weight_decay_too_high, decayed(50.0, left=1.0, shrunk=0.2))


def test_the_decay_needs_time() -> None:
    is_silent(weight_decay_too_high, decayed(1.2, steps=90))


def test_it_abstains_without_the_decay() -> None:
    run = make_run(train_loss=np.linspace(2, 1, 20), weight_norm=np.linspace(2, 1, 20))
    check_skips(weight_decay_too_high, run, "no weight decay")
    is_silent(weight_decay_too_high, decayed(1.0).with_facts(weight_decay=0.0))
