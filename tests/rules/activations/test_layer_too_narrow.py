"""ACT010 layer-too-narrow."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import LOSS
from tests.hooked import mlp, watch
from tests.rules.activations.trainings import adam, run_of, sgd
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "layer-too-narrow"


@pytest.mark.parametrize(("width", "optimizer"), [(2, adam(3e-3)), (2, sgd(0.05))])
def test_ten_classes_through_two_units(width: int, optimizer: object) -> None:
    run = watch(lambda: mlp(64, 32, width, 10), optimizer=optimizer, epochs=14)  # type: ignore[arg-type]
    found = finding(NAME, run, Severity.WARNING)
    assert found.message.startswith("the last hidden layer has 2 units for 10 classes")
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.knob == "width"
    assert diagnose(run).diagnoses[0].root.rule == NAME


@pytest.mark.parametrize("training", ["plain", "bottleneck", "gelu"])
def test_layers_that_are_wide_enough(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def made(units: int, classes: int = 10, ends: float = 1.5, steps: int = 400) -> Run:
    layers = f'[["a","affine",20,{units},"",""],["b","rectifier",0,0,"","a"],["c","affine",{units},{classes},"","b"]]'
    return make_run(series(LOSS, np.linspace(np.log(classes), ends, steps)), layers=layers, classes=classes)


@pytest.mark.parametrize(
    ("units", "classes", "found"), [(6, 10, True), (7, 10, False), (2, 4, True), (3, 4, False), (512, 50_000, False)]
)
def test_boundary_of_the_width(units: int, classes: int, found: bool) -> None:
    assert bool(findings(NAME, made(units, classes, ends=0.6 * float(np.log(classes))))) is found


@pytest.mark.parametrize(("ends", "found"), [(0.36, False), (0.46, True)])
def test_boundary_of_the_loss_that_is_left(ends: float, found: bool) -> None:
    assert bool(findings(NAME, made(2, ends=ends))) is found


def test_it_abstains() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.linspace(2.3, 1, 400))), "classes")
    assert findings(NAME, made(2, steps=100)) == []  # it may still come
