"""ACT006 missing-nonlinearity."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, LOSS
from tests.hooked import mlp, watch
from tests.rules.activations.trainings import run_of, sgd
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series
from torch import nn

NAME = "missing-nonlinearity"


def test_a_linear_model_for_a_ring() -> None:
    found = finding(NAME, run_of("linear"), Severity.WARNING)
    assert "the model is linear: 3 layers" in found.message


def test_a_forgotten_activation() -> None:
    def build() -> nn.Module:
        parts = list(mlp(64, 32, 32, 10))
        return nn.Sequential(*parts[:1], nn.Dropout(0.1), *parts[2:])

    found = finding(NAME, watch(build, optimizer=sgd(0.1), epochs=1), Severity.NOTE)
    assert "0 and 2" in found.message


@pytest.mark.parametrize(
    "training", ["plain", "functional", "bottleneck", "residual without norm", "pre-activation", "attention", "gelu"]
)
def test_layers_with_something_between_them(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def made(middle: int, inputs: int = 16) -> Run:
    layers = (
        f'[["a","affine",{inputs},{middle},"",""],["b","affine",{middle},16,"rectifier","a"],["c","affine",16,2,"",""]]'
    )
    return make_run(series(LOSS, np.linspace(2.3, 0.1, 400)), layers=layers)


@pytest.mark.parametrize(("middle", "found"), [(15, False), (16, True)])
def test_boundary_of_a_low_rank_factor(middle: int, found: bool) -> None:
    assert bool(findings(NAME, made(middle))) is found


def test_a_grouped_convolution_is_half_of_one() -> None:
    assert findings(NAME, made(16, inputs=0)) == []


def test_without_connections_nothing_is_said() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.linspace(2, 1, 50))), "connected")


def test_it_accounts_for_a_model_that_learns_nothing() -> None:
    """A linear model of a task that no straight line helps with (a checkerboard, a ring) stays at guessing."""
    layers = '[["a","affine",2,16,"",""],["b","affine",16,16,"","a"],["c","affine",16,2,"","b"]]'
    loss = 0.693 + 0.003 * np.random.default_rng(0).standard_normal(400)
    run = make_run(series(LOSS, loss), series(ACCURACY, 0.5 + 0 * loss), layers=layers, classes=2)
    (diagnosis,) = [d for d in diagnose(run).diagnoses if d.root.severity is not Severity.NOTE]
    assert diagnosis.root.rule == NAME
    assert "no-learning" in {f.rule for f in diagnosis.explains}


@pytest.mark.parametrize(("ends", "severity"), [(0.25, Severity.WARNING), (0.21, Severity.NOTE)])
def test_boundary_of_what_a_straight_line_solves(ends: float, severity: Severity) -> None:
    layers = '[["a","affine",2,16,"",""],["b","affine",16,2,"","a"]]'
    run = make_run(series(LOSS, np.r_[np.linspace(2.3, ends, 100), np.full(300, ends)]), layers=layers, classes=10)
    assert finding(NAME, run, severity)
