"""SCH002 lr-decay-too-early."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.signals import LOSS, LR
from tests.digits import HEALTHY, Recipe, train
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "lr-decay-too-early"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("lr", [0.01, 0.02])
def test_a_real_run_whose_rate_is_gone_while_it_learns(lr: float) -> None:
    found = finding(NAME, train(Recipe(schedule="linear", schedule_steps=150, lr=lr)), Severity.WARNING)
    assert 140 <= found.span.first <= 151
    assert found.remedies[0].title.startswith("decay the learning rate")


def cut_at(share: float, *, pace: float) -> object:
    """A loss that falls by exp(-pace * t) until the rate is cut, and then stands still."""
    t = np.arange(400) / 400
    loss = np.exp(-pace * np.minimum(t, share)) + 0.005 * RNG.standard_normal(400)
    return make_run(series(LOSS, loss), series(LR, np.where(t < share, 0.1, 1e-4)))


@pytest.mark.parametrize(("share", "found"), [(0.5, True), (0.8, False)])
def test_boundary_of_the_time_left(share: float, found: bool) -> None:
    assert bool(findings(NAME, cut_at(share, pace=2))) is found  # type: ignore[arg-type]


def spent(share: float, *, left: float = 0.4, **facts: str) -> object:
    """A loss on a plateau where the rate was cut: no forecast says that more was to come."""
    t = np.arange(400) / 400
    loss = left + (1 - left) * np.exp(-100 * t) + 0.005 * np.random.default_rng(1).standard_normal(400)
    return make_run(series(LOSS, loss), series(LR, np.where(t < share, 0.1, 2e-4)), **facts)


@pytest.mark.parametrize(("share", "found"), [(0.3, True), (0.36, False)])
def test_boundary_of_a_run_that_is_mostly_spent(share: float, found: bool) -> None:
    assert bool(findings(NAME, spent(share))) is found  # type: ignore[arg-type]


def test_a_single_early_cut_is_not_blamed_on_the_calls_of_the_scheduler() -> None:
    (diagnosis,) = [d for d in diagnose(spent(0.05)).diagnoses if d.root.severity != "note"]  # type: ignore[arg-type]
    assert diagnosis.root.rule == NAME
    assert diagnosis.root.could_be == ("scheduler-misstepped",)


@pytest.mark.parametrize(
    "run", [spent(0.1, left=0.02), spent(0.1, lr_scheduler="ReduceLROnPlateau")], ids=["solved", "waits for a plateau"]
)
def test_a_run_that_is_mostly_spent_for_a_reason(run: object) -> None:
    assert findings(NAME, run) == []  # type: ignore[arg-type]


def test_cuts_of_an_unnamed_scheduler_may_have_waited_for_a_plateau() -> None:
    t = np.arange(400)
    rate = 0.1 * 0.1 ** ((t >= 30).astype(float) + (t >= 70) + (t >= 90))
    run = make_run(series(LOSS, 0.4 + 0.6 * np.exp(-t / 4.0)), series(LR, rate))
    assert findings(NAME, run) == []


def test_nothing_was_left_to_gain() -> None:
    assert findings(NAME, cut_at(0.5, pace=40)) == []  # type: ignore[arg-type]


def test_progress_that_goes_on_after_the_cut() -> None:
    t = np.arange(400) / 400
    run = make_run(series(LOSS, np.exp(-3 * t)), series(LR, np.where(t < 0.5, 0.1, 1e-4)))
    assert findings(NAME, run) == []


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


def test_too_few_losses() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.ones(10)), series(LR, np.ones(10))), "16 are needed")
