from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn003_undertrained import undertrained
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize(
    ("name", "severity"),
    [("stopped early", "note"), ("stopped early, regression", "note"), ("rate / 1000", "warning")],
)
def test_a_training_that_goes_on_falling_when_it_is_continued(name: str, severity: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert finds(undertrained, trainings.run_of(name)).severity == severity


@pytest.mark.parametrize("name", ["sound", "sound adam", "staged decay", "warm restarts", "too narrow", "noisy labels",
                                  "frozen", "edge of stability", "small batches, annealed"])  # fmt: skip
def test_a_training_that_has_settled_or_was_annealed(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(undertrained, trainings.run_of(name))


def falling(rate: float, n: int = 60) -> np.ndarray:
    return 1 + np.exp(-rate * np.arange(n) / n)


@pytest.mark.parametrize(("rate", "severity"), [(1.0, "warning"), (2.5, "note")])
def test_the_size_of_the_promise_decides_the_severity(rate: float, severity: str) -> None:
    assert finds(undertrained, make_run(train_loss=falling(rate))).severity == severity


def test_a_small_promise_is_none() -> None:
    is_silent(undertrained, make_run(train_loss=falling(5.0)))


def test_the_promise_is_about_right() -> None:
    """Down by 1 - e^-1 so far; a quarter more of the run brings e^-1 - e^-1.25."""
    finding = finds(undertrained, make_run(train_loss=falling(1.0)))
    promised = (np.exp(-1) - np.exp(-1.25)) / (1 - np.exp(-1))
    assert f"{promised:.0%} more" in finding.message


def test_validation_that_has_settled_ends_the_promise() -> None:
    is_silent(undertrained, make_run(train_loss=falling(1.0), val_loss=falling(12.0)))
    finds(undertrained, make_run(train_loss=falling(1.0), val_loss=falling(1.2)))


def test_an_annealed_rate_has_nothing_left_to_give() -> None:
    is_silent(undertrained, make_run(train_loss=falling(1.0), lr=np.linspace(1, 0, 60)))
    finds(undertrained, make_run(train_loss=falling(1.0), lr=np.ones(60)))


@pytest.mark.parametrize("n", [12, 15, 20])
def test_short_logs_are_judged_too(n: int) -> None:
    finds(undertrained, make_run(train_loss=falling(1.0, n)))


def test_it_abstains() -> None:
    check_skips(undertrained, make_run(train_loss=falling(1.0, 11)), "12 are needed")


@pytest.mark.parametrize("name", ["stopped early", "stopped early, tanh"])
def test_watched_long_steps_leave_only_time(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(undertrained, watched.watched(name))
    assert finding.could_be == ()
    assert [r.change.knob for r in finding.remedies if r.change] == ["epochs"]
