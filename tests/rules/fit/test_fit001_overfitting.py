"""How often the rule is wrong on artificial curves is tests/test_generalisation.py."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.fit.fit001_overfitting import overfitting
from fitdoctor.signals import ACCURACY
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize(
    ("name", "best"), [("40 examples", (4, 40)), ("noisy labels", (10, 120)), ("overfitted regression", (3, 90))]
)
def test_a_training_that_was_better_earlier(name: str, best: tuple[int, int]) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(overfitting, trainings.run_of(name))
    assert finding.severity == "error"
    assert best[0] <= finding.onset <= best[1]
    advice = finding.remedies[0].change
    assert advice is not None
    assert (advice.knob, advice.value) == ("checkpoint", finding.onset)


@pytest.mark.parametrize("name", ["sound", "sound adam", "sound regression", "sound tumours", "warm restarts",
                                  "dropout", "label smoothing", "tiny val set", "edge of stability", "noisy targets",
                                  "poisoned", "rate x100 adam", "overconfident"])  # fmt: skip
def test_a_training_that_keeps_what_it_has_or_loses_it_otherwise(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(overfitting, trainings.run_of(name))


def test_without_a_metric_the_loss_decides() -> None:
    trainings = pytest.importorskip("tests.trainings")
    finds(overfitting, without(trainings.run_of("overconfident"), ACCURACY))


def curves(rise: float, n: int = 60, train_rises: bool = False) -> dict[str, np.ndarray]:
    """Validation from 2 to 1 at a third of the run, then up by a share of that."""
    rng = np.random.default_rng(0)
    t = np.arange(n) / n
    val = np.where(t < 1 / 3, 2 - 3 * t, 1 + rise * (t - 1 / 3) * 1.5) + 0.005 * rng.standard_normal(n)
    train = np.where(t < 1 / 3, 2 - 3 * t, 1 - 0.3 * (t - 1 / 3)) if not train_rises else val - 0.1
    return {"train_loss": train, "val_loss": val}


@pytest.mark.parametrize(("rise", "severity"), [(0.03, None), (0.1, "warning"), (0.5, "error")])
def test_the_rise_counts_as_a_share_of_what_was_learned(rise: float, severity: str | None) -> None:
    run = make_run(**curves(rise))
    if severity is None:
        is_silent(overfitting, run)
    else:
        assert finds(overfitting, run).severity == severity


def test_where_the_training_loss_rises_as_well_it_is_something_else() -> None:
    is_silent(overfitting, make_run(**curves(0.5, train_rises=True)))


def test_a_metric_that_fell_as_well_confirms_and_one_that_held_denies() -> None:
    t = np.arange(60) / 60
    fell, held = np.where(t < 0.4, 0.5 + t, 0.9 - 0.2 * (t - 0.4)), np.minimum(0.5 + t, 0.9)
    finds(overfitting, make_run(**curves(0.5), val_accuracy=fell))
    is_silent(overfitting, make_run(**curves(0.5), val_accuracy=held))


def test_a_constant_gap_is_no_overfitting() -> None:
    curve = 1 + np.exp(-np.arange(60) / 10)
    is_silent(overfitting, make_run(train_loss=curve, val_loss=curve + 0.8))


def test_the_test_split_stands_in_for_validation() -> None:
    made = curves(0.5)
    finding = finds(overfitting, make_run(train_loss=made["train_loss"], test_loss=made["val_loss"]))
    assert finding.message.startswith("test loss")


def test_it_abstains() -> None:
    check_skips(overfitting, make_run(train_loss=[1.0] * 20), "no val loss or test loss logged")
    check_skips(overfitting, make_run(train_loss=[1.0] * 20, val_loss=[1.0] * 7), "8 are needed")
