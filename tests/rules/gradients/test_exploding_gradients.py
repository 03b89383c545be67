"""GRD001 exploding-gradients."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.signals import GRAD_NORM, LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series

NAME = "exploding-gradients"
RNG = np.random.default_rng(0)


def noisy(values: np.ndarray, noise: float = 0.1) -> np.ndarray:
    return values * np.exp(noise * RNG.standard_normal(len(values)))


@pytest.mark.parametrize("recipe", [Recipe(gain=3.0, lr=0.5, depth=3), Recipe(gain=3.5, lr=0.5, depth=3, seed=1)])
def test_real_runs_on_their_way_to_nan(recipe: Recipe) -> None:
    run = train(recipe)
    loss = run.get(LOSS)
    assert loss is not None
    end = int(np.argmax(~np.isfinite(loss.values)))
    found = finding(NAME, run, Severity.ERROR)
    assert found.span.first < end
    assert "lr-too-high" in found.could_be


def test_growth_and_loss_together() -> None:
    steps = np.arange(600)
    grows = 10 ** np.maximum(0, (steps - 300) / 150)
    loss = np.exp(-np.minimum(steps, 300) / 100) + np.maximum(0, (steps - 300) / 200)
    found = finding(NAME, make_run(series(LOSS, noisy(loss, 0.02)), series(GRAD_NORM, noisy(grows))))
    assert 400 < found.span.first < 520


def test_a_norm_that_grows_while_the_loss_falls_is_normal() -> None:
    steps = np.arange(600)
    grows = 10 ** (steps / 200)
    assert (
        findings(NAME, make_run(series(LOSS, noisy(np.exp(-steps / 200), 0.02)), series(GRAD_NORM, noisy(grows)))) == []
    )


def test_one_spike_is_no_explosion() -> None:
    norms = noisy(np.ones(600))
    norms[300:304] *= 1e4
    assert findings(NAME, make_run(series(LOSS, noisy(np.exp(-np.arange(600) / 200))), series(GRAD_NORM, norms))) == []


def test_a_bad_sample_is_no_explosion() -> None:
    assert findings(NAME, train(Recipe(poison_at=300))) == []


@pytest.mark.parametrize(("factor", "found"), [(8.0, False), (13.0, True)])
def test_boundary_is_one_decade(factor: float, found: bool) -> None:
    norms = np.r_[np.ones(300), np.full(300, factor)]
    loss = np.r_[np.linspace(2, 1, 300), np.linspace(1, 3, 300)]
    assert bool(findings(NAME, make_run(series(LOSS, loss), series(GRAD_NORM, norms)))) is found


def test_layers_stand_for_the_whole() -> None:
    norms = np.r_[np.ones(300), np.full(300, 50.0)]
    loss = series(LOSS, np.r_[np.linspace(2, 1, 300), np.linspace(1, 3, 300)])
    layers = [series(GRAD_NORM, norms * (i + 1), layer=f"{i}.weight") for i in range(4)]
    assert finding(NAME, make_run(loss, *layers)).span.first == pytest.approx(300, abs=10)


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


def test_too_few_norms() -> None:
    cannot_judge(NAME, make_run(series(LOSS, [1.0] * 9), series(GRAD_NORM, [1.0] * 9)), "12 are needed")
