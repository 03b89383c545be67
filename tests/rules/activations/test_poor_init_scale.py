"""ACT003 poor-init-scale."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_RMS, LOSS
from tests.rules.activations.trainings import run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "poor-init-scale"


@pytest.mark.parametrize("training", ["growing", "growing, adam"])
def test_weights_that_are_too_large(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.ERROR)
    assert "grow" in found.message
    change = found.remedies[0].change
    assert change is not None
    assert change.knob == "initialisation"


@pytest.mark.parametrize(("training", "factor"), [("fading", 0.3), ("default, deep", 6**-0.5)])
def test_weights_that_are_too_small(training: str, factor: float) -> None:
    """He's gain over the gain used: 0.3 as set here, and the root of a sixth for PyTorch's default."""
    found = finding(NAME, run_of(training), Severity.ERROR)
    assert "fade" in found.message
    stated = re.search(r"factor of about ([\d.]+)", found.remedies[0].why)
    assert stated is not None
    assert float(stated[1]) == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize("training", ["growing", "growing, adam", "fading", "default, deep"])
def test_it_is_the_one_root(training: str) -> None:
    alarms = [d.root.rule for d in diagnose(run_of(training)).diagnoses if d.root.severity is not Severity.NOTE]
    assert alarms == [NAME]


@pytest.mark.parametrize(
    "training",
    ["six layers", "gelu", "sixteen layers, he", "tanh, xavier", "selu", "convolutional", "pre-activation",
     "residual without norm", "sigmoids"],
)  # fmt: skip
def test_sound_scales(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def made(decades: float, *, layers: int = 8, ends: float = 2.2, first: int = 1) -> Run:
    outputs = [
        series(
            ACTIVATION_RMS, np.full(40, 10 ** (decades * i / (layers - 2))), first + 10 * np.arange(40), layer=f"{i}"
        )
        for i in range(layers)
    ]
    return make_run(series(LOSS, np.linspace(2.3, ends, 400), first + np.arange(400)), *outputs, finished=True)


@pytest.mark.parametrize(("decades", "found"), [(1.9, False), (2.1, True), (-2.9, False), (-3.1, True)])
def test_boundary_of_growth_and_decay(decades: float, found: bool) -> None:
    assert bool(findings(NAME, made(decades))) is found


def test_what_trains_through_it_is_a_note() -> None:
    assert finding(NAME, made(4, ends=0.2), Severity.NOTE)


def test_a_resumed_run_does_not_show_its_start() -> None:
    cannot_judge(NAME, made(4, first=5000), "first steps")


def test_three_layers_are_too_few() -> None:
    cannot_judge(NAME, made(4, layers=4), "3 layers")
