"""ACT002 saturated-activations."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_SATURATED_FRACTION, LOSS
from tests.rules.activations.trainings import run_of
from tests.rules.one_rule import finding, findings, make_run, series

NAME = "saturated-activations"
LAYERS = '[["fc","affine",8,8,"",""],["s","saturating",0,0,"","fc"],["out","affine",8,2,"","s"]]'


@pytest.mark.parametrize("training", ["unscaled inputs", "unscaled, functional"])
def test_inputs_far_from_zero(training: str) -> None:
    found = finding(NAME, run_of(training), Severity.WARNING)
    assert "from the start" in found.message
    assert found.remedies[0].title.startswith("standardise the inputs")


def test_weights_that_are_too_large() -> None:
    assert finding(NAME, run_of("saturated weights"), Severity.ERROR).confidence is Confidence.HIGH


@pytest.mark.parametrize("training", ["sigmoid", "tanh, xavier", "gated", "sigmoids"])
def test_units_in_their_range_and_gates(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def made(share: float, *, ends: float = 2.2, **facts: str) -> Run:
    return make_run(
        series(LOSS, np.linspace(2.3, ends, 400)),
        series(ACTIVATION_SATURATED_FRACTION, np.full(40, share), 10 * np.arange(40), layer="s"),
        finished=True,
        **facts,
    )


@pytest.mark.parametrize(("share", "found"), [(0.5, False), (0.51, True)])
def test_boundary_of_the_share(share: float, found: bool) -> None:
    assert bool(findings(NAME, made(share, layers=LAYERS))) is found


def test_a_gate_multiplies_and_feeds_no_layer() -> None:
    assert findings(NAME, made(0.9, layers=LAYERS.replace('"","s"', '"",""'))) == []


def test_where_the_run_does_not_tell_its_layers_the_last_one_may_be_the_output() -> None:
    run = made(0.9)
    assert findings(NAME, run) == []
    more = series(ACTIVATION_SATURATED_FRACTION, np.full(40, 0.9), 10 * np.arange(40), layer="t")
    assert finding(NAME, make_run(*run.series, more)).confidence is Confidence.LOW


def test_a_solved_task_may_saturate() -> None:
    assert findings(NAME, made(0.9, ends=0.3, layers=LAYERS)) == []
