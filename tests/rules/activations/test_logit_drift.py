"""ACT008 logit-drift."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import LOGIT_ABSMAX, LOSS
from tests.rules.activations.trainings import run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "logit-drift"


@pytest.mark.parametrize("training", ["growing weights", "rising rate"])
def test_outputs_that_grow_while_the_loss_rises(training: str) -> None:
    assert finding(NAME, run_of(training), Severity.WARNING).could_be == ("lr-too-high",)


@pytest.mark.parametrize("training", ["separable", "plain", "convolutional", "growing, adam"])
def test_outputs_that_grow_as_the_data_are_separated(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def made(doublings: float, *, rise: float = 1.0, last: float = 200.0) -> Run:
    t = np.linspace(0, 1, 100)
    noise = 0.01 * np.random.default_rng(0).standard_normal(400)
    loss = np.where(np.linspace(0, 1, 400) < 0.4, np.linspace(2.3, 1.0, 400), 1.0) + noise
    loss[200:] += rise * np.linspace(0, 1, 200)
    return make_run(series(LOSS, loss), series(LOGIT_ABSMAX, last * 2 ** (4 * doublings * (t - 1)), 4 * np.arange(100)))


@pytest.mark.parametrize(("doublings", "found"), [(0.95, False), (1.05, True)])
def test_boundary_of_the_growth(doublings: float, found: bool) -> None:
    assert bool(findings(NAME, made(doublings))) is found


def test_without_harm_or_size_nothing_is_said() -> None:
    assert findings(NAME, made(2, rise=0.0)) == []
    assert findings(NAME, made(2, last=20.0)) == []


def test_few_records_are_too_few() -> None:
    cannot_judge(NAME, run_of("plain").until(60), "records")
