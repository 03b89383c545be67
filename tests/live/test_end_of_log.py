"""What the monitor leaves behind in its log: whether the run is over, how large its batches were, what probes saw."""

from __future__ import annotations

from pathlib import Path

import fitdoctor
import pytest

torch = pytest.importorskip("torch")

from fitdoctor.run import Run  # noqa: E402
from fitdoctor.signals import LOSS, PROBE_ACCURACY, PROBE_LOSS  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def trained(folder: Path, sizes: list[int], *, close: bool = True) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    opt, criterion = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
    monitor = fitdoctor.attach(model, opt, criterion, logdir=folder, record_every=1)
    for size in sizes:
        x = torch.randn(size, 4)
        opt.zero_grad()
        criterion(model(x), (x[:, 0] > 0).long()).backward()
        opt.step()
    if close:
        monitor.close()
    else:
        monitor.flush()


def read(folder: Path) -> Run:
    return next(iter(fitdoctor.open_runs(folder)))


def test_a_closed_log_says_that_the_run_is_over(tmp_path: Path) -> None:
    trained(tmp_path / "closed", [16] * 20)
    run = read(tmp_path / "closed")
    assert run.finished is True
    assert "finished" not in run.facts


def test_a_run_that_is_resumed_is_not_over(tmp_path: Path) -> None:
    trained(tmp_path, [16] * 20)
    trained(tmp_path, [16] * 20, close=False)
    assert read(tmp_path).finished is not True


def test_a_short_last_batch_is_not_the_size_of_batches(tmp_path: Path) -> None:
    trained(tmp_path, [16] * 20 + [3])
    assert read(tmp_path).facts["batch_size"] == 16


class Flattened(nn.CrossEntropyLoss):
    """Scores of shape (batch, time, classes), targets of shape (batch, time)."""

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        return super().forward(scores.flatten(0, 1), target.flatten())


def test_a_criterion_that_flattens_keeps_its_probe(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))
    opt, criterion = torch.optim.SGD(model.parameters(), 0.5), Flattened()
    x = torch.randint(0, 7, (16, 5))
    monitor = fitdoctor.attach(
        model, opt, criterion, logdir=tmp_path, record_every=1, probe_every=2, probe_train=(x, x)
    )
    for _ in range(60):
        opt.zero_grad()
        criterion(model(x), x).backward()
        opt.step()
    monitor.close()
    run = read(tmp_path)
    loss, right = run.get(PROBE_LOSS), run.get(PROBE_ACCURACY)
    assert loss is not None
    assert right is not None
    assert loss.values[-1] < loss.values[0]
    assert right.values[-1] > 0.8


def test_a_loss_that_carries_a_gradient_may_be_logged(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    with fitdoctor.attach(model, torch.optim.SGD(model.parameters(), 0.1), logdir=tmp_path) as monitor:
        monitor.log(val_loss=model(torch.randn(2, 4)).square().mean())
    assert read(tmp_path).get(LOSS, "val") is not None
