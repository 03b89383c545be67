"""NUM002 hidden-nonfinite."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Note, Run
from fitdoctor.signals import GRAD_NORM, LOSS
from tests.digits import HEALTHY, Recipe, train
from tests.rules.judging import cannot_judge, finding, findings, make_run, series

NAME = "hidden-nonfinite"


def filtered(run: Run) -> Run:
    """The run as the Hugging Face Trainer logs it: nan losses become 0."""
    loss, norm = run.get(LOSS), run.get(GRAD_NORM)
    assert loss is not None
    assert norm is not None
    return make_run(series(LOSS, np.nan_to_num(loss.values, nan=0.0), loss.steps), norm)


def test_a_real_run_behind_the_filter() -> None:
    found = finding(NAME, filtered(train(Recipe(poison_at=300))), Severity.ERROR)
    assert found.span.first == 300
    assert any("logging_nan_inf_filter=False" in r.code.get("transformers", "") for r in found.remedies)


def test_a_real_trainer_log() -> None:
    """Values of a run of transformers 5.23 whose model returned nan from step 5 on."""
    rows = json.loads((Path(__file__).parent / "hf_trainer_nan.json").read_text())
    steps = [r["step"] for r in rows]
    run = make_run(
        series(LOSS, [r["loss"] for r in rows], steps), series(GRAD_NORM, [float(r["grad_norm"]) for r in rows], steps)
    )
    assert finding(NAME, run, Severity.ERROR).span.first == 5


def test_a_loss_that_really_reaches_zero() -> None:
    steps = np.arange(40)
    hinge = np.maximum(0, 1 - steps / 20)
    assert findings(NAME, make_run(series(LOSS, hinge), series(GRAD_NORM, hinge))) == []
    assert findings(NAME, make_run(series(LOSS, hinge))) == []


def test_without_gradient_norms_a_sudden_zero_is_suspect() -> None:
    run = make_run(series(LOSS, [1.1, 1.0, 1.0, 0.9, 0.0, 0.0, 0.0]))
    found = finding(NAME, run, Severity.WARNING)
    assert found.span.first == 4
    assert "nonfinite-loss" in found.could_be


@pytest.mark.parametrize(("zeros", "suspect"), [(2, False), (3, True)])
def test_boundary_of_the_sudden_zero(zeros: int, suspect: bool) -> None:
    assert bool(findings(NAME, make_run(series(LOSS, [1.1, 1.0, 1.0] + [0.0] * zeros)))) is suspect


def test_a_reader_that_saw_it() -> None:
    note = Note("hidden-nonfinite", "rows 7 to 12 have no loss", step=7)
    found = finding(NAME, make_run(series(LOSS, [1.0, 0.9, 0.8], [1, 5, 20]), notes=[note]), Severity.ERROR)
    assert found.evidence[0].observed == "rows 7 to 12 have no loss"


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


def test_without_a_loss_it_abstains() -> None:
    cannot_judge(NAME, make_run(series(GRAD_NORM, [1.0])), "no train loss")
