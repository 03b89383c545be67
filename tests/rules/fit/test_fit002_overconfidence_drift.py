from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.fit.fit002_overconfidence_drift import overconfidence_drift
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize(("name", "severity"), [("overconfident", "warning"), ("overconfident, tumours", "note")])
def test_a_training_that_only_grows_surer(name: str, severity: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(overconfidence_drift, trainings.run_of(name))
    assert finding.severity == severity
    assert finding.could_be == ("overfitting",)
    truth, early = trainings.training(name).truth, trainings.cured(name).truth
    assert truth["oracle accuracy"] > early["oracle accuracy"] - 0.04  # few more mistakes than at its best loss


@pytest.mark.parametrize("name", ["noisy labels", "40 examples", "sound", "sound adam", "dropout", "label smoothing",
                                  "warm restarts", "poisoned"])  # fmt: skip
def test_a_training_that_overfits_or_holds(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(overconfidence_drift, trainings.run_of(name))


def curves(rise: float, lost: float = 0.0, n: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    t = np.arange(n) / n
    late = np.clip(t - 1 / 3, 0, None) * 1.5
    return {
        "train_loss": 2 - 1.5 * t,
        "val_loss": np.where(t < 1 / 3, 2 - 3 * t, 1 + rise * late) + 0.005 * rng.standard_normal(n),
        "val_accuracy": np.where(t < 1 / 3, 0.3 + 1.8 * t, 0.9 - lost * late) + 0.002 * rng.standard_normal(n),
    }


@pytest.mark.parametrize(("rise", "severity"), [(0.03, None), (0.2, "note"), (0.9, "warning")])
def test_the_rise_decides_the_severity(rise: float, severity: str | None) -> None:
    if severity is None:
        is_silent(overconfidence_drift, make_run(**curves(rise)))
    else:
        assert finds(overconfidence_drift, make_run(**curves(rise))).severity == severity


def test_accuracy_that_falls_makes_it_overfitting() -> None:
    is_silent(overconfidence_drift, make_run(**curves(0.9, lost=0.2)))


def test_a_training_loss_that_rises_makes_it_something_else() -> None:
    made = curves(0.9)
    is_silent(overconfidence_drift, make_run(**{**made, "train_loss": made["val_loss"] - 0.1}))


def test_it_abstains() -> None:
    made = curves(0.9)
    no_metric = make_run(train_loss=made["train_loss"], val_loss=made["val_loss"])
    assert "no val accuracy or other metric" in check_skips(overconfidence_drift, no_metric)
    check_skips(overconfidence_drift, make_run(train_loss=[1.0] * 9), "no val loss or test loss logged")
