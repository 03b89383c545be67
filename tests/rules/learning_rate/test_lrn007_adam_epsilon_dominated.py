from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn007_adam_epsilon_dominated import adam_epsilon_dominated
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["epsilon 1", "tiny loss"])
def test_a_training_that_a_smaller_epsilon_improves(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(adam_epsilon_dominated, watched.watched(name))
    assert finding.severity == "warning"
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.knob == "eps"


@pytest.mark.parametrize("name", ["Adam, constant rate", "rate / 30, Adam", "accumulation", "fine-tuning"])
def test_a_training_whose_epsilon_does_not_matter(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(adam_epsilon_dominated, watched.watched(name))


def adam(tiny: float, *, left: float = 0.9, length: float = 0.01) -> Run:
    """Twenty looks: share of tiny second moments, share of the loss left, length of the steps."""
    return make_run(
        train_loss=np.linspace(2, 2 * left, 100),
        lr=np.full(100, 0.01),
        update_norm=np.full(100, 0.01 * 100 * length),
        layers={"adam_tiny_fraction": {n: np.full(20, tiny) for n in ("0.weight", "0.bias", "2.weight")}},
        facts={"trainable_parameters": 10_000, "optimizer": "Adam"},
    )


def test_all_three_signs_are_needed() -> None:
    finds(adam_epsilon_dominated, adam(0.6))
    is_silent(adam_epsilon_dominated, adam(0.4))
    is_silent(adam_epsilon_dominated, adam(0.6, left=0.1))
    is_silent(adam_epsilon_dominated, adam(0.6, length=0.3))


def test_it_abstains_without_the_length_of_a_step() -> None:
    run = make_run(train_loss=np.linspace(2, 1.8, 100), layers={"adam_tiny_fraction": {"0.weight": np.full(20, 0.9)}})
    check_skips(adam_epsilon_dominated, run, "update_norm")
