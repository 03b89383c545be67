"""SCH003 scheduler-misstepped."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.signals import LOSS, LR
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series, warned

NAME = "scheduler-misstepped"


def cosine(steps: int, length: int) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * np.arange(steps) / length))


def test_a_cosine_that_is_too_short_for_the_run() -> None:
    found = finding(NAME, train(Recipe(schedule="cosine", schedule_steps=400)), Severity.WARNING)
    assert found.message == "learning rate falls until step 400 and then rises again"
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.value == 640


def test_step_size_in_epochs_but_called_per_batch() -> None:
    found = finding(NAME, train(Recipe(schedule="step", schedule_steps=5)), Severity.ERROR)
    assert found.message == "learning rate is cut 6.4 times an epoch, every 5 of 32 steps"
    assert found.span.first == 0


def test_spent_in_the_first_tenth() -> None:
    found = finding(NAME, train(Recipe(schedule="linear", schedule_steps=60, lr=0.01)), Severity.ERROR)
    assert "after 9% of the run" in found.message


def test_a_schedule_that_ends_long_before_the_run() -> None:
    rate = np.r_[cosine(500, 500), np.zeros(500)]
    assert finding(NAME, make_run(series(LR, rate)), Severity.WARNING).span.first == pytest.approx(470, abs=10)


def test_a_finished_run_that_stands_in_the_middle_of_its_cosine() -> None:
    rate = series(LR, cosine(500, 1000))
    found = finding(NAME, make_run(rate, finished=True), Severity.WARNING)
    assert found.message == "run ends at 50% of the peak learning rate; its cosine schedule ends at step 1000"
    assert findings(NAME, make_run(rate)) == []  # it may have been stopped


def test_a_named_scheduler_that_never_moves() -> None:
    still = series(LR, np.full(100, 0.1))
    assert finding(NAME, make_run(still, lr_scheduler="CosineAnnealingLR"), Severity.WARNING)
    assert findings(NAME, make_run(still, lr_scheduler="constant")) == []
    assert findings(NAME, make_run(still)) == []


@pytest.mark.parametrize(
    ("steps", "severity"), [(100, None), (101, None), (120, Severity.NOTE), (160, Severity.WARNING)]
)
def test_boundary_of_the_second_rise(steps: int, severity: Severity | None) -> None:
    run = make_run(series(LR, cosine(steps, 100)))
    if severity is None:
        assert findings(NAME, run) == []
    else:
        assert finding(NAME, run, severity)


def test_many_waves_may_be_meant() -> None:
    found = finding(NAME, make_run(series(LR, cosine(1001, 100))))
    assert found.message.endswith("rises again, 5 times")
    assert found.could_be == ("a cosine wave that is meant",)


@pytest.mark.parametrize(
    "rate",
    [
        np.full(200, 0.1),
        0.1 ** (np.arange(200) // 60),
        np.linspace(1, 0, 200),
        np.abs((np.arange(300) % 100) - 50) / 50,
        cosine(400, 100)[np.arange(400) % 100],
        np.r_[np.linspace(0, 1, 20), cosine(180, 180)],
        np.r_[cosine(100, 100), np.zeros(15)],
    ],
    ids=["constant", "step", "linear", "cyclic", "warm restarts", "warm-up and cosine", "a short tail"],
)
def test_healthy_shapes(rate: np.ndarray) -> None:
    assert warned(NAME, make_run(series(LR, rate), finished=True)) == []


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_and_all_their_prefixes(recipe: Recipe) -> None:
    run = train(recipe)
    assert findings(NAME, run) == []
    span = run.steps
    assert span is not None
    for share in np.linspace(0.05, 0.95, 19):
        assert warned(NAME, run.until(round(share * span.last))) == []


def test_a_run_without_a_plan_that_is_not_finished() -> None:
    cannot_judge(NAME, make_run(series(LR, cosine(50, 1000)), finished=False), "planned_steps")
    cannot_judge(NAME, make_run(series(LR, np.zeros(20))), "0 throughout")
    cannot_judge(NAME, make_run(series(LOSS, [1.0])), "no lr")
