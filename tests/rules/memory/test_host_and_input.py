"""MEM003 host-memory-growth and MEM005 input-bound."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import DATA_TIME, HOST_MEMORY, MEMORY, STEP_TIME
from tests.hooked import digits, mlp
from tests.rules.books import healthy
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
import fitdoctor  # noqa: E402
from torch import nn  # noqa: E402

HOST, INPUT = "host-memory-growth", "input-bound"


def keeping(kind: str) -> Run:
    """A training that keeps a copy of something large at each step, or does so only at the beginning."""
    model, criterion = mlp(64, 16, 10), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = digits()[0]
    kept: list[object] = []
    with fitdoctor.attach(model, optimizer, criterion, record_every=1, judge_every=10**9, tier="light") as monitor:
        for i in range(120):
            if kind == "arrays":
                kept.append(np.ones(1_000_000))  # 8 MB, written, so that it is resident
            elif kind == "tensors":
                kept.append(torch.ones(2_000_000))
            elif kind == "cache" and i < 20:
                kept.append(np.ones(1_000_000))
            part = slice(10 * i % 1000, 10 * i % 1000 + 10)
            optimizer.zero_grad()
            criterion(model(x[part]), y[part]).backward()
            optimizer.step()
    return monitor.run


@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_something_is_kept_at_each_step(kind: str) -> None:
    found = finding(HOST, keeping(kind), Severity.WARNING)
    assert "MiB a step" in found.message


def test_a_cache_that_fills_and_stays() -> None:
    assert findings(HOST, keeping("cache")) == []


def test_workers_that_copy_pages_level_off() -> None:
    steps = 10 * np.arange(80)
    run = make_run(series(HOST_MEMORY, 1e9 + 1e9 * (1 - np.exp(-steps / 200)), steps))
    assert findings(HOST, run) == []


def test_a_sound_run_has_none() -> None:
    memory = healthy().get(MEMORY)
    assert memory is not None
    assert findings(HOST, make_run(memory, device="cpu")) == []


@pytest.mark.parametrize(("growth", "found"), [(0.19, False), (0.23, True)])
def test_boundary_is_a_fifth(growth: float, found: bool) -> None:
    late = 1 + growth * np.linspace(-0.25, 1, 101)
    assert bool(findings(HOST, make_run(series(HOST_MEMORY, 1e9 * late)))) is found


def test_memory_of_a_gpu_is_not_that_of_the_host() -> None:
    cannot_judge(HOST, make_run(series(MEMORY, 1e9 + 1e7 * np.arange(90)), device="cuda"), "was not measured")


# --- waiting for data --------------------------------------------------------------------------------


class Clock:
    """A clock that only moves when it is told to, so that the machine's load does not matter."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def timed(wait: float, work: float, monkeypatch: pytest.MonkeyPatch, pause_every: int = 0) -> Run:
    clock = Clock()
    model, criterion = mlp(64, 16, 10), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = digits()[0]
    monkeypatch.setattr(time, "perf_counter", clock)
    with fitdoctor.attach(model, optimizer, criterion, record_every=10, judge_every=10**9, tier="light") as monitor:
        for i in range(60):
            clock.now += wait + (5.0 if pause_every and i % pause_every == 0 else 0.0)
            optimizer.zero_grad()
            loss = criterion(model(x[:10]), y[:10])
            clock.now += work
            loss.backward()
            optimizer.step()
    monkeypatch.undo()
    return monitor.run


@pytest.mark.parametrize(("wait", "share"), [(0.03, "75%"), (0.01, "50%")])
def test_steps_that_wait_for_their_batch(wait: float, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding(INPUT, timed(wait, 0.01, monkeypatch), Severity.NOTE)
    assert f"during {share} of their time" in found.message


def test_steps_that_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(INPUT, timed(0.001, 0.01, monkeypatch)) == []


def test_workers_that_start_at_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(INPUT, timed(0.001, 0.01, monkeypatch, pause_every=12)) == []


@pytest.mark.parametrize(("share", "found"), [(0.29, False), (0.31, True)])
def test_boundary_is_three_tenths(share: float, found: bool) -> None:
    run = make_run(series(DATA_TIME, np.full(40, share)), series(STEP_TIME, np.ones(40)))
    assert bool(findings(INPUT, run)) is found
    cannot_judge(INPUT, make_run(series(DATA_TIME, np.ones(25)), series(STEP_TIME, np.ones(25))), "20 are needed")
