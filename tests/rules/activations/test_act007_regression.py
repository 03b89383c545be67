"""wrong-initial-loss of regressions: real small trainings."""

from __future__ import annotations

import fitdoctor
import pytest
import torch
from fitdoctor import catalogue
from fitdoctor.finding import Finding
from torch import nn


def _found(*, gain: float = 1.0, offset: float = 0.0, steps: int = 60, spread: float = 1.0) -> list[Finding]:
    """What the rule finds in a regression with these weights and targets."""
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = (x[:, :2].sum(1, keepdim=True).tanh() + 0.1 * torch.randn(256, 1)) * spread + offset
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    with torch.no_grad():
        model[2].weight.mul_(gain)
    optimizer, criterion = torch.optim.Adam(model.parameters(), 3e-3), nn.MSELoss()
    with fitdoctor.attach(model, optimizer, criterion, record_every=1, judge_every=10**9) as monitor:
        for i in range(steps):
            part = slice(32 * (i % 8), 32 * (i % 8) + 32)
            optimizer.zero_grad()
            criterion(model(x[part]), y[part]).backward()
            optimizer.step()
    return list(catalogue.find("wrong-initial-loss").check(monitor.run))


@pytest.mark.parametrize(("gain", "offset"), [(60.0, 0.0), (1.0, 12.0)])
def test_outputs_far_from_the_targets(gain: float, offset: float) -> None:
    (finding,) = _found(gain=gain, offset=offset)
    assert "of guessing" in finding.message


@pytest.mark.parametrize("spread", [1.0, 0.3, 40.0])
def test_an_ordinary_beginning_is_left_alone_whatever_the_unit_of_the_targets(spread: float) -> None:
    assert _found(spread=spread) == []


def test_at_the_boundary() -> None:
    assert _found(offset=1.2) == [], "a mean of some standard deviations is learned by the bias at once"
