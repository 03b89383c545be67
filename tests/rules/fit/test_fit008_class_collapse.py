from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.fit.fit008_class_collapse import class_collapse
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["rate x30", "stacked sigmoids"])
def test_a_model_that_names_one_class(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    assert finds(class_collapse, watched.watched(name)).severity == "error"


@pytest.mark.parametrize("name", ["ordinary", "heavy dropout", "too narrow", "rate / 30, Adam", "frozen backbone"])
def test_a_model_that_tells_classes_apart(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(class_collapse, watched.watched(name))


def predictions(share: float, right: float, batch: int = 32) -> Run:
    return make_run(
        train_loss=np.linspace(2.3, 1.5, 100),
        largest_predicted_share=np.full(100, share),
        train_accuracy=np.full(100, right),
        facts={"batch_size": batch},
    )


def test_the_share_is_the_line() -> None:
    assert finds(class_collapse, predictions(0.96, 0.3)).severity == "warning"
    is_silent(class_collapse, predictions(0.94, 0.3))


def test_a_majority_of_nine_in_ten_is_a_note_and_of_nearly_all_is_nothing() -> None:
    assert finds(class_collapse, predictions(0.99, 0.93)).severity == "note"
    is_silent(class_collapse, predictions(0.99, 0.97))


def test_it_abstains_on_few_examples() -> None:
    check_skips(class_collapse, predictions(1.0, 0.5, batch=2), "batches of 2")
    check_skips(class_collapse, predictions(1.0, 0.5, batch=8), "fewer than 500 examples")
