"""SET008 no-parameter-updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Change, Severity
from fitdoctor.run import Run
from fitdoctor.signals import GRAD_NORM, LOSS, LR, UPDATE_NORM
from tests.hooked import digits
from tests.rules.books import adam, healthy, net, sgd, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAME = "no-parameter-updates"


def test_an_optimizer_of_another_model() -> None:
    run = short(optimizer=lambda model: torch.optim.SGD(net().parameters(), lr=0.1), val=digits()[1])
    found = finding(NAME, run, Severity.ERROR)
    assert found.message.endswith("4 of its tensors are not the model's")
    assert found.remedies[0].change == Change("optimizer_parameters", "set", "trainable")
    assert {d.root.rule for d in diagnose(run).diagnoses if d.root.severity is not Severity.NOTE} == {NAME}


def test_a_learning_rate_of_0() -> None:
    found = finding(NAME, short(optimizer=sgd(0.0)), Severity.ERROR)
    assert found.message.endswith("the learning rate is 0")
    change = found.remedies[0].change
    assert change is not None
    assert (change.knob, change.op) == ("learning_rate", "set"), "no multiple of 0 is a rate"


def test_a_loss_that_is_detached_from_the_weights() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.offset = nn.Linear(64, 10), torch.zeros(10, requires_grad=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).detach() + self.offset

    found = finding(NAME, short(Detached), Severity.ERROR)
    assert found.message.endswith("no gradient reaches its parameters")
    assert found.remedies[0].change == Change("loss_graph", "set", "whole")


@pytest.mark.parametrize("by_optimizer", [True, False])
def test_step_is_never_called(by_optimizer: bool) -> None:
    def no_step(model: nn.Module, criterion: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
        (optimizer if by_optimizer else model).zero_grad()
        criterion(model(x), y).backward()

    found = finding(NAME, short(step=no_step), Severity.ERROR)
    assert found.message == "72 backward passes and not one step of the optimizer"
    assert found.remedies[0].change == Change("optimizer_step", "enable")
    assert found.evidence[0].points


@pytest.mark.parametrize("optimizer", [sgd(1e-6), adam(1e-7)], ids=["sgd", "adam"])
def test_a_tiny_learning_rate_does_change_weights(optimizer: object) -> None:
    assert findings(NAME, short(optimizer=optimizer)) == []  # type: ignore[arg-type]


def test_a_sound_run_has_none() -> None:
    assert findings(NAME, healthy()) == []


def made(updates: object, rates: object, gradients: object, losses: object) -> Run:
    return make_run(
        series(UPDATE_NORM, updates, 1 + 5 * np.arange(40)),
        series(LR, rates, 1 + 5 * np.arange(40)),
        series(GRAD_NORM, gradients, 1 + 5 * np.arange(40)),
        series(LOSS, losses, 1 + 5 * np.arange(40)),
    )


def test_the_end_of_a_schedule_rounds_updates_away() -> None:
    rates = 0.1 * np.geomspace(1, 1e-9, 40)
    updates = np.where(rates < 1e-7, 0.0, rates)
    assert findings(NAME, made(updates, rates, np.ones(40), np.linspace(2, 1, 40))) == []


def test_a_loss_that_is_solved_has_no_gradient() -> None:
    falling = np.maximum(np.linspace(2, -1, 40), 0)
    moving = (falling > 0).astype(float)
    assert findings(NAME, made(moving, np.full(40, 0.1), moving, falling)) == []
    stuck = np.maximum(falling, 1.0)
    assert finding(NAME, made(moving, np.full(40, 0.1), moving, stuck), Severity.ERROR).onset > 1


@pytest.mark.parametrize(("still", "found"), [(2, False), (3, True)])
def test_boundary_is_three_records(still: int, found: bool) -> None:
    updates = np.r_[np.ones(40 - still), np.zeros(still)]
    assert bool(findings(NAME, made(updates, np.full(40, 0.1), np.ones(40), np.ones(40)), span=1)) is found


def test_a_log_without_updates_is_not_judged() -> None:
    cannot_judge(NAME, make_run(series(LOSS, np.ones(30))), "no update_norm")
