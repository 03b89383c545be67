"""A monitor changes nothing: weights, losses and random numbers are bit for bit the same with and without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fitdoctor.live import attach
from tests.live.loops import MODELS, batches, train
from torch import nn


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    moments = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    return [*model.state_dict().values(), *moments, torch.get_rng_state()]


@pytest.mark.parametrize("tier", ["light", "standard", "deep"])
@pytest.mark.parametrize("name", MODELS)
def test_training_is_bit_identical(name: str, tier: Any, tmp_path: Any) -> None:
    finals = []
    for monitored in (False, True):
        torch.manual_seed(3)
        model = MODELS[name]()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        criterion = nn.CrossEntropyLoss()
        data = batches(12)
        if monitored:
            with attach(
                model, optimizer, criterion, logdir=tmp_path, tier=tier, record_every=1, judge_every=4, probe_every=2,
                probe_train=data[0], probe_val=data[1],
            ) as monitor:  # fmt: skip
                losses = train(model, optimizer, criterion, data)
                monitor.log(val_loss=0.5)
            assert len(monitor.run.series) > 20  # it did measure
        else:
            losses = train(model, optimizer, criterion, data)
        finals.append((losses, state(model, optimizer), [m.training for m in model.modules()]))
    (losses_a, state_a, modes_a), (losses_b, state_b, modes_b) = finals
    assert losses_a == losses_b
    assert modes_a == modes_b
    assert len(state_a) == len(state_b)
    assert all(torch.equal(a, b) for a, b in zip(state_a, state_b, strict=True))


def test_the_comparison_can_fail() -> None:
    torch.manual_seed(0)
    model = MODELS["mlp with dropout"]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [t.clone() for t in state(model, optimizer)]
    torch.rand(1)  # one random number more
    after = state(model, optimizer)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
