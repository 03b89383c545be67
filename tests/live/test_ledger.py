"""What the books of a loop hold: graphs that live, owners of parameters, operations, memory."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest
import torch
from fitdoctor.live import attach
from fitdoctor.live.ledger import Graphs, operation
from fitdoctor.live.machine import host_memory
from fitdoctor.live.out_of_memory import out_of_memory_facts
from fitdoctor.run import Run
from fitdoctor.signals import EVAL_FORWARDS, EVAL_TRAIN_MODE, NORM_SAMPLES, TARGET_STD, TRAIN_MODE, UPDATE_LOST_FRACTION
from tests.live.loops import batches, cnn, mlp, train
from torch import Tensor, nn


def losses(model: nn.Module, count: int) -> list[Tensor]:
    return [model(torch.randn(4, 8)).sum() for _ in range(count)]


def test_graphs_are_followed_as_long_as_anything_holds_them() -> None:
    model, graphs = nn.Linear(8, 2), Graphs()
    kept = losses(model, 4)
    for loss in kept:
        graphs.follow(loss)
    assert graphs.alive() == 3  # the last one may still be in use
    total: Any = sum(kept)
    del kept, loss
    assert graphs.alive() == 3  # the sum holds them
    del total
    gc.collect()
    assert graphs.alive() == 0


def test_backward_frees_what_nobody_keeps() -> None:
    model, graphs = nn.Linear(8, 2), Graphs()
    for _ in range(3):
        loss = losses(model, 1)[0]
        graphs.follow(loss)
        loss.backward()
    assert graphs.alive() == 0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: torch.sigmoid(x), "Sigmoid"),
        (lambda x: torch.softmax(x, 1).reshape(-1).clone()[2:], "Softmax"),
        (lambda x: torch.log_softmax(x, 1).float(), "LogSoftmax"),
        (lambda x: x.detach(), ""),
        (lambda x: torch.sigmoid(x) * 2, "Mul"),
    ],
)
def test_the_operation_that_made_a_tensor(make: Any, name: str) -> None:
    assert operation(make(nn.Linear(8, 3)(torch.ones(4, 8)))) == name


def watched(model: nn.Module, **more: Any) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1, **more) as monitor:
        train(model, optimizer, criterion, batches(3))
        model.eval()
        with torch.no_grad():
            model(batches(1)[0][0])
        model.train()
        train(model, optimizer, criterion, batches(2))
    return monitor.run


def test_modes_by_kind_of_layer_and_evaluations() -> None:
    run = watched(nn.Sequential(mlp(), nn.BatchNorm1d(4)))
    assert set(run.layers(TRAIN_MODE)) == {"model", "dropout", "batch_norm"}
    assert run.facts["dropout_layers"] == run.facts["batch_norm_layers"] == 1
    seen = [run.get(q) for q in (EVAL_FORWARDS, EVAL_TRAIN_MODE)]
    assert [(list(s.steps), list(s.values)) for s in seen if s is not None] == [([4], [1.0]), ([4], [0.0])]


def test_values_that_a_norm_averages_over() -> None:
    samples = watched(cnn()).get(NORM_SAMPLES)
    assert samples is not None
    assert set(samples.values) == {16 * 2 * 4}


def test_spread_of_targets_and_shapes() -> None:
    model = nn.Linear(8, 1)
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss(reduction="sum")
    target = torch.tensor([[1.0], [3.0]])
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        criterion(model(torch.randn(2, 8)), target).backward()
        optimizer.step()
    spread = monitor.run.get(TARGET_STD)
    assert spread is not None
    assert list(spread.values) == [1.0]
    facts = monitor.run.facts
    assert (facts["loss_input_shape"], facts["loss_target_shape"], facts["loss_reduction"]) == ("2x1", "2x1", "sum")


def test_parameters_that_no_optimizer_holds_and_another_one_changes() -> None:
    model, criterion = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), nn.CrossEntropyLoss()
    first, second = (torch.optim.SGD(part.parameters(), lr=0.1) for part in model)
    with attach(model, first, criterion, record_every=1) as monitor:
        train(model, first, criterion, batches(3))
        assert monitor.run.facts["trainable_not_in_optimizer"] == "1.weight, 1.bias"
        assert monitor.run.facts["trainable_not_in_optimizer_changed"] == 0
        second.step()
        train(model, first, criterion, batches(2))
    assert monitor.run.facts["trainable_not_in_optimizer_changed"] == 2


def test_updates_lost_in_bfloat16() -> None:
    model = nn.Linear(8, 4).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with attach(model, optimizer, record_every=1) as monitor:
        for size in (0.0, 1e-3, 1e-3, 1.0):  # half a unit in the last place below 1 is 1 / 512
            optimizer.zero_grad()
            model(torch.ones(2, 8, dtype=torch.bfloat16)).sum().backward()
            for p in model.parameters():
                p.grad = torch.full_like(p, size)
            optimizer.step()
    lost = monitor.run.get(UPDATE_LOST_FRACTION)
    assert lost is not None
    assert list(lost.values) == [1.0, 1.0, 0.0]


def test_memory_of_child_processes_counts() -> None:
    alone = host_memory()
    if alone is None:
        pytest.skip("this system does not tell")
    held = "held = bytearray(60_000_000)\nprint(len(held), flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        more = host_memory()
    finally:
        child.communicate(b"\n", timeout=60)
    assert more is not None
    assert more - alone > 50_000_000


def test_what_an_exception_says_of_memory() -> None:
    text = (
        "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is "
        "free. Of the allocated memory 5.00 GiB is allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but "
        "unallocated."
    )
    facts = out_of_memory_facts(torch.OutOfMemoryError(text), None, step=7, training=True, stepped=True)
    sizes = {k: v for k, v in facts.items() if k.startswith("out_of_memory_") and isinstance(v, int) and v > 7}
    assert sizes == {
        "out_of_memory_requested": 3 * 2**29,
        "out_of_memory_allocated": 5 * 2**30,
        "out_of_memory_reserved_free": 2**29,
        "out_of_memory_total": 2**33,
    }
    for other in (None, ValueError("out of memory"), RuntimeError("shapes differ"), KeyboardInterrupt()):
        assert out_of_memory_facts(other, None, step=0, training=True, stepped=False) == {}
