"""GRD002 vanishing-gradients."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.signals import GRAD_NORM, LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series

NAME = "vanishing-gradients"
SIGMOID = Recipe(depth=10, activation="sigmoid", layers=True, epochs=10)
DEEP = Recipe(depth=16, layers=True, epochs=10)


@pytest.mark.parametrize("recipe", [SIGMOID, DEEP])
def test_deep_plain_networks(recipe: Recipe) -> None:
    found = finding(NAME, train(recipe), Severity.ERROR)
    assert "0.weight" in found.message
    assert found.remedies[0].title.startswith("give the gradient a short path")


def test_an_unknown_optimizer_leaves_doubt() -> None:
    run = train(SIGMOID)
    found = finding(NAME, make_run(*run.series), Severity.WARNING)
    assert "update ratio" in found.settle_with


def test_under_adam_it_is_a_note() -> None:
    assert finding(NAME, train(SIGMOID).with_facts(optimizer="AdamW"), Severity.NOTE)


def layered(falls: float, *, ends: float) -> object:
    layers = [series(GRAD_NORM, np.full(100, 10 ** (falls * i / 9)), layer=f"net.{i}.weight") for i in range(10)]
    return make_run(series(LOSS, np.linspace(1, ends, 100)), *layers, optimizer="SGD")


@pytest.mark.parametrize(("falls", "found"), [(3.0, False), (5.5, True)])
def test_boundary_between_the_thirds(falls: float, found: bool) -> None:
    assert bool(findings(NAME, layered(falls, ends=0.95))) is found  # type: ignore[arg-type]


def test_a_solved_task_has_small_gradients_everywhere() -> None:
    assert findings(NAME, layered(6.0, ends=0.2)) == []  # type: ignore[arg-type]


def test_converged_layers_shrink_together() -> None:
    fading = 10 ** -np.linspace(0, 5, 100)
    layers = [series(GRAD_NORM, fading * (i + 1), layer=f"net.{i}.weight") for i in range(8)]
    assert findings(NAME, make_run(series(LOSS, np.linspace(1, 0.9, 100)), *layers)) == []


def test_frozen_layers_are_left_out() -> None:
    frozen = [series(GRAD_NORM, np.zeros(100), layer=f"net.{i}.weight") for i in range(4)]
    live = [series(GRAD_NORM, np.ones(100), layer=f"net.{i}.weight") for i in range(4, 8)]
    assert findings(NAME, make_run(series(LOSS, np.linspace(1, 0.9, 100)), *frozen, *live)) == []


def test_the_whole_norm_dies_before_anything_is_learned() -> None:
    norms = 10 ** -np.linspace(0, 6, 200)
    found = finding(NAME, make_run(series(LOSS, np.full(200, 2.3)), series(GRAD_NORM, norms)), Severity.WARNING)
    assert "dead-relu" in found.could_be
    assert findings(NAME, make_run(series(LOSS, np.linspace(2.3, 0.01, 200)), series(GRAD_NORM, norms))) == []


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


def test_two_layers_are_too_few() -> None:
    layers = [series(GRAD_NORM, np.ones(10), layer=f"{i}.weight") for i in range(2)]
    cannot_judge(NAME, make_run(series(LOSS, np.ones(10)), *layers), "2 comparable layers")


def test_depth_is_read_from_the_numbers_of_the_names() -> None:
    run = train(DEEP)
    shuffled = make_run(*sorted(run.series, key=lambda s: str(s.signal)), optimizer="sgd")
    assert finding(NAME, shuffled).message == finding(NAME, run).message
