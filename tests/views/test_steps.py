"""How rules see the optimizer's steps: quality at full rate, the stable edge, what is left of the loss."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.signals import PROBE_LOSS
from fitdoctor.testing import make_run
from fitdoctor.views.curves import need_curve
from fitdoctor.views.steps import (
    first_updates,
    left_over,
    noise_while_learning,
    stable_edge,
    step_quality,
    training_curve,
)


def test_quality_counts_while_the_rate_is_high() -> None:
    values = np.r_[np.full(50, 0.4), np.full(50, 1.0)]
    annealed = np.r_[np.full(50, 0.1), np.full(50, 0.01)]
    flat, falling = (step_quality(make_run(step_quality=values, lr=rate)) for rate in (np.full(100, 0.1), annealed))
    assert flat is not None
    assert (flat.early, flat.late) == (0.4, 1.0)
    assert falling is not None
    assert (falling.early, falling.late, len(falling.series)) == (0.4, 0.4, 50)


def test_a_decay_that_begins_at_once_leaves_the_longest_steps() -> None:
    rate = 0.1 * 0.9 ** np.arange(100)  # half of it after 7 steps, a quarter after 14
    seen = step_quality(make_run(step_quality=np.r_[np.full(10, 0.4), np.full(90, 1.0)], lr=rate))
    assert seen is not None
    assert (seen.early, seen.late, len(seen.series)) == (0.4, 0.4, 10)
    assert step_quality(make_run(step_quality=np.ones(100), lr=0.1 * 0.7 ** np.arange(100))) is None


def test_quality_that_is_rounding_is_none() -> None:
    assert step_quality(make_run(step_quality=np.ones(50), update_ratio=np.full(50, 1e-8))) is None
    assert step_quality(make_run(step_quality=np.ones(50), update_ratio=np.full(50, 1e-5))) is not None
    assert step_quality(make_run(step_quality=np.ones(9))) is None


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_stable_edge_of_a_quadratic(share: float) -> None:
    """Descent on x^2 with curvature 2 is stable up to a rate of 1; the quality there is 0."""
    x, qualities = 1.0, []
    for _ in range(30):
        moved = -share * 2 * x
        qualities.append((x**2 - (x + moved) ** 2) / -(2 * x * moved))
        x += moved
    edge = stable_edge(make_run(step_quality=np.array(qualities)))
    assert edge == pytest.approx(1 / share)


def test_the_first_updates_count_only_where_the_log_begins() -> None:
    assert first_updates(make_run(update_ratio=[2.0, 0.1, 0.1] + [0.01] * 50)) == 2.0
    assert first_updates(make_run(update_ratio=[2.0] * 20, steps=np.arange(500, 520))) is None


def test_the_training_curve_is_that_of_the_fixed_batch_where_there_is_one() -> None:
    probed = make_run(train_loss=np.linspace(2, 1, 40), probe_loss=np.linspace(1.8, 0.5, 10))
    assert training_curve(probed).series.signal.quantity == PROBE_LOSS
    assert left_over(probed, training_curve(probed)) == pytest.approx(0.5 / 2, abs=0.1)
    rare = make_run(train_loss=np.linspace(2, 1, 40), probe_loss=np.linspace(1.8, 0.5, 5))
    assert training_curve(rare).series.signal.quantity != PROBE_LOSS
    assert left_over(rare, need_curve(rare)) == pytest.approx(0.5, abs=0.05)


def test_the_batch_counts_all_that_a_step_sees() -> None:
    run = make_run(
        train_loss=np.linspace(2, 1, 50),
        noise_scale=np.full(50, 7.0),
        facts={"batch_size": 5, "gradient_accumulation_steps": 3},
    )
    found = noise_while_learning(run)
    assert found is not None
    assert found[:2] == (15.0, 7.0)


def test_first_updates_of_weights_that_began_at_zero_say_nothing() -> None:
    """The second step is measured against what the first one made, whatever the rate."""
    ratios = np.r_[0.93, 0.62, np.full(48, 0.1)]
    assert first_updates(make_run(update_ratio=ratios, weight_norm=np.r_[0.0, 5.7, np.full(48, 8.0)])) is None
    assert first_updates(make_run(update_ratio=ratios, weight_norm=np.full(50, 8.0))) == 0.93
