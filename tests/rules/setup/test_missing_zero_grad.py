"""SET009 missing-zero-grad."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import GRAD_LEFTOVER, ZERO_GRAD_CALLS
from tests.hooked import digits, mlp
from tests.rules.books import adam, healthy, sgd, short
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
import fitdoctor  # noqa: E402
from torch import Tensor, nn  # noqa: E402

NAME = "missing-zero-grad"


def forgotten(model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    criterion(model(x), y).backward()
    optimizer.step()


def test_forgotten_with_a_high_rate_it_blows_up() -> None:
    found = finding(NAME, short(optimizer=sgd(1.0), step=forgotten), Severity.ERROR)
    assert found.remedies[0].title.startswith("call optimizer.zero_grad()")


def test_forgotten_under_adam_it_is_a_warning() -> None:
    assert finding(NAME, short(optimizer=adam(), step=forgotten), Severity.WARNING).onset <= 3


def test_cleared_through_the_model_or_to_zeros() -> None:
    def by_model(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        model.zero_grad()
        forgotten(model, c, optimizer, x, y)

    def to_zeros(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad(set_to_none=False)
        forgotten(model, c, optimizer, x, y)

    assert findings(NAME, short(step=by_model)) == []
    assert findings(NAME, short(step=to_zeros)) == []


def test_accumulation_that_is_meant() -> None:
    def accumulated(model: nn.Module, c: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        for part, labels in zip(x.split(10), y.split(10), strict=True):
            (c(model(part), labels) / 5).backward()
        optimizer.step()
        model.zero_grad()

    assert findings(NAME, short(step=accumulated)) == []


@pytest.mark.parametrize("clock", ["generator", "critic"])
def test_a_gan_clears_each_before_its_turn(clock: str) -> None:
    torch.manual_seed(0)
    nets = {"generator": mlp(8, 16, 8), "critic": mlp(8, 16, 1)}
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.01) for name, net in nets.items()}
    ordered = dict(sorted(optimizers.items(), key=lambda item: item[0] != clock))
    criterion = nn.BCEWithLogitsLoss()
    with fitdoctor.attach(nets, ordered, criterion, record_every=2, judge_every=10**9, tier="light") as monitor:
        for _ in range(30):
            real, noise = torch.randn(16, 8) + 1, torch.randn(16, 8)
            nets["critic"].zero_grad()
            criterion(nets["critic"](real), torch.ones(16, 1)).backward()
            fake = nets["generator"](noise)
            criterion(nets["critic"](fake.detach()), torch.zeros(16, 1)).backward()
            optimizers["critic"].step()
            nets["generator"].zero_grad()
            criterion(nets["critic"](fake), torch.ones(16, 1)).backward()
            optimizers["generator"].step()
    assert monitor.step == 30
    assert findings(NAME, monitor.run) == []
    assert findings("accumulation-scaling", monitor.run) == []


def test_a_closure_clears_inside() -> None:
    model, criterion = nn.Linear(64, 10), nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    x, y = digits()[0]
    with fitdoctor.attach(model, optimizer, criterion, record_every=1, judge_every=10**9, tier="light") as monitor:
        for i in range(8):

            def closure(part: slice = slice(100 * i, 100 * i + 100)) -> Tensor:
                optimizer.zero_grad()
                loss: Tensor = criterion(model(x[part]), y[part])
                loss.backward()
                return loss

            optimizer.step(closure)
    assert findings(NAME, monitor.run) == []
    assert findings("accumulation-scaling", monitor.run) == []


def test_a_sound_run_has_none() -> None:
    assert findings(NAME, healthy()) == []


def made(kept: int, of: int) -> Run:
    left = np.r_[0.0, np.where(np.arange(of) < kept, 1.0, 0.0)]
    return make_run(series(GRAD_LEFTOVER, left), series(ZERO_GRAD_CALLS, np.where(left > 0, 0.0, 1.0)))


@pytest.mark.parametrize(("kept", "found"), [(4, False), (5, True)])
def test_boundary_is_one_of_five_records(kept: int, found: bool) -> None:
    assert bool(findings(NAME, made(kept, 20))) is found


def test_too_few_records() -> None:
    cannot_judge(NAME, made(2, 2), "3 are needed")
