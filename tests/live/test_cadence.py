from __future__ import annotations

import pytest
from fitdoctor.live.cadence import Cadence, Level
from hypothesis import given
from hypothesis import strategies as st


def simulate(cadence: Cadence, costs: dict[str, float], step_time: float, steps: int) -> list[Level]:
    levels = []
    for step in range(1, steps + 1):
        level = cadence.level(step)
        levels.append(level)
        own = costs.get(level.kind, 0.0)
        cadence.stepped(step_time, step_time + own)
        if level > Level.IDLE:
            cadence.spent(level.kind, own)
            cadence.adapt()
    return levels


@given(
    budget=st.sampled_from([0.001, 0.01, 0.1]),
    record=st.floats(1e-5, 1.0),
    step_time=st.floats(1e-4, 1.0),
)
def test_the_budget_is_kept(budget: float, record: float, step_time: float) -> None:
    cadence = Cadence(budget)
    costs = {"tick": record / 50, "gradient": record / 10, "record": record}
    levels = simulate(cadence, costs, step_time, 3000)
    assert levels[:3] == [Level.RECORD] * 3
    # A level must be tried once before its cost is known; what that overspends is a constant, not a share.
    once = sum(costs.values()) * 2
    assert cadence.cost.total <= budget * cadence.cost.wall + once


def test_cheap_work_is_done_at_every_step() -> None:
    cadence = Cadence(0.01)
    levels = simulate(cadence, {"tick": 1e-7, "gradient": 1e-7, "record": 1e-7}, 0.01, 500)
    assert levels[-100:] == [Level.RECORD] * 100


def test_a_probe_longer_than_a_step_does_not_confuse_the_clock() -> None:
    cadence = Cadence(0.01)
    for step in range(1, 400):
        level = cadence.level(step)
        cadence.stepped(0.001, 0.001 + (0.5 if step == 10 else 0))
        if level > Level.IDLE:
            cadence.spent(level.kind, 0.01)
            cadence.adapt()
    assert cadence.step_time == pytest.approx(0.001)
    assert cadence.records >= 1000


def test_fixed_distances() -> None:
    cadence = Cadence(0.0001, record_every=7)
    levels = simulate(cadence, {"record": 1.0, "tick": 1.0}, 0.001, 50)
    assert all(
        level is (Level.RECORD if step % 7 == 0 else Level.TICK) for step, level in enumerate(levels, 1) if step > 3
    )


def test_alarm_records_every_step_for_a_while() -> None:
    cadence = Cadence(0.01)
    simulate(cadence, {"tick": 1e-5, "gradient": 1e-4, "record": 1e-3}, 0.001, 2000)
    assert cadence.level(2001) is not Level.RECORD
    cadence.alert(5)
    assert all(cadence.level(step) is Level.RECORD for step in (2001, 2002))
