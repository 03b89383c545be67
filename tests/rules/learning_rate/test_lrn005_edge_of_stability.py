from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.rules.learning_rate.lrn001_lr_too_high import lr_too_high
from fitdoctor.rules.learning_rate.lrn005_edge_of_stability import edge_of_stability
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["edge of stability", "edge of stability, tanh"])
def test_a_sound_training_at_the_edge_is_noted_and_nothing_else(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    run = watched.watched(name)
    finding = finds(edge_of_stability, run)
    assert finding.severity == "note"
    assert finding.remedies == ()
    is_silent(lr_too_high, run)
    assert [f.rule for f in diagnose(run).findings if f.severity != "note"] == []


@pytest.mark.parametrize("name", ["ordinary", "warm restarts", "rate / 30, momentum", "rate x30"])
def test_a_training_away_from_the_edge_or_beyond_it(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(edge_of_stability, watched.watched(name))


def steps(quality: float, *, falls: bool = True, optimizer: str = "SGD") -> Run:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 60)
    loss = 2 - 1.2 * t if falls else np.full(60, 1.9)
    return make_run(
        train_loss=loss + 0.03 * rng.standard_normal(60),
        step_quality=quality + 0.02 * rng.standard_normal(60),
        lr=np.full(60, 0.1),
        facts={"optimizer": optimizer},
    )


def test_the_edge_is_a_quality() -> None:
    finds(edge_of_stability, steps(0.45))
    is_silent(edge_of_stability, steps(0.55))


def test_with_progress_it_is_the_edge_without_it_the_rate() -> None:
    finds(edge_of_stability, steps(0.0))
    is_silent(lr_too_high, steps(0.0))
    is_silent(edge_of_stability, steps(0.0, falls=False))
    assert "overshoot" in finds(lr_too_high, steps(0.0, falls=False)).message


def test_it_abstains() -> None:
    check_skips(edge_of_stability, make_run(train_loss=np.linspace(2, 1, 9), step_quality=np.full(9, 0.2)), "fewer")
    check_skips(edge_of_stability, steps(0.1, optimizer=""), "optimizer is not known")
    is_silent(edge_of_stability, steps(0.1, optimizer="AdamW"))
