"""How a loss falls along the sum of the learning rates."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.testing import make_run
from fitdoctor.views.curves import need_curve
from fitdoctor.views.pace import FACTOR, Pace, pace
from hypothesis import given
from hypothesis import strategies as st


def of(loss: np.ndarray, **more: object) -> Pace | None:
    run = make_run(train_loss=loss, **more)  # type: ignore[arg-type]
    return pace(run, need_curve(run))


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_a_power_law_goes_on_as_it_was(power: float) -> None:
    t = np.arange(1.0, 201)
    seen = of(10 * t**-power)
    assert seen is not None
    swing = 10 * (1 - 200.0**-power)
    truly = 10 * (200.0**-power - (FACTOR * 200) ** -power) / swing
    assert seen.ahead == pytest.approx(truly, rel=0.25)
    assert seen.p_down < 1e-6


def test_the_schedule_does_not_matter() -> None:
    rates = {"constant": np.ones(200), "cosine": 0.5 * (1 + np.cos(np.pi * np.arange(200) / 200))}
    ahead = {}
    for name, rate in rates.items():
        spent = np.cumsum(rate) / rate.sum()
        seen = of(5 / (0.05 + spent), lr=rate)
        assert seen is not None
        ahead[name] = seen.ahead
    assert ahead["cosine"] == pytest.approx(ahead["constant"], rel=0.2)


def test_what_is_left_is_the_most_that_can_be_gained() -> None:
    seen = of(np.linspace(3.0, 0.1, 100))
    assert seen is not None
    assert seen.ahead <= 0.1 / 2.9 + 1e-9


def test_a_settled_loss_promises_nothing() -> None:
    seen = of(2 * np.exp(-np.arange(200) / 10) + 1)
    assert seen is not None
    assert seen.ahead < 0.01


def test_too_few_values_tell_nothing() -> None:
    assert of(np.linspace(2, 1, 8), lr=np.geomspace(1, 1e-6, 8)) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=60))
def test_any_loss_gives_shares(values: list[float]) -> None:
    seen = of(np.array(values))
    assert seen is None or (np.isfinite(seen.ahead) and seen.ahead >= 0)
