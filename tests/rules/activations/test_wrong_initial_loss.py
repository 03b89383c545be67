"""ACT007 wrong-initial-loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Fact, Run
from fitdoctor.signals import ACCURACY, ACTIVATION_DEAD_FRACTION, ACTIVATION_ZERO_FRACTION, LOGIT_STD, LOSS
from tests.rules.activations.trainings import run_of
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "wrong-initial-loss"
FACTS: dict[str, Fact] = {
    "loss_function": "CrossEntropyLoss",
    "classes": 10,
    "batch_size": 64,
    "gradient_accumulation_steps": 1,
}


def test_outputs_that_are_too_sure() -> None:
    found = finding(NAME, run_of("shouting"), Severity.WARNING)
    change = found.remedies[0].change
    assert change is not None
    assert change.knob == "output_gain"
    assert isinstance(change.value, float)
    assert change.value < 0.01


def test_what_is_unlearned_soon_is_a_note() -> None:
    assert finding(NAME, run_of("large outputs"), Severity.NOTE)


def test_a_sum_is_named_as_such() -> None:
    found = finding(NAME, run_of("sum"), Severity.NOTE)
    assert "times the batch of 50, a sum" in found.message
    assert found.remedies[0].title.startswith("average the loss")


@pytest.mark.parametrize("training", ["plain", "sixteen layers, he", "convolutional", "attention", "linear", "zero"])
def test_models_that_begin_unsure(training: str) -> None:
    assert findings(NAME, run_of(training)) == []


def made(first: float, accuracy: float = 0.1, **more: Fact) -> Run:
    return make_run(
        series(LOSS, np.geomspace(first, 0.1, 400)),
        series(ACCURACY, np.linspace(accuracy, 0.9, 40), 10 * np.arange(40)),
        series(LOGIT_STD, np.ones(40), 10 * np.arange(40)),
        **{**FACTS, **more},
    )


@pytest.mark.parametrize(("ratio", "found"), [(1.9, False), (2.1, True), (0.85, False), (0.75, True)])
def test_boundaries_above_and_below(ratio: float, found: bool) -> None:
    assert bool(findings(NAME, made(ratio * math.log(10), batch_size=256))) is found


def test_a_small_batch_may_be_off_by_chance() -> None:
    assert findings(NAME, made(0.75 * math.log(10), batch_size=4)) == []


def test_a_pretrained_model_begins_below() -> None:
    assert findings(NAME, made(0.5, accuracy=0.8)) == []


def test_other_losses_and_resumed_runs_are_not_judged() -> None:
    cannot_judge(NAME, made(9.0, loss_function="MSELoss"), "cross-entropy")
    cannot_judge(NAME, made(9.0, resumed_at=100), "first step")


def test_units_that_its_first_steps_kill_are_its_effect() -> None:
    """The first gradients are as many times too large as the first loss."""
    layers = '[["fc","affine",8,8,"",""],["relu","rectifier",0,0,"","fc"],["out","affine",8,10,"","relu"]]'
    steps = 10 * np.arange(40)
    loss = np.where(np.arange(400) < 5, 33.0, 2.3)
    run = make_run(
        series(LOSS, loss),
        series(ACTIVATION_DEAD_FRACTION, np.where(steps < 20, 0.0, 1.0), steps, layer="relu"),
        series(ACTIVATION_ZERO_FRACTION, np.where(steps < 20, 0.5, 1.0), steps, layer="relu"),
        finished=True,
        layers=layers,
        **FACTS,
    )
    first = diagnose(run).diagnoses[0]
    assert first.root.rule == NAME
    assert "dead-relu" in {f.rule for f in first.explains}
