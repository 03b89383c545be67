"""MEM001 retained-graph and MEM002 growth-in-eval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import EVAL_GRAD_FORWARDS, EVAL_GRAPHS_ALIVE, GRAPHS_ALIVE, MEMORY
from tests.rules.books import healthy, loop, short, sound_loop
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

KEPT, IN_EVAL = "retained-graph", "growth-in-eval"


class Keeping:
    """A training step that keeps its loss in some way."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.total: Any = 0.0
        self.losses: list[Any] = []

    def __call__(self, model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss = c(model(x), y)
        loss.backward()
        optimizer.step()
        if self.way == "total":
            self.total = self.total + loss
        elif self.way == "detached":
            self.losses.append(loss.detach())
        elif self.way == "last":
            self.losses = [loss]
        else:
            self.losses.append(loss)
        if self.way == "per epoch" and len(self.losses) == 24:
            self.losses = []


@pytest.mark.parametrize("way", ["list", "total"])
def test_losses_that_are_kept_with_their_graph(way: str) -> None:
    found = finding(KEPT, short(step=Keeping(way), epochs=5), Severity.WARNING)
    assert found.message.startswith("the graphs of 41 earlier losses are still alive")
    assert found.remedies[0].title.startswith("keep loss.item()")


@pytest.mark.parametrize("way", ["detached", "last"])
def test_numbers_and_the_last_loss_may_be_kept(way: str) -> None:
    assert findings(KEPT, short(step=Keeping(way))) == []


def test_a_list_that_is_emptied_after_each_epoch_is_at_most_a_note() -> None:
    found = findings(KEPT, short(step=Keeping("per epoch"), every=2, epochs=6))
    assert [f for f in found if f.severity is not Severity.NOTE] == []


def test_truncated_back_propagation_through_time() -> None:
    """The state goes from step to step, detached every fourth."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.RNNCell(64, 16), nn.Linear(16, 10)
            self.state, self.calls = torch.zeros(1, 16), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            state = self.state.mean(0, keepdim=True).expand(len(x), 16)
            new = self.cell(x, state.detach() if self.calls % 4 == 1 else state)
            self.state = new
            return self.head(new)  # type: ignore[no-any-return]

    def step(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        losses = [c(model(part), labels) for part, labels in zip(x.split(10)[:4], y.split(10)[:4], strict=True)]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()

    assert findings(KEPT, short(Cell, step=step)) == []


def test_sound_runs_have_none() -> None:
    assert findings(KEPT, healthy()) == []
    assert findings(IN_EVAL, sound_loop()) == []


@pytest.mark.parametrize(("alive", "found"), [(9, False), (10, True)])
def test_boundary_is_ten_graphs(alive: int, found: bool) -> None:
    values = np.r_[np.zeros(20), 1.0 + np.arange(alive)]
    assert bool(findings(KEPT, make_run(series(GRAPHS_ALIVE, values)))) is found


def test_as_many_as_are_followed() -> None:
    values = np.minimum(np.arange(400), 255.0)
    assert finding(KEPT, make_run(series(GRAPHS_ALIVE, values)), Severity.WARNING)


def test_memory_of_a_device_that_grows_and_one_that_fills() -> None:
    steps = np.arange(200)
    noise = 1e5 * np.random.default_rng(0).standard_normal(200)
    leak = make_run(series(MEMORY, 1e9 + 2e6 * steps + noise), device="cuda:0")
    assert finding(KEPT, leak, Severity.WARNING).settle_with
    fills = make_run(series(MEMORY, 1e9 + 4e8 * (1 - np.exp(-steps / 15)) + noise), device="cuda:0")
    assert findings(KEPT, fills) == []
    cannot_judge(KEPT, leak.with_facts(device="cpu"), "memory of the host")


# --- in an evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["outputs", "losses"])
def test_an_evaluation_that_keeps_what_it_computed(keep: str) -> None:
    run = loop(gradients=True, keep=keep)
    assert finding(IN_EVAL, run, Severity.WARNING).message == "3 evaluations kept the graphs of 4 of 6 batches at once"
    (diagnosis,) = [d for d in diagnose(run).diagnoses if d.root.severity is Severity.WARNING]
    assert diagnosis.root.rule == IN_EVAL
    assert [f.rule for f in diagnosis.explains] == ["eval-without-no-grad"]


def test_outputs_without_graph_may_be_kept() -> None:
    assert findings(IN_EVAL, loop(keep="outputs")) == []
    assert findings(IN_EVAL, loop(gradients=True)) == []


def evaluations(alive: float, of: float) -> Run:
    return make_run(series(EVAL_GRAPHS_ALIVE, np.full(4, alive)), series(EVAL_GRAD_FORWARDS, np.full(4, of)))


@pytest.mark.parametrize(("alive", "of", "found"), [(2, 3, False), (3, 4, True), (5, 10, False), (6, 10, True)])
def test_boundary_is_half_of_the_batches_and_three(alive: float, of: float, found: bool) -> None:
    assert bool(findings(IN_EVAL, evaluations(alive, of))) is found
