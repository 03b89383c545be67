from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import fitdoctor
import numpy as np
import pytest
import torch
from fitdoctor.errors import ConfigError
from fitdoctor.live import attach, replay
from fitdoctor.live.probes.guard import untouched
from fitdoctor.run import Series
from fitdoctor.signals import (
    ADAM_SURPRISE,
    ADAM_TINY_FRACTION,
    LOSS,
    PROBE_ACCURACY,
    PROBE_LOSS,
    STEP_QUALITY,
)
from tests.live.loops import batches, cnn, mlp, train
from torch import Tensor, nn


def test_everything_is_put_back() -> None:
    model = cnn()
    model[3].eval()
    states = [b.clone() for b in model.buffers()], [m.training for m in model.modules()]
    draws = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002

    def meddle() -> None:
        with untouched(model):
            model.train()
            model(torch.randn(4, 8))  # changes the running mean
            random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        meddle()
    assert all(torch.equal(a, b) for a, b in zip(states[0], model.buffers(), strict=True))
    assert states[1] == [m.training for m in model.modules()]
    assert random.getstate() == draws[0]
    assert np.random.get_state()[1].tolist() == draws[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), draws[2])


def probe(monitor: fitdoctor.Monitor, split: str) -> float:
    series = monitor.run.get(PROBE_LOSS, split)
    assert series is not None
    return float(series.values[-1])


def test_fixed_batches_are_evaluated_in_eval_mode() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    criterion = nn.CrossEntropyLoss()
    data = batches(30)
    with attach(
        model, optimizer, criterion, probe_train=data[0], probe_val=lambda m: criterion(m(data[1][0]), data[1][1]),
        record_every=1, probe_every=1,
    ) as monitor:  # fmt: skip
        train(model, optimizer, criterion, data[2:])
    model.eval()
    with torch.no_grad():
        expected = float(criterion(model(data[0][0]), data[0][1]))
        accuracy = float((model(data[0][0]).argmax(1) == data[0][1]).float().mean())
    assert probe(monitor, "train") == pytest.approx(expected, rel=1e-5)
    found = monitor.run.get(PROBE_ACCURACY, "train")
    assert found is not None
    assert found.values[-1] == pytest.approx(accuracy)
    stands_in = monitor.run.get(LOSS, "val")
    assert stands_in is not None
    assert stands_in.values[-1] == probe(monitor, "val")


@pytest.mark.parametrize(
    ("lr", "low", "high"), [(1e-3, 0.98, 1.02), (0.1, 0.8, 0.99), (1.9, -0.05, 0.15), (3.0, -9, -0.3)]
)
def test_step_quality_on_a_quadratic(lr: float, low: float, high: float) -> None:
    """On half of x squared the ratio is one minus half the learning rate."""

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.full((3,), 2.0))

        def forward(self, scale: Tensor) -> Tensor:
            return self.x * scale

    class Half(nn.Module):
        def forward(self, x: Tensor, target: Tensor) -> Tensor:
            return 0.5 * (x - target).square().sum()

    model, criterion = Point(), Half()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with attach(model, optimizer, criterion, record_every=1, probe_every=1) as monitor:
        train(model, optimizer, criterion, [(torch.ones(3), torch.zeros(3))] * 6)
    series = monitor.run.get(STEP_QUALITY)
    assert series is not None
    assert (low <= series.values).all()
    assert (series.values <= high).all()
    assert series.values == pytest.approx(1 - lr / 2, abs=1e-2)


@pytest.mark.parametrize("clip", [False, True])
def test_step_quality_replays_dropout_and_knows_of_clipping(clip: bool) -> None:
    torch.manual_seed(0)
    model = mlp()  # with dropout: another mask would drown the effect of a tiny step
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 if not clip else 1e-2)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1, probe_every=1) as monitor:
        for x, y in batches(20):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
    series = monitor.run.get(STEP_QUALITY)
    assert series is not None
    assert len(series) >= 10
    assert np.abs(series.values - 1).max() < 0.1


def quality_of(output_to_input: Callable[[Tensor], Tensor], target: Tensor, criterion: nn.Module) -> Series | None:
    """Step quality of a tiny step where the loop does something to the model's output before the criterion."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 6), nn.Unflatten(1, (3, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with attach(model, optimizer, criterion, record_every=1, probe_every=1) as monitor:
        for x, _ in batches(6):
            optimizer.zero_grad()
            criterion(output_to_input(model(x)), target).backward()
            optimizer.step()
    return monitor.run.get(STEP_QUALITY)


def test_step_quality_where_the_criterion_takes_a_view_of_the_output() -> None:
    labels = torch.arange(16) % 2
    for view, target in (
        (lambda out: out.flatten(0, 1), labels.repeat(3)),  # tokens
        (lambda out: out[:, -1], labels),  # the last place
        (lambda out: out.transpose(1, 2)[:, :, 0], labels),
    ):
        series = quality_of(view, target, nn.CrossEntropyLoss())
        assert series is not None
        assert np.abs(series.values - 1).max() < 0.1


def test_no_step_quality_where_the_criterion_takes_something_else() -> None:
    labels = torch.arange(16) % 2
    assert quality_of(lambda out: out.mean(1), labels, nn.CrossEntropyLoss()) is None
    assert quality_of(lambda out: out.softmax(2)[:, 0], labels, nn.CrossEntropyLoss()) is None


def test_adam_health() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, eps=1e-8)
    criterion = nn.CrossEntropyLoss()
    data = batches(40, size=64)  # steps 1, 5 ... 37, 41 are looked at
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        train(model, optimizer, criterion, data)
        steady = {k: float(s.values[-1]) for k, s in monitor.run.layers(ADAM_SURPRISE).items()}
        optimizer.zero_grad()
        (criterion(model(data[0][0]), data[0][1]) * 100).backward()
        optimizer.step()
        monitor.report()
        shocked = {k: float(s.values[-1]) for k, s in monitor.run.layers(ADAM_SURPRISE).items()}
    # One gradient 100 times its history, with beta2 0.999 after 40 steps: v is dominated by it, about sqrt(40).
    assert all(0.3 < v < 3 for v in steady.values())
    assert all(4 < v < 8 for v in shocked.values())
    assert all(s.values[-1] < 0.5 for k, s in monitor.run.layers(ADAM_TINY_FRACTION).items() if k == "2.weight")


def test_adam_swamped_by_epsilon() -> None:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, eps=1.0)
    criterion = nn.CrossEntropyLoss()
    with attach(model, optimizer, criterion, record_every=1) as monitor:
        train(model, optimizer, criterion, batches(5))
    assert monitor.run.layers(ADAM_TINY_FRACTION)["weight"].values[-1] == 1


@pytest.mark.parametrize(
    ("batch", "criterion", "message"),
    [((torch.ones(2, 8), torch.zeros(2)), None, "needs a criterion"), (3, nn.MSELoss(), "got int")],
)
def test_probes_that_cannot_be_evaluated(batch: Any, criterion: Any, message: str) -> None:
    model = mlp()
    with pytest.raises(ConfigError, match=message):
        attach(model, torch.optim.SGD(model.parameters(), 0.1), criterion, probe_val=batch)


def test_a_failing_probe_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    criterion = nn.CrossEntropyLoss()
    with attach(
        model, optimizer, criterion, probe_val=(torch.ones(2, 9), torch.zeros(2)), record_every=1, probe_every=1
    ) as monitor:
        losses = train(model, optimizer, criterion, batches(10))
    assert len(losses) == monitor.step == 10
    assert monitor.run.get(LOSS) is not None
    assert sum("is switched off" in r.getMessage() for r in caplog.records) == 1


def test_replay_names_operation_and_layer() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x).sqrt()  # slope of the root at 0 is infinite, times 0 is nan

    model = nn.Sequential(nn.Linear(8, 4), Root())
    before = torch.get_rng_state()
    found = replay(model, nn.MSELoss(), torch.randn(2, 8), torch.zeros(2, 4))
    assert found.backward == "SqrtBackward0"
    assert "sqrt" in found.traceback
    assert (found.forward, found.inputs_finite, found.weights_finite) == ("", True, True)
    assert all(p.grad is None for p in model.parameters())
    assert not torch.is_anomaly_enabled()
    del before
