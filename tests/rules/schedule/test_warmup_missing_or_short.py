"""SCH004 warmup-missing-or-short."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.signals import LOSS, LR
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series

NAME = "warmup-missing-or-short"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("lr", [0.03, 0.04])
def test_a_real_run_thrown_off_at_the_start(lr: float) -> None:
    found = finding(NAME, train(Recipe(schedule="hot-start", lr=lr, activation="tanh")), Severity.WARNING)
    assert found.span.first < 20
    assert found.span.last > 90
    assert found.remedies[0].title.startswith("warm the learning rate up")


def jump(height: float, recovery: float, n: int = 1000) -> np.ndarray:
    """A loss that starts at 2, jumps at step 5, and comes back at the pace of `recovery` steps."""
    steps = np.arange(n)
    rise = np.where(steps >= 5, height * np.exp(-np.maximum(steps - 5, 0) / recovery), 0)
    return 2 * np.exp(-steps / 600) + rise + 0.01 * RNG.standard_normal(n)


def test_without_a_logged_rate_confidence_is_low() -> None:
    assert finding(NAME, make_run(series(LOSS, jump(3, 100)))).confidence is Confidence.LOW


def test_a_catapult_recovers_quickly_and_is_healthy() -> None:
    assert findings(NAME, make_run(series(LOSS, jump(3, 8)))) == []


@pytest.mark.parametrize(("height", "found"), [(0.15, False), (0.6, True)])
def test_boundary_of_the_jump(height: float, found: bool) -> None:
    assert bool(findings(NAME, make_run(series(LOSS, jump(height, 2000))))) is found


def test_a_rate_that_is_still_warming_up_did_not_do_it() -> None:
    rate = series(LR, np.minimum(np.arange(1000) / 500, 1))
    assert findings(NAME, make_run(series(LOSS, jump(3, 100)), rate)) == []


def test_a_run_that_never_learns_is_left_to_others() -> None:
    loss = np.r_[2.0, np.full(999, 5.0)]
    assert findings(NAME, make_run(series(LOSS, loss))) == []


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_and_all_their_prefixes(recipe: Recipe) -> None:
    run = train(recipe)
    span = run.steps
    assert span is not None
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        part = run.until(round(share * span.last))
        loss = part.get(LOSS)
        assert loss is not None
        if len(loss.between(0, round(0.05 * span.last))) < 20 or share <= 0.05:
            cannot_judge(NAME, part)
        else:
            assert findings(NAME, part) == []


def test_losses_per_epoch_are_too_coarse() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.linspace(2, 1, 50), per="epoch")), "20 from its first step")
