"""SET005 batchnorm-tiny-batch."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import NORM_SAMPLES
from tests.hooked import digits
from tests.rules.books import healthy, modal, net, sgd, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAME = "batchnorm-tiny-batch"


def trained(size: int, build: object = None, **more: object) -> Run:
    x, y = digits()[0]
    given = {"optimizer": sgd(0.05), "size": size, "epochs": 1, "data": (x[: 72 * size], y[: 72 * size])} | more
    return short(build or (lambda: modal(dropout=0)), tier="standard", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 3])
def test_two_or_three_values(size: int) -> None:
    found = finding(NAME, trained(size), Severity.WARNING)
    assert found.message == f"batch norm takes its statistics over {size} values per channel"


def test_eight_values_are_a_note() -> None:
    assert finding(NAME, trained(8), Severity.NOTE)


def test_eight_values_with_an_eval_mode_that_does_not_fit() -> None:
    x, y = digits()[0]
    broken = lambda: nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32, momentum=1e-4), nn.ReLU(), nn.Linear(32, 10))  # noqa: E731
    found = finding(NAME, trained(8, broken, probe_train=(x, y), every=2), Severity.WARNING)
    assert "in eval mode" in found.evidence[1].observed


def test_positions_of_an_image_count() -> None:
    images = lambda: nn.Sequential(  # noqa: E731
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    assert findings(NAME, trained(2, images)) == []


def test_frozen_norm_and_no_norm() -> None:
    def step(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: object, y: object) -> None:
        model[1].eval()  # type: ignore[index]
        optimizer.zero_grad()
        c(model(x), y).backward()
        optimizer.step()

    cannot_judge(NAME, trained(2, step=step), "no norm_samples")
    cannot_judge(NAME, trained(2, net), "no norm_samples")
    assert findings(NAME, healthy()) == []


@pytest.mark.parametrize(
    ("count", "severity"),
    [(3.9, Severity.WARNING), (4, Severity.NOTE), (15, Severity.NOTE), (16, None)],
)
def test_boundaries(count: float, severity: Severity | None) -> None:
    found = findings(NAME, make_run(series(NORM_SAMPLES, np.full(10, count))))
    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_a_short_last_batch_is_not_the_rule() -> None:
    assert findings(NAME, make_run(series(NORM_SAMPLES, [64.0] * 8 + [2.0]))) == []
