"""ACT005 symmetric-init."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import LOSS, WEIGHT_ROWS_ALIKE
from tests.rules.activations.trainings import SOUND, run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "symmetric-init"
LAYERS = '[["a","affine",8,8,"rectifier",""],["b","affine",8,2,"",""]]'


@pytest.mark.parametrize("training", ["constant", "zero"])
def test_weights_that_begin_equal(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.ERROR)
    assert found.remedies[0].title.startswith("draw the initial weights at random")
    alarms = [d.root.rule for d in diagnose(run_of(training)).diagnoses if d.root.severity is not Severity.NOTE]
    assert alarms == [NAME]


@pytest.mark.parametrize("training", ["plain", "attention", "convolutional", "frozen", "pre-activation", "rate kills"])
def test_random_weights(training: str) -> None:
    assert training in SOUND or training == "rate kills"
    assert findings(NAME, run_of(training)) == []


def made(alike: list[float], *, layer: str = "a.weight", **facts: str) -> Run:
    steps = [4**i for i in range(len(alike))]
    return make_run(
        series(LOSS, np.linspace(2.3, 2.2, 400)),
        series(WEIGHT_ROWS_ALIKE, alike, steps, layer=layer),
        finished=True,
        **facts,
    )


@pytest.mark.parametrize(("alike", "found"), [([1, 1, 0.9], True), ([1, 1, 0.88], False), ([0.88, 1, 1], False)])
def test_boundary_of_the_share(alike: list[float], found: bool) -> None:
    assert bool(findings(NAME, made(alike, layers=LAYERS))) is found


def test_zeros_in_the_last_layer_are_wanted() -> None:
    assert findings(NAME, made([1, 1, 1], layer="b.weight", layers=LAYERS)) == []


def test_one_step_says_nothing() -> None:
    cannot_judge(NAME, made([1, 1], layers=LAYERS), "up to step 4")
    cannot_judge(NAME, made([1, 1, 1]), "which weights belong")
