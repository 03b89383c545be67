"""NUM001 nonfinite-loss."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS
from fitdoctor.testing import make_run as made
from tests.digits import HEALTHY, Recipe, train
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "nonfinite-loss"


def test_one_bad_sample_without_a_precursor() -> None:
    found = finding(NAME, train(Recipe(poison_at=300)), Severity.ERROR)
    assert found.span.first == 300
    assert found.message == "training loss is nan from step 300 on, without a rise before it"
    assert "a bad sample" in found.could_be
    assert found.remedies[0].title.startswith("find the operation")


def test_a_divergence_ends_in_it() -> None:
    found = finding(NAME, train(Recipe(gain=3.0, lr=0.5, depth=3)), Severity.ERROR)
    assert "after a steep rise" in found.message
    assert "lr-too-high" in found.could_be


def test_too_sparse_to_tell_what_came_before() -> None:
    loss = train(Recipe(poison_at=300)).get(LOSS)
    assert loss is not None
    found = finding(NAME, make_run(loss[::40]), Severity.ERROR)
    assert found.message == "training loss is nan from step 320 on"
    assert {"lr-too-high", "a bad sample"} <= set(found.could_be)
    assert "log loss" in found.settle_with


def test_one_skipped_step_is_a_warning() -> None:
    values = np.linspace(2, 1, 100)
    values[40] = np.inf
    found = finding(NAME, make_run(series(LOSS, values)), Severity.WARNING)
    assert found.message == "training loss was infinite at step 40 and 1 times in all, without a rise before it"


def test_validation_alone() -> None:
    run = make_run(
        series(LOSS, np.linspace(2, 1, 50)), series(LOSS, [1, np.nan, 1, np.nan], [9, 19, 29, 39], split="val")
    )
    found = finding(NAME, run, Severity.WARNING)
    assert found.message == "val loss is nan at step 19 and 2 times in all while the training loss is finite"
    assert found.confidence is Confidence.MEDIUM


@pytest.mark.parametrize("recipe", HEALTHY)
def test_healthy_runs_have_none(recipe: Recipe) -> None:
    assert findings(NAME, train(recipe)) == []


def test_huge_but_finite_is_not_its_business() -> None:
    assert findings(NAME, make_run(series(LOSS, [1e300, 1e308, 5e307]))) == []


def test_an_infinite_gradient_norm_alone_is_a_skipped_amp_step() -> None:
    norms = np.ones(50)
    norms[3] = np.inf
    assert findings(NAME, make_run(series(LOSS, np.linspace(2, 1, 50)), series(GRAD_NORM, norms))) == []


def test_without_any_loss_it_abstains() -> None:
    cannot_judge(NAME, make_run(series(ACCURACY, [0.1, 0.9])), "no train loss")


@pytest.mark.parametrize(("rise", "diverged"), [(9.0, False), (11.0, True)])
def test_boundary_of_the_rise(rise: float, diverged: bool) -> None:
    values = np.r_[np.ones(60), np.full(3, rise), np.nan]
    assert ("after a steep rise" in finding(NAME, make_run(series(LOSS, values))).message) is diverged


# --- where hooks saw it begin ------------------------------------------------------------------------


def test_hooks_name_the_layer_and_what_they_did_not_see_is_not_named() -> None:
    torch = pytest.importorskip("torch")
    from tests.hooked import mlp, watch

    class Log(torch.nn.Module):
        calls = 0

        def forward(self, x: object) -> object:
            self.calls += 1
            return torch.log(x.abs()) if self.calls == 40 else x  # type: ignore[attr-defined]

    run = watch(
        lambda: torch.nn.Sequential(mlp(64, 32, 32), torch.nn.ReLU(), Log(), torch.nn.Linear(32, 10)),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=3,
        every=1,
    )
    found = finding(NAME, run, Severity.ERROR)
    assert found.message == f"training loss is nan from step {found.onset} on; first in the output of 2"
    assert finding(NAME, run.with_facts(nonfinite_name=2)).message == found.message  # as a log gives it back
    later = run.with_facts(nonfinite_step=found.onset + 1)
    assert "first in" not in finding(NAME, later).message
    unsure = run.with_facts(nonfinite_sure=False)
    assert "seen first in the output of 2" in finding(NAME, unsure).message


@pytest.mark.parametrize(("step_length", "culprit"), [(0.01, True), (3.0, False)])
def test_a_first_layer_that_breaks_with_sound_weights_was_fed_a_bad_example(step_length: float, culprit: bool) -> None:
    loss = np.full(60, 0.7)
    loss[8:] = np.nan
    run = made(
        train_loss=loss,
        update_ratio=np.full(60, step_length),
        weight_norm=np.full(60, 5.0),
        facts={
            "layers": '[["0","affine",20,48,"",""],["1","rectifier",0,0,"","0"],["2","affine",48,4,"","1"]]',
            "nonfinite_place": "forward",
            "nonfinite_name": "0",
            "nonfinite_step": 8,
            "nonfinite_sure": True,
        },
        per="step",
    )
    change = finding(NAME, run, Severity.ERROR).remedies[0].change
    assert (change is not None and change.knob == "nonfinite_examples") is culprit
    behind = finding(NAME, run.with_facts(nonfinite_name="2"), Severity.ERROR).remedies[0]
    assert behind.change is None
