"""DAT002 outlying-batches."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_RMS, LOSS, WEIGHT_NORM
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

NAME = "outlying-batches"
LAYERS = '[["0","affine",20,48,"",""],["1","rectifier",0,0,"","0"],["2","affine",48,10,"","1"]]'


def recorded(scales: np.ndarray, loss: np.ndarray | None = None) -> Run:
    """A run whose first layer shows inputs of these sizes, every tenth step; guessing costs ln 10."""
    steps = np.arange(len(scales)) * 10
    weights = np.linspace(4, 8, len(scales))
    return make_run(
        series(LOSS, np.linspace(2.3, 0.2, 10 * len(scales)) if loss is None else loss, per="step"),
        series(ACTIVATION_RMS, scales * weights, steps, layer="0"),
        series(WEIGHT_NORM, weights, steps, layer="0.weight"),
        layers=LAYERS, classes=10, loss_function="CrossEntropyLoss", finished=True,
    )  # fmt: skip


def sizes(times: float, n: int = 60) -> np.ndarray:
    found = np.exp(0.05 * np.sin(7.0 * np.arange(n)))
    found[[20, 45]] *= times
    return found


@pytest.mark.parametrize(("times", "found"), [(1.0, False), (4.4, False), (6.0, True), (1000.0, True)])
def test_boundary_of_size(times: float, found: bool) -> None:
    told = findings(NAME, recorded(sizes(times)))
    assert [f.severity for f in told] == ([Severity.NOTE] if found else [])
    if found:
        assert f"2 of 60 recorded batches are up to {times:.2g}"[:30] in told[0].message
        assert [step for step, _ in told[0].evidence[0].marks] == [200, 450]


@pytest.mark.parametrize("seed", range(4))
def test_heavy_tails_and_drifts_are_no_outliers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert not findings(NAME, recorded(np.exp(rng.normal(0, 0.9, 60))))
    assert not findings(NAME, recorded(np.geomspace(1, 500, 60) * np.exp(rng.normal(0, 0.05, 60))))


@pytest.mark.parametrize(("height", "severity"), [(20.0, Severity.NOTE), (60.0, Severity.WARNING)])
def test_the_boundary_of_harm_is_a_share_of_all_loss(height: float, severity: Severity) -> None:
    """Ten steps of 20 are a sixth of the loss of 600 others, ten of 60 are more than a third."""
    loss = np.linspace(2.3, 0.2, 600)
    loss[50::60] = height
    found = finding(NAME, recorded(sizes(100.0), loss), severity)
    assert found.confidence is (Confidence.MEDIUM if severity is Severity.NOTE else Confidence.HIGH)


def test_a_loss_that_never_comes_back_is_an_error_and_the_rate_its_effect() -> None:
    loss = np.r_[np.linspace(2.3, 1.0, 200), [60.0], np.full(399, 2.4)]
    run = recorded(sizes(100.0), loss)
    finding(NAME, run, Severity.ERROR)
    worse = [d.root.rule for d in diagnose(run).diagnoses if d.root.severity is not Severity.NOTE]
    assert worse == [NAME]
    calm = np.r_[np.linspace(2.3, 1.0, 200), np.full(400, 2.4)]
    finding(NAME, recorded(sizes(100.0), calm), Severity.NOTE)  # nothing shows that those batches did it


@pytest.mark.parametrize("name", ["other units", "other units, Adam"])
def test_batches_in_other_units(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.watched(name)
    found = finding(NAME, run)
    assert found.severity is not Severity.NOTE
    assert found.remedies[0].change is not None
    assert found.remedies[0].change.knob == "outlying_examples"
    assert diagnose(run).diagnoses[0].root.rule == NAME
    assert not findings(NAME, watched.cured(name))


def test_it_abstains() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.ones(60))), "activation_rms")
    cannot_judge(NAME, recorded(sizes(10.0)[:19]), "20 are needed")
