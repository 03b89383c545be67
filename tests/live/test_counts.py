"""Exact costs of a step. Below 5 % a time is noise on a shared machine; a count is not."""

from __future__ import annotations

import ast
from pathlib import Path

import fitdoctor.live
import pytest
import torch
from benchmarks.speed.hooks_workloads import WORKLOADS, counted, counts_by_level


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_a_step_costs(name: str) -> None:
    counts = counts_by_level(WORKLOADS[name])
    bare = counts["bare"]

    def more(level: str) -> tuple[int, int]:
        return counts[level].operations - bare.operations, counts[level].hook_calls

    work = WORKLOADS[name]()
    parameters = len(list(work[0].parameters()))
    layers = sum(not list(m.children()) for m in work[0].modules())
    assert more("idle") == (0, 3)  # forward before, step before and after, which return at once; the rest is off
    operations, calls = more("tick")
    assert operations <= 2  # what detaches the loss
    assert calls == 6  # forward before and after, criterion, backward, step before and after
    operations, calls = more("gradient")
    assert operations <= 4  # one fused norm, one stack; nothing per parameter
    assert calls == 6
    attentions = sum(isinstance(m, torch.nn.MultiheadAttention) for m in work[0].modules())
    operations, calls = more("record")
    assert operations <= 6 * layers + 2 * parameters + 40 * attentions + 80
    assert calls <= 7 + 2 * layers + attentions + 8  # what else is measured at records is told once each
    operations, calls = more("adam")
    assert operations <= 6 * layers + 4 * parameters + 40 * attentions + 120
    for level in counts:
        assert counts[level].syncs == bare.syncs, counts[level].kinds  # AdamW on the CPU reads its own step


def test_a_gradient_step_reads_each_gradient_once() -> None:
    counts = counts_by_level(WORKLOADS["cnn"])
    model = WORKLOADS["cnn"]()[0]
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    extra = counts["gradient"].bytes_read - counts["bare"].bytes_read
    assert size <= extra < 1.1 * size + 4096


def test_a_record_reads_weights_and_gradients_a_few_times() -> None:
    counts = counts_by_level(WORKLOADS["mlp40"], tier="light")
    model = WORKLOADS["mlp40"]()[0]
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    extra = counts["record"].bytes_read - counts["bare"].bytes_read
    assert extra < 8 * size  # gradient, copy, norm before, difference (two read), norm after


def test_a_wait_would_be_counted() -> None:
    with counted() as counts:
        torch.ones(3).sum().item()
    assert counts.syncs == 1


def blocking_copies(source: str) -> list[str]:
    """Functions of a module that make a tensor of host numbers on a device: that copy waits for a GPU."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                named = isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.tensor", "torch.as_tensor")
                if named and any(k.arg == "device" for k in node.keywords):  # type: ignore[attr-defined]
                    found.append(function.name)
    return found


def test_host_numbers_go_to_the_device_from_pinned_memory() -> None:
    folder = Path(fitdoctor.live.__file__).parent
    found = {path.stem: copies for path in folder.glob("*.py") if (copies := blocking_copies(path.read_text("utf-8")))}
    assert found == {"transport": ["constant"]}  # on the CPU only; elsewhere it pins and does not wait


def test_a_blocking_copy_would_be_found() -> None:
    assert blocking_copies("def f(t):\n    return torch.tensor([1.0], device=t.device)") == ["f"]
