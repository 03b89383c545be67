"""GRD003 gradient-spikes."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.signals import GRAD_NORM, LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series, warned

NAME = "gradient-spikes"
RNG = np.random.default_rng(0)
NORMS = np.exp(0.2 * RNG.standard_normal(600))
FALLING = np.exp(-np.arange(600) / 300) * np.exp(0.05 * RNG.standard_normal(600))


def spiked(factor: float, at: int = 400) -> np.ndarray:
    norms = NORMS.copy()
    norms[at] *= factor
    return norms


@pytest.mark.parametrize("lr", [0.05, 0.1])
def test_a_real_run_thrown_off(lr: float) -> None:
    found = finding(NAME, train(Recipe(blow_up_at=300, lr=lr)), Severity.WARNING)
    assert 300 <= found.span.first <= 330


def test_a_spike_without_response_is_a_note() -> None:
    found = finding(NAME, make_run(series(LOSS, FALLING), series(GRAD_NORM, spiked(100))), Severity.NOTE)
    assert found.span.first == 400
    assert found.message.startswith("1 gradient spike, up to ")


def test_a_spike_after_which_the_loss_stays_high_is_a_warning() -> None:
    loss = FALLING + np.where(np.arange(600) > 400, 0.5, 0)
    assert finding(NAME, make_run(series(LOSS, loss), series(GRAD_NORM, spiked(100))), Severity.WARNING)


def test_a_spike_that_recovers_is_a_note() -> None:
    loss = FALLING + np.where(np.arange(600) > 400, 0.5, 0) * np.exp(-np.maximum(np.arange(600) - 400, 0) / 20)
    assert finding(NAME, make_run(series(LOSS, loss), series(GRAD_NORM, spiked(100))), Severity.NOTE)


@pytest.mark.parametrize(("factor", "found"), [(6.0, False), (25.0, True)])
def test_boundary_is_ten_times_the_median(factor: float, found: bool) -> None:
    assert bool(findings(NAME, make_run(series(GRAD_NORM, spiked(factor))))) is found


def test_heavy_tails_are_no_spikes() -> None:
    norms = np.exp(RNG.standard_t(5, 2000) * 0.5)
    assert warned(NAME, make_run(series(LOSS, np.linspace(2, 1, 2000)), series(GRAD_NORM, norms))) == []


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_no_warning(recipe: Recipe) -> None:
    assert warned(NAME, train(recipe)) == []


def test_too_short() -> None:
    cannot_judge(NAME, make_run(series(GRAD_NORM, np.ones(59))), "60 are needed")
