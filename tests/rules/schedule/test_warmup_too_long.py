"""SCH001 warmup-too-long."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.signals import LOSS, LR
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series

NAME = "warmup-too-long"


def ramp(warmup: int, total: int = 1000) -> np.ndarray:
    return np.minimum((np.arange(total) + 1) / warmup, 1.0) * 3e-4


def test_a_real_run_that_never_gets_there() -> None:
    found = finding(NAME, train(Recipe(schedule="warmup", schedule_steps=2000)), Severity.WARNING)
    assert found.message == "learning rate still rises at the end (step 639)"
    assert "a learning-rate range test" in found.could_be


def test_a_real_run_that_gets_there_late() -> None:
    found = finding(NAME, train(Recipe(schedule="warmup", schedule_steps=400)), Severity.WARNING)
    assert found.message == "learning rate is below 90% of its peak for 56% of the run (step 359)"
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.value == 32


@pytest.mark.parametrize(
    ("warmup", "severity"), [(100, None), (270, None), (300, Severity.NOTE), (600, Severity.WARNING)]
)
def test_boundaries(warmup: int, severity: Severity | None) -> None:
    run = make_run(series(LR, ramp(warmup)), finished=True)
    if severity is None:
        assert findings(NAME, run) == []
    else:
        assert finding(NAME, run, severity)


def test_a_run_in_the_midst_of_its_warm_up_is_not_judged_by_what_it_has_logged_so_far() -> None:
    begun = series(LR, ramp(100)[:60])
    cannot_judge(NAME, make_run(begun, finished=False), "planned length is unknown")
    assert findings(NAME, make_run(begun, finished=False, planned_steps=1000)) == []


def test_one_cycle_rises_for_long_on_purpose() -> None:
    assert findings(NAME, train(HEALTHY[2])) == []


def test_cycles_are_not_warm_up() -> None:
    steps = np.arange(600)
    triangle = np.abs((steps % 200) - 100) / 100
    assert findings(NAME, make_run(series(LR, 1.0 - triangle))) == []


def test_a_single_jump_is_no_warm_up() -> None:
    assert findings(NAME, make_run(series(LR, np.r_[np.full(400, 0.1), np.full(400, 1.0)]))) == []


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


def test_too_few_rates() -> None:
    cannot_judge(NAME, make_run(series(LR, [1e-3] * 5)), "8 are needed")
    cannot_judge(NAME, make_run(series(LOSS, [1.0])), "no lr")
