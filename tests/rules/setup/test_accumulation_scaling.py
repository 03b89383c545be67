"""SET012 accumulation-scaling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import BACKWARD_CALLS, LOSS_WEIGHT, ZERO_GRAD_CALLS
from tests.rules.books import adam, healthy, sgd, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

NAME = "accumulation-scaling"


def accumulated(divide: float, *, clear_each: bool = False) -> Callable[..., None]:
    def step(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        for i, (part, labels) in enumerate(zip(x.split(10), y.split(10), strict=True)):
            if clear_each and i:
                optimizer.zero_grad()
            (c(model(part), labels) / divide).backward()
        optimizer.step()

    return step


def test_cleared_before_each_accumulated_batch() -> None:
    found = finding(NAME, short(step=accumulated(5, clear_each=True)), Severity.WARNING)
    assert found.message == "zero_grad is called 5 times per step: 4 of 5 accumulated gradients are lost"


def test_a_sum_that_blows_up() -> None:
    found = finding(NAME, short(optimizer=sgd(2.0), step=accumulated(1)), Severity.WARNING)
    assert "summed, not averaged: steps are 5 times as long" in found.message


def test_a_sum_that_trains_is_a_note() -> None:
    assert finding(NAME, short(optimizer=sgd(0.02), step=accumulated(1)), Severity.NOTE).could_be


def test_adam_divides_the_factor_out() -> None:
    assert findings(NAME, short(optimizer=adam(), step=accumulated(1))) == []


def test_an_average_is_right() -> None:
    assert findings(NAME, short(step=accumulated(5))) == []


def test_two_losses_of_one_forward_pass() -> None:
    def two(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        out = model(x)
        c(out, y).backward(retain_graph=True)
        (0.01 * out.square().mean()).backward()
        optimizer.step()

    def both(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        out = model(x)
        c(out, y).backward(retain_graph=True)
        c(out, y.flip(0)).backward()
        optimizer.step()

    assert findings(NAME, short(step=two)) == []
    assert findings(NAME, short(step=both)) == []


def test_a_summed_loss_is_meant() -> None:
    run = short(optimizer=sgd(1e-3), criterion=nn.CrossEntropyLoss(reduction="sum"), step=accumulated(1))
    assert findings(NAME, run) == []


def test_a_sound_run_has_none() -> None:
    assert findings(NAME, healthy()) == []


def made(weight: float, calls: int = 4, records: int = 10) -> Run:
    return make_run(
        series(LOSS_WEIGHT, np.full(records, weight)),
        series(BACKWARD_CALLS, np.full(records, float(calls))),
        series(ZERO_GRAD_CALLS, np.ones(records)),
        gradient_accumulation_steps=calls,
        optimizer="SGD",
    )


@pytest.mark.parametrize(("weight", "found"), [(1.0, True), (0.985, True), (0.97, False), (0.25, False)])
def test_boundary_is_a_weight_of_1_within_float_error(weight: float, found: bool) -> None:
    assert bool(findings(NAME, made(weight))) is found


def test_clipping_makes_it_matter_under_adam() -> None:
    run = made(1.0).with_facts(optimizer="AdamW")
    assert findings(NAME, run) == []
    assert finding(NAME, run.with_facts(clip_norm=1.0), Severity.NOTE)


def test_too_few_records() -> None:
    cannot_judge(NAME, made(1.0, records=2), "3 are needed")
