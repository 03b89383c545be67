"""SET001 double-softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series, warned

NAME = "double-softmax"
SICK = Recipe(double_softmax=True, optimizer="adam", lr=3e-3)


def split_of(run: Run, split: str, **facts: int) -> Run:
    loss, accuracy = run.get(LOSS, split), run.get(ACCURACY, split)
    assert loss is not None
    assert accuracy is not None
    return make_run(loss, accuracy, **facts)


def test_a_real_run_with_classes_read_off_its_first_loss() -> None:
    found = finding(NAME, train(SICK), Severity.WARNING)
    assert found.confidence is Confidence.HIGH
    assert "ln(1 + 9/e)" in found.evidence[0].expected
    assert found.remedies[0].title.startswith("remove the softmax")


def test_a_real_run_seen_by_its_validation_alone() -> None:
    assert finding(NAME, split_of(train(SICK), "val", classes=10), Severity.WARNING)


def test_a_real_run_without_accuracy() -> None:
    loss = train(Recipe(double_softmax=True, optimizer="adam", lr=3e-3, batch=250, epochs=80)).get(LOSS)
    assert loss is not None
    assert finding(NAME, make_run(loss), Severity.WARNING).confidence is Confidence.LOW


def test_label_smoothing_has_a_floor_too() -> None:
    smooth = train(Recipe(smoothing=0.2, optimizer="adam", lr=1e-3))
    cannot_judge(NAME, smooth, "label smoothing")
    assert findings(NAME, split_of(smooth, "train", classes=10)) == []


@pytest.mark.parametrize("recipe", [r for r in HEALTHY if not r.smoothing])
@pytest.mark.parametrize("split", ["train", "val"])
def test_healthy_runs_have_none(recipe: Recipe, split: str) -> None:
    assert warned(NAME, split_of(train(recipe), split, classes=10)) == []


@pytest.mark.parametrize(("accuracy", "found"), [(0.7, False), (0.8, True)])
def test_boundary_is_half_as_much_again_as_a_calibrated_model(accuracy: float, found: bool) -> None:
    floor = math.log(1 + 9 / math.e)
    reached = np.minimum(np.linspace(0.1, 2 * accuracy, 60), accuracy)
    loss = np.maximum(floor + 1 - reached, floor + 1 - accuracy)
    run = make_run(series(LOSS, np.minimum(loss, math.log(10))), series(ACCURACY, reached), classes=10)
    assert bool(findings(NAME, run)) is found


def test_two_classes_near_the_floor_by_chance() -> None:
    run = make_run(series(LOSS, np.linspace(0.69, 0.42, 60)), series(ACCURACY, np.linspace(0.5, 0.9, 60)), classes=2)
    assert findings(NAME, run) == []


def test_unknown_number_of_classes() -> None:
    run = make_run(
        series(LOSS, np.linspace(2, 1, 30), per="epoch"), series(ACCURACY, np.linspace(0, 1, 30), per="epoch")
    )
    cannot_judge(NAME, run, "set the fact classes")
    cannot_judge(NAME, make_run(series(LOSS, [2.3, 2.2]), classes=10), "60 training losses")
