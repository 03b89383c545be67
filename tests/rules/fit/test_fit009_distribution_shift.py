from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.rules.fit.fit009_distribution_shift import distribution_shift
from fitdoctor.run import Run
from fitdoctor.testing import check_rule, check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["transposed validation", "inverted validation"])
def test_validation_data_prepared_in_another_way(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.watched(name)
    assert finds(distribution_shift, run).severity == "warning"
    roots = [d.root.rule for d in diagnose(run).diagnoses if d.root.severity != "note"]
    assert roots == ["distribution-shift"]


@pytest.mark.parametrize("name", ["wrong labels", "tiny validation set", "ordinary", "fine-tuning"])
def test_overfitting_and_small_sets_are_no_shift(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(distribution_shift, watched.watched(name))


def losses(came: float, *, n: int = 60, epoch: int = 1) -> Run:
    """Training falls from 2 to 0.2, validation makes a share of that way, side by side."""
    rng = np.random.default_rng(0)
    way = 1 - np.exp(-np.linspace(0, 5, n))
    return make_run(
        train_loss=2 - 1.8 * way,
        probe_loss=2 - 1.8 * way + 0.005 * rng.standard_normal(n),
        val_loss=2 - 1.8 * came * way + 0.005 * rng.standard_normal(n),
        facts={"steps_per_epoch": epoch},
    )


def test_the_share_of_the_way_is_the_line() -> None:
    finds(distribution_shift, losses(0.3))
    is_silent(distribution_shift, losses(0.5))


@pytest.mark.parametrize(("epoch", "count"), [(40, 1), (1, 0)])
def test_a_gap_in_the_first_pass_over_the_data_is_enough(epoch: int, count: int) -> None:
    """Validation makes 55 % of the way: no example had been seen before, or each of them several times."""
    check_rule(distribution_shift, losses(0.55, epoch=epoch), finds=count)


def accuracy_of(best: float, *, epoch: int = 2) -> Run:
    """Labels learned by heart: the training loss falls, the validation loss rises from that of guessing."""
    t, rng = np.linspace(0, 1, 60), np.random.default_rng(0)
    return make_run(
        train_loss=2.3 - 2 * t**2,
        probe_loss=2.3 - 2 * t**2 + 0.005 * rng.standard_normal(60),
        val_loss=2.3 + t**2 + 0.005 * rng.standard_normal(60),
        val_accuracy=0.1 + (best - 0.1) * t + 0.005 * rng.standard_normal(60),
        facts={"classes": 10, "steps_per_epoch": epoch},
    )


def test_what_holds_for_no_other_example_is_no_overfitting() -> None:
    found = finds(distribution_shift, accuracy_of(0.1))
    assert found.severity == "warning"
    assert "nothing learned holds there" in found.message
    assert "wrong training labels" in found.could_be
    roots = [d.root.rule for d in diagnose(accuracy_of(0.1)).diagnoses if d.root.severity != "note"]
    assert roots == ["distribution-shift"]


def test_boundary_of_guessing() -> None:
    assert finds(distribution_shift, accuracy_of(0.13)).severity == "warning"
    assert finds(distribution_shift, accuracy_of(0.17)).severity == "note"  # something was learned, then by heart


def test_it_abstains_without_the_fixed_batch() -> None:
    check_skips(distribution_shift, make_run(train_loss=[2.0, 1.0], val_loss=[2.0, 1.0]), "no train probe_loss")
