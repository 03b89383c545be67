from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn008_layerwise_update_imbalance import layerwise_update_imbalance
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["lopsided", "stacked sigmoids"])
def test_layers_that_hardly_move_beside_others(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(layerwise_update_imbalance, watched.watched(name))
    assert " than 0.weight" in finding.message


@pytest.mark.parametrize("name", ["ordinary", "fine-tuning", "batch norm, strong decay", "dropout"])
def test_layers_that_move_alike_or_are_frozen(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(layerwise_update_imbalance, watched.watched(name))


def layers(ratio: float, *, left: float = 0.2, since: int = 0) -> Run:
    slow = np.full(100, 1e-5)
    slow[:since] = 1e-2
    ratios = {"0.weight": slow, "0.bias": np.full(100, 1e-9), "2.weight": np.full(100, 1e-5 * ratio)}
    return make_run(train_loss=np.linspace(2, 2 * left, 100), layers={"update_ratio": ratios})


def test_a_thousandfold_is_the_line() -> None:
    finds(layerwise_update_imbalance, layers(1500.0))
    is_silent(layerwise_update_imbalance, layers(700.0))


def test_it_is_a_warning_only_where_little_was_learned() -> None:
    assert finds(layerwise_update_imbalance, layers(1500.0)).severity == "note"
    assert finds(layerwise_update_imbalance, layers(1500.0, left=0.8)).severity == "warning"


def test_it_has_to_last() -> None:
    finds(layerwise_update_imbalance, layers(1500.0, since=40))
    is_silent(layerwise_update_imbalance, layers(1500.0, since=90))


def test_it_abstains_on_one_matrix() -> None:
    one = make_run(train_loss=np.linspace(2, 1, 20), layers={"update_ratio": {"0.weight": np.full(20, 0.1)}})
    check_skips(layerwise_update_imbalance, one, "fewer than 2 weight matrices")
    watched = pytest.importorskip("tests.rules.watched")
    check_skips(layerwise_update_imbalance, watched.watched("frozen backbone"), "fewer than 2 weight matrices")
