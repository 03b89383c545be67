"""LRN009 batch-too-small and LRN010 batch-too-large: one measurement, two ends."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.learning_rate.lrn009_batch_too_small import batch_too_small
from fitdoctor.rules.learning_rate.lrn010_batch_too_large import batch_too_large
from fitdoctor.run import Run
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["small batch", "small batch, two layers"])
def test_a_batch_far_below_the_noise_scale(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(batch_too_small, watched.watched(name))
    assert finding.severity == "note"
    assert finding.remedies[0].change is not None
    assert finding.remedies[0].change.knob == "batch_size"
    is_silent(batch_too_large, watched.watched(name))


@pytest.mark.parametrize("name", ["large batch", "large batch, two layers"])
def test_a_batch_far_above_the_noise_scale(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    assert finds(batch_too_large, watched.watched(name)).severity == "note"
    is_silent(batch_too_small, watched.watched(name))


def test_an_ordinary_batch() -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(batch_too_small, watched.watched("accumulation"))
    is_silent(batch_too_large, watched.watched("accumulation"))


def measured(scale: float, *, at_the_end: float | None = None) -> Run:
    noise = np.full(100, scale)
    noise[60:] = scale if at_the_end is None else at_the_end
    loss = 0.1 + 2 * np.exp(-np.arange(100) / 15)
    return make_run(train_loss=loss, noise_scale=noise, facts={"batch_size": 25, "gradient_accumulation_steps": 4})


def test_a_tenth_and_ten_times_are_the_lines() -> None:
    finds(batch_too_small, measured(1100.0))
    is_silent(batch_too_small, measured(900.0))
    finds(batch_too_large, measured(9.0))
    is_silent(batch_too_large, measured(11.0))


def test_the_end_of_a_run_does_not_count() -> None:
    """As the gradient vanishes, the noise scale grows without bound in any run."""
    is_silent(batch_too_small, measured(200.0, at_the_end=1e6))


@pytest.mark.parametrize("rule", [batch_too_small, batch_too_large])
def test_it_abstains_without_accumulation(rule: object) -> None:
    check_skips(rule, make_run(train_loss=np.linspace(2, 1, 20)), "no noise_scale")  # type: ignore[arg-type]
    few = make_run(train_loss=np.linspace(2, 1, 20), noise_scale=np.full(9, 5.0), facts={"batch_size": 4})
    check_skips(rule, few, "accumulation")  # type: ignore[arg-type]
