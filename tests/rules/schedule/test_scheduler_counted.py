"""SCH003 scheduler-misstepped where hooks count the scheduler's calls."""

from __future__ import annotations

from typing import Any

import pytest
from fitdoctor.finding import Severity
from tests.hooked import batches, digits
from tests.rules.books import net, sgd, short
from tests.rules.one_rule import finding, findings

torch = pytest.importorskip("torch")
import fitdoctor  # noqa: E402
from torch import nn  # noqa: E402

NAME = "scheduler-misstepped"
schedulers = torch.optim.lr_scheduler


def trained(make: Any, when: str, epochs: int = 10, **facts: Any) -> fitdoctor.Run:
    """A training whose scheduler is stepped "never", per "epoch", per "batch", or "first": before the optimizer."""
    torch.manual_seed(0)
    model, criterion = net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = make(optimizer)
    x, y = digits()[1]
    options = {"record_every": 2, "judge_every": 10**9, "tier": "light", "scheduler": plan, "facts": facts}
    with fitdoctor.attach(model, optimizer, criterion, **options) as monitor:
        for epoch in batches(digits()[0], 100, epochs):
            for inputs, labels in epoch:
                optimizer.zero_grad()
                criterion(model(inputs), labels).backward()
                if when == "first":
                    plan.step()
                optimizer.step()
                if when == "batch":
                    plan.step()
            loss = criterion(model(x).detach(), y).item()
            monitor.log(val_loss=loss)
            if when == "epoch":
                plan.step(loss) if isinstance(plan, schedulers.ReduceLROnPlateau) else plan.step()
    return monitor.run


@pytest.mark.parametrize(
    "make",
    [lambda o: schedulers.CosineAnnealingLR(o, 10), lambda o: schedulers.ReduceLROnPlateau(o, patience=2)],
    ids=["cosine", "plateau"],
)
def test_a_scheduler_that_nobody_steps(make: Any) -> None:
    run = trained(make, "never")
    found = finding(NAME, run, Severity.WARNING)
    assert found.message.endswith("was not stepped once in 120 steps of the optimizer")
    assert run.facts["scheduler_steps"] == 0


def test_a_length_in_epochs_and_a_step_per_batch() -> None:
    run = trained(lambda o: schedulers.CosineAnnealingLR(o, 10), "batch")
    assert finding(NAME, run, Severity.WARNING)
    assert run.facts["scheduler_steps"] == 120


def test_stepped_once_per_epoch_or_per_batch_as_planned() -> None:
    per_epoch = trained(lambda o: schedulers.CosineAnnealingLR(o, 10), "epoch")
    assert findings(NAME, per_epoch) == []
    assert per_epoch.facts["scheduler_steps"] == 10
    assert findings(NAME, trained(lambda o: schedulers.CosineAnnealingLR(o, 120), "batch")) == []


def test_a_plateau_scheduler_that_waits() -> None:
    assert findings(NAME, trained(lambda o: schedulers.ReduceLROnPlateau(o, patience=50), "epoch")) == []


def test_a_schedule_that_is_constant_on_purpose() -> None:
    run = trained(lambda o: schedulers.LambdaLR(o, lambda _: 1.0), "epoch", planned_steps=120)
    assert findings(NAME, run) == []


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_the_scheduler_before_the_optimizer_is_a_note() -> None:
    found = finding(NAME, trained(lambda o: schedulers.CosineAnnealingLR(o, 120), "first"), Severity.NOTE)
    assert found.message.startswith("the scheduler is stepped before the optimizer")


@pytest.mark.parametrize(("epochs", "found"), [(1, False), (2, True)])
def test_boundary_is_the_second_evaluation(epochs: int, found: bool) -> None:
    run = trained(lambda o: schedulers.StepLR(o, 1), "never", epochs=epochs)
    assert bool(findings(NAME, run)) is found


def test_no_scheduler_no_finding() -> None:
    assert findings(NAME, short(optimizer=sgd())) == []
