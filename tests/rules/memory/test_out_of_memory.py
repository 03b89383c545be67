"""MEM004 out-of-memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import GRAPHS_ALIVE, LOSS
from tests.hooked import batches, digits, ordinary_step
from tests.rules.books import healthy, net
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
import fitdoctor  # noqa: E402
from torch import Tensor, nn  # noqa: E402

NAME = "out-of-memory"
CUDA = (
    "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 15.90 GiB of which 100.00 MiB is "
    "free. Of the allocated memory {allocated} is allocated by PyTorch, and {free} is reserved by PyTorch but "
    "unallocated."
)


class Full(nn.Module):
    """A layer that runs out of memory at some call, forward or backward."""

    def __init__(self, at: int, message: str, *, backward: bool = False) -> None:
        super().__init__()
        self.at, self.message, self.backward_pass, self.calls = at, message, backward, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.at:
            if not self.backward_pass:
                raise torch.OutOfMemoryError(self.message)
            x.register_hook(self.refuse)
        return x

    def refuse(self, gradient: Tensor) -> None:
        raise torch.OutOfMemoryError(self.message)


def run_out(at: int, *, allocated: str = "15.00 GiB", free: str = "100.00 MiB", keep: bool = False, **more: Any) -> Run:
    """A training that ends with an exception; returns what the monitor saw."""
    torch.manual_seed(0)
    model = nn.Sequential(net(), Full(at, CUDA.format(allocated=allocated, free=free), **more))
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    kept: list[Tensor] = []
    monitor = fitdoctor.attach(model, optimizer, criterion, record_every=1, judge_every=10**9, tier="light")

    def train() -> None:
        with monitor:
            for x, y in batches(digits()[0], 50, 2)[0]:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                kept.extend([loss] if keep else [])

    with pytest.raises(torch.OutOfMemoryError):
        train()
    return monitor.run


def test_the_first_batch_is_too_large() -> None:
    found = finding(NAME, run_out(1), Severity.ERROR)
    assert (
        found.message == "memory of the device ran out after step 0: in forward, at the first batch (512 MiB asked for)"
    )
    assert found.remedies[0].change is not None


def test_a_later_batch_in_the_backward_pass() -> None:
    found = finding(NAME, run_out(8, backward=True), Severity.ERROR)
    assert found.message.startswith("memory of the device ran out after step 7: in backward, on a later batch")
    assert found.remedies[0].title == "halve the batch to 25 and accumulate 2 batches per step"


def test_a_leak_is_named_and_not_the_batch() -> None:
    run = run_out(20, keep=True)
    found = finding(NAME, run, Severity.ERROR)
    assert "the graphs of 1" in found.message
    assert found.remedies[0].title.startswith("keep loss.item()")


def test_memory_in_pieces() -> None:
    found = finding(NAME, run_out(5, allocated="8.00 GiB", free="6.00 GiB"))
    assert "43% of the reserved memory is free but in pieces" in found.message
    assert "expandable_segments" in found.remedies[0].title


def ended(action: Callable[[nn.Module, torch.optim.Optimizer], object], error: type[BaseException]) -> Run:
    """A training of three steps, and then something else."""
    model, criterion = net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    monitor = fitdoctor.attach(model, optimizer, criterion, record_every=1, judge_every=10**9, tier="light")

    def train() -> None:
        with monitor:
            for x, y in batches(digits()[0], 50, 1)[0][:3]:
                ordinary_step(model, criterion, optimizer, x, y)
            action(model, optimizer)

    with pytest.raises(error):
        train()
    return monitor.run


def test_in_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(model: nn.Module, optimizer: object) -> None:
        def full(*args: object) -> None:
            raise torch.OutOfMemoryError(CUDA.format(allocated="15 GiB", free="1 MiB"))

        model.eval()
        with torch.no_grad():
            model(digits()[1][0])
            monkeypatch.setattr(nn.functional, "linear", full)
            model(digits()[1][0])

    found = finding(NAME, ended(evaluate, torch.OutOfMemoryError))
    assert "during an evaluation" in found.message
    assert found.remedies[0].title.startswith("evaluate under")


def test_a_real_allocation_that_the_host_refuses() -> None:
    def grow(model: nn.Module, optimizer: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # an exbibyte

    found = finding(NAME, ended(grow, RuntimeError), Severity.ERROR)
    assert found.message.startswith("memory of the host ran out after step 3")


def test_python_runs_out_of_memory_too() -> None:
    def grow(model: nn.Module, optimizer: object) -> None:
        np.empty(1 << 60, np.uint8)

    assert finding(NAME, ended(grow, MemoryError)).message.startswith("memory of the host ran out")


def test_other_exceptions_are_none() -> None:
    def fail(model: nn.Module, optimizer: object) -> None:
        model(torch.ones(2, 3))

    assert findings(NAME, ended(fail, RuntimeError)) == []
    assert findings(NAME, healthy()) == []


def test_a_checkpoint_that_is_loaded_and_an_optimizer_that_makes_its_state() -> None:
    loading = make_run(
        series(LOSS, [2.0, 1.0]), out_of_memory="device", out_of_memory_place="loading", out_of_memory_step=0
    )
    assert finding(NAME, loading).remedies[0].title.startswith("load the checkpoint to the host")
    state = loading.with_facts(out_of_memory_place="optimizer", out_of_memory_first=True)
    assert "makes its state at its first step" in finding(NAME, state).message


@pytest.mark.parametrize(("alive", "leak"), [(10.0, False), (11.0, True)])
def test_boundary_is_ten_graphs(alive: float, leak: bool) -> None:
    run = make_run(series(GRAPHS_ALIVE, [0.0, alive]), out_of_memory="device", out_of_memory_step=1)
    assert ("graphs" in finding(NAME, run).message) is leak


def test_a_log_does_not_tell() -> None:
    cannot_judge(NAME, make_run(series(LOSS, [1.0, 0.9])), "context manager")
    assert diagnose(make_run(series(LOSS, [1.0, 0.9]))).verdict == "cannot judge"
