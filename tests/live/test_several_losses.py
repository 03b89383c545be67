"""Several losses of one forward pass: mixup, auxiliary heads."""

from __future__ import annotations

import fitdoctor
import pytest
import torch
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, BACKWARD_CALLS, LOSS, LOSS_WEIGHT, STEP_QUALITY
from torch import nn


def _mixed(batches: int, share: float) -> tuple[Run, list[float]]:
    """A training with mixup over accumulated batches; the run, and the true loss of each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer, criterion = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
    x = torch.randn(32, 8)
    y, true = x[:, :4].argmax(1), []
    with fitdoctor.attach(model, optimizer, criterion, record_every=1, judge_every=10**9) as monitor:
        for _ in range(12):
            optimizer.zero_grad()
            true.append(0.0)
            for _ in range(batches):
                other = torch.randperm(32)
                output = model(share * x + (1 - share) * x[other])
                loss = share * criterion(output, y) + (1 - share) * criterion(output, y[other])
                (loss / batches).backward()
                true[-1] += loss.item() / batches
            optimizer.step()
    return monitor.run, true


@pytest.mark.parametrize("batches", [1, 3])
def test_mixup_is_weighted_as_the_loop_weights_it(batches: int) -> None:
    run, true = _mixed(batches, 0.1)
    logged = run.get(LOSS)
    calls = run.get(BACKWARD_CALLS)
    assert logged is not None
    assert calls is not None
    assert logged.values == pytest.approx(true, abs=1e-5)
    assert set(calls.values) == {batches}, "one backward pass a batch, however many losses it has"
    assert run.facts["gradient_accumulation_steps"] == batches


def test_what_means_nothing_under_mixup_is_not_measured() -> None:
    run, _ = _mixed(1, 0.1)
    assert run.get(ACCURACY) is None, "half of the targets are another input's"
    assert run.get(STEP_QUALITY) is None, "the batch cannot be run again with one call of the criterion"
    assert run.get(LOSS_WEIGHT) is None
