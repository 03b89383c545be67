"""ACT004 input-collapse."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_INPUT_SPREAD, LOSS
from tests.rules.activations.trainings import run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "input-collapse"


@pytest.mark.parametrize("training", ["default, deep", "sigmoids"])
def test_depth_that_loses_the_input(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.ERROR)
    assert "inputs move the output of layer" in found.message


def test_a_loader_that_repeats_itself() -> None:
    found = finding(NAME, run_of("one image"), Severity.ERROR)
    assert "all inputs look alike" in found.message
    assert "the data loader repeats one sample" in found.could_be


@pytest.mark.parametrize("training", ["six layers", "gelu", "unscaled inputs", "gated", "recurrent", "convolutional"])
def test_layers_that_tell_inputs_apart(training: str) -> None:
    run = run_of(training)
    if training == "recurrent":
        cannot_judge(NAME, run, "2 are needed")
    else:
        assert findings(NAME, run) == []


def made(last: float, *, first: float = 0.7, ends: float = 2.2) -> Run:
    spreads = [first, 0.3, last, 1.0]
    layers = [
        series(ACTIVATION_INPUT_SPREAD, np.full(40, s), 10 * np.arange(40), layer=f"{i}.fc")
        for i, s in enumerate(spreads)
    ]
    return make_run(series(LOSS, np.linspace(2.3, ends, 400)), *layers, finished=True)


@pytest.mark.parametrize(("spread", "found"), [(0.0101, False), (0.0099, True)])
def test_boundary_of_the_spread(spread: float, found: bool) -> None:
    assert bool(findings(NAME, made(spread))) is found


def test_what_learns_is_left_alone() -> None:
    assert findings(NAME, made(0.001, ends=0.3)) == []
    assert finding(NAME, made(0.001, ends=1.5), Severity.WARNING)


LAYERS = '[["0.fc","affine",8,8,"",""],["1.fc","affine",8,8,"","0.fc"],["2.fc","affine",8,8,"","1.fc"]]'


def born(output: float, *, first: float = 0.7, waits: float = 0.3, ends: float = 0.3, steps: int = 400) -> Run:
    """A net whose output did not depend on the input at first, and does later."""
    spreads = {"0.fc": first, "1.fc": 0.5, "2.fc": output}
    records = np.arange(0, steps, 10)
    layers = [
        series(ACTIVATION_INPUT_SPREAD, np.where(records == 0, s, 0.8), records, layer=name)
        for name, s in spreads.items()
    ]
    t = np.arange(steps) / steps
    loss = np.where(t < waits, 2.3, ends + (2.3 - ends) * np.exp(-30 * (t - waits)))
    return make_run(series(LOSS, loss), *layers, finished=True, layers=LAYERS)


@pytest.mark.parametrize(("output", "found"), [(0.0101, False), (0.0099, True)])
def test_boundary_of_the_first_output(output: float, found: bool) -> None:
    assert bool(findings(NAME, born(output))) is found


def test_a_net_that_is_born_so_and_loses_time() -> None:
    found = finding(NAME, born(0.002), Severity.WARNING)
    assert "before training the inputs move the output by 0.20% of its size; the loss rests until" in found.message
    assert found.span.first == 0
    assert finding(NAME, born(0.002, waits=0.0, ends=1.5), Severity.WARNING)  # or never gets far
    assert finding(NAME, born(0.002, ends=2.2), Severity.ERROR)


@pytest.mark.parametrize(("waits", "found"), [(0.05, False), (0.15, True)])
def test_boundary_of_the_time_lost(waits: float, found: bool) -> None:
    assert bool(findings(NAME, born(0.002, waits=waits))) is found


def test_inputs_that_differ_little_from_the_start_are_not_lost_on_the_way() -> None:
    assert findings(NAME, born(0.005, first=0.04)) == []
    assert findings(NAME, born(0.0005, first=0.009)) == []
