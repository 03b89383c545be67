"""ACT001 dead-relu."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_DEAD_FRACTION, ACTIVATION_INPUT_SPREAD, ACTIVATION_ZERO_FRACTION, LOSS
from tests.rules.activations.trainings import run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "dead-relu"
LAYERS = '[["fc","affine",8,8,"",""],["relu","rectifier",0,0,"","fc"],["out","affine",8,2,"","relu"]]'


@pytest.mark.parametrize("training", ["born dead", "functional, dead"])
def test_units_that_are_born_dead(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.ERROR)
    assert "from the start" in found.message
    assert found.onset == 1
    assert found.remedies[0].kind == "initialisation"


def test_units_that_a_high_rate_kills() -> None:
    found = finding(NAME, run_of("rate kills"), Severity.ERROR)
    assert 1 < found.onset < 50
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.knob == "learning_rate"


@pytest.mark.parametrize("training", ["plain", "sparse", "gelu", "frozen", "convolutional", "functional", "gated"])
def test_zeros_are_no_dead_units(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def test_a_net_that_learns_with_dead_units_has_a_note() -> None:
    assert finding(NAME, run_of("mostly dead"), Severity.NOTE).could_be


def made(dead: float, *, ends: float, records: int = 40, zeros: float = 0.9, **facts: str) -> Run:
    steps = 10 * np.arange(records)
    return make_run(
        series(LOSS, np.linspace(2.3, ends, 400)),
        series(ACTIVATION_DEAD_FRACTION, np.full(records, dead), steps, layer="relu"),
        series(ACTIVATION_ZERO_FRACTION, np.full(records, zeros), steps, layer="relu"),
        finished=True,
        layers=LAYERS,
        **({"loss_function": "CrossEntropyLoss", "classes": 10} | facts),
    )


@pytest.mark.parametrize(("dead", "found"), [(0.5, False), (0.52, True)])
def test_boundary_of_the_share(dead: float, found: bool) -> None:
    assert bool(findings(NAME, made(dead, ends=2.2))) is found


@pytest.mark.parametrize(("ends", "severity"), [(2.2, Severity.ERROR), (1.5, Severity.WARNING), (0.5, Severity.NOTE)])
def test_severity_follows_the_harm(ends: float, severity: Severity) -> None:
    assert finding(NAME, made(0.9, ends=ends), severity)


def test_a_floor_of_an_unknown_objective_may_be_high_by_nature() -> None:
    """An evidence bound, a contrastive loss: half of the first loss may be the best there is."""
    assert finding(NAME, made(0.9, ends=1.5, loss_function="", classes=0), Severity.NOTE)
    assert finding(NAME, made(0.9, ends=2.2, loss_function="", classes=0), Severity.ERROR)


def test_a_layer_of_zeros_needs_no_long_wait() -> None:
    assert "100%" in finding(NAME, made(0.0, ends=2.2, records=4, zeros=1.0)).message


def test_a_dead_layer_of_another_kind_is_not_judged() -> None:
    run = made(0.9, ends=2.2)
    assert findings(NAME, run.with_facts(layers=LAYERS.replace("rectifier", "other"))) == []


def test_a_few_steps_say_nothing() -> None:
    cannot_judge(NAME, run_of("born dead").until(20), "steps")


@pytest.mark.parametrize(("dead", "drive", "found"), [(0.7, 0.06, True), (0.7, 0.04, False), (0.9, 0.04, True)])
def test_where_the_data_hardly_move_a_layer_half_of_its_units_are_off_by_chance(
    dead: float, drive: float, found: bool
) -> None:
    layers = '[["fc","affine",8,8,"",""],["relu","rectifier",0,0,"","fc"],["out","affine",8,2,"","relu"]]'
    steps = 10 * np.arange(40)
    spread = series(ACTIVATION_INPUT_SPREAD, np.where(steps == 0, drive, 0.8), steps, layer="fc")
    run = made(dead, ends=2.2)
    assert bool(findings(NAME, make_run(*run.series, spread, finished=True, layers=layers))) is found
