"""SET010 frozen-or-unused-parameters and SET011 optimizer-missing-params."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_RMS, GRAD_NORM, LOSS, WEIGHT_NORM
from tests.hooked import mlp
from tests.rules.books import healthy, net, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

IDLE = "frozen-or-unused-parameters"
UNOWNED = "optimizer-missing-params"


class Three(nn.Module):
    """Three layers, the middle one used, cut off or left out."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        self.first, self.second, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        if self.use == "detached":
            h = torch.relu(self.second(h.detach()))
        elif self.use == "rarely":
            h = h + torch.relu(self.second(h)) if self.training and torch.rand(()) < 0.2 else h
        elif self.use == "no_grad":
            with torch.no_grad():
                h = torch.relu(self.second(h))
        return self.head(h)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("use", "names"), [("detached", "first.weight, first.bias"), ("no_grad", "first.weight")])
def test_a_layer_that_runs_and_is_cut_off(use: str, names: str) -> None:
    found = finding(IDLE, short(lambda: Three(use), tier="standard"), Severity.WARNING)
    assert names in found.message
    assert "cut off" in found.message


def test_a_layer_that_is_never_used_is_a_note() -> None:
    found = finding(IDLE, short(lambda: Three("never"), tier="standard"), Severity.NOTE)
    assert found.message == "2 of 6 trainable tensors never get a gradient: second.weight, second.bias"


def test_frozen_on_purpose_is_no_finding() -> None:
    def frozen() -> nn.Module:
        model = Three("detached")
        model.first.requires_grad_(False)
        return model

    run = short(frozen, lambda m: torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1))
    assert findings(IDLE, run) == []
    assert findings(UNOWNED, run) == []


def test_a_branch_that_is_used_now_and_then() -> None:
    assert findings(IDLE, short(lambda: Three("rarely"), tier="standard")) == []


def test_a_sound_run_has_none() -> None:
    assert findings(IDLE, healthy()) == findings(UNOWNED, healthy()) == []


def made(records: int, moved: bool = False) -> Run:
    steps = 10 * np.arange(records)
    norms = np.ones(records)
    norms[-1] += 1e-6 * moved
    return make_run(
        series(WEIGHT_NORM, norms, steps, layer="a.weight"),
        series(WEIGHT_NORM, norms + steps, steps, layer="b.weight"),
        series(GRAD_NORM, norms, steps, layer="b.weight"),
        series(ACTIVATION_RMS, norms, steps, layer="a"),
    )


def test_boundary_is_five_records_and_the_same_norm_throughout() -> None:
    cannot_judge(IDLE, made(4), "5 over 20 steps")
    assert finding(IDLE, made(5), Severity.WARNING)
    assert findings(IDLE, made(5, moved=True)) == []  # stepped between the records


def partly_frozen(trainable: int, rests_at: float, *, steps: int = 600, still_falling: bool = False) -> Run:
    """Two layers that are trained, others that are frozen, and a loss that comes to rest."""
    t = np.arange(steps)
    noise = 0.01 * np.random.default_rng(0).standard_normal(steps)
    fall = t / steps if still_falling else 1 - np.exp(-t / 20)
    records = 10 * np.arange(steps // 10)
    norms = 1 + records / steps
    return make_run(
        series(LOSS, 2.3 - (2.3 - rests_at) * fall + noise, t),
        *(series(q, norms, records, layer=f"{x}.weight") for q in (WEIGHT_NORM, GRAD_NORM) for x in "ab"),
        parameters=1000,
        trainable_parameters=trainable,
        classes=10,
    )


def test_frozen_parameters_and_a_loss_that_rests_at_a_poor_level() -> None:
    found = finding(IDLE, partly_frozen(300, 2.0), Severity.WARNING)
    assert found.message.startswith("70% of the parameters are frozen")
    assert found.remedies[0].title.startswith("unfreeze")


def test_a_run_that_is_over_with_half_of_its_loss_left() -> None:
    falling = replace(partly_frozen(300, 1.5, still_falling=True), finished=True)
    assert finding(IDLE, falling, Severity.WARNING).confidence == "low"


@pytest.mark.parametrize(("trainable", "count"), [(800, 1), (801, 0)])
def test_boundary_is_a_fifth_of_the_parameters(trainable: int, count: int) -> None:
    assert len(findings(IDLE, partly_frozen(trainable, 2.0))) == count


@pytest.mark.parametrize(
    "run",
    [
        partly_frozen(300, 1.0),  # it learns
        replace(partly_frozen(300, 1.5, still_falling=True), finished=None),
        partly_frozen(300, 2.0, steps=250),
        partly_frozen(1000, 2.2),
    ],
)
def test_frozen_parameters_that_do_no_harm(run: Run) -> None:
    assert findings(IDLE, run) == []


# --- what no optimizer holds ------------------------------------------------------------------------


def without_last(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(model.parameters())[:-2], lr=0.1)


def test_a_new_head_that_the_optimizer_does_not_know() -> None:
    found = finding(UNOWNED, short(lambda: mlp(64, 32, 32, 10), without_last), Severity.WARNING)
    assert found.message == "2 of 6 trainable tensors belong to no optimizer: 4.weight, 4.bias"


def test_a_layer_that_was_replaced_after_the_optimizer_was_made() -> None:
    def replaced(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model[0] = nn.Linear(64, 32)  # type: ignore[index]
        return optimizer

    found = finding(UNOWNED, short(lambda: mlp(64, 32, 32, 10), replaced), Severity.WARNING)
    assert "0.weight, 0.bias" in found.message


def test_training_the_head_alone_is_a_note() -> None:
    run = short(lambda: mlp(64, 64, 64, 10), lambda m: torch.optim.SGD(m[-1].parameters(), lr=0.5))  # type: ignore[index]
    assert finding(UNOWNED, run, Severity.NOTE).could_be


def test_another_optimizer_steps_the_rest() -> None:
    others: list[torch.optim.Optimizer] = []

    def first_half(model: nn.Module) -> torch.optim.Optimizer:
        others.append(torch.optim.SGD(model[2].parameters(), lr=0.1))  # type: ignore[index]
        return torch.optim.SGD(model[0].parameters(), lr=0.1)  # type: ignore[index]

    def step(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        model.zero_grad()
        c(model(x), y).backward()
        others[-1].step()
        optimizer.step()

    assert findings(UNOWNED, short(net, first_half, step=step)) == []


@pytest.mark.parametrize(("count", "severity"), [(5, Severity.WARNING), (6, Severity.NOTE)])
def test_boundary_is_half_of_the_tensors(count: int, severity: Severity) -> None:
    run = make_run(series(LOSS, np.linspace(2, 1, 60)), trainable_tensors_not_in_optimizer=count, trainable_tensors=10)
    assert finding(UNOWNED, run, severity)


def test_a_log_does_not_tell() -> None:
    cannot_judge(UNOWNED, make_run(series(LOSS, [1.0, 0.9])), "hooks tell it")
