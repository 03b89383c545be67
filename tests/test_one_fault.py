"""One fault, one diagnosis: real small trainings, watched by the hooks, each with a single fault of the program.

Whatever the fault drags along (dead units, vanishing gradients, one predicted class, a flat loss ...) must stand below
it: exactly one diagnosis holds a warning or an error, and its root names the fault.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial

import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Severity
from fitdoctor.report import Diagnosis, Report
from fitdoctor.run import Run

torch = pytest.importorskip("torch")

from tests.hooked import Data, digits, mlp, ordinary_step, watch  # noqa: E402
from torch import Tensor, nn  # noqa: E402  (after importorskip)

Optimizer = torch.optim.Optimizer
SMALL = (64, 64, 64, 10)


def sgd(lr: float, momentum: float = 0.9) -> Callable[[nn.Module], Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), lr, momentum=momentum)


def adam(lr: float, **more: float) -> Callable[[nn.Module], Optimizer]:
    return lambda model: torch.optim.Adam(model.parameters(), lr, **more)


def adamw(lr: float, weight_decay: float) -> Callable[[nn.Module], Optimizer]:
    return lambda model: torch.optim.AdamW(model.parameters(), lr, weight_decay=weight_decay)


def of_another_model(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(copy.deepcopy(model).parameters(), 0.05, momentum=0.9)


# --- models -------------------------------------------------------------------------------------------


def scaled(widths: tuple[int, ...], gain: float) -> nn.Module:
    """He initialisation times a gain."""
    model = mlp(*widths)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight).mul_(gain)
                layer.bias.zero_()
    return model


def constant(value: float) -> nn.Module:
    model = mlp(*SMALL)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value if p.ndim > 1 else 0.0)
    return model


def with_softmax() -> nn.Module:
    return nn.Sequential(*mlp(*SMALL), nn.Softmax(-1))


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


# --- steps --------------------------------------------------------------------------------------------


def without_zero_grad(model: nn.Module, criterion: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> None:
    criterion(model(x), y).backward()
    optimizer.step()


def without_step(model: nn.Module, criterion: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    criterion(model(x), y).backward()


def ignoring_warnings(model: nn.Module, criterion: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> None:
    """An ordinary step; torch warns of shapes that it broadcasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ordinary_step(model, criterion, optimizer, x, y)


def in_eval_mode(model: nn.Module, criterion: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> None:
    model.eval()
    ordinary_step(model, criterion, optimizer, x, y)


class KeepingGraphs:
    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def __call__(self, model: nn.Module, criterion: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward(retain_graph=True)
        self.losses.append(loss)
        optimizer.step()


class OneBadBatch:
    """The batch of one step holds a nan."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, model: nn.Module, criterion: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> None:
        self.left -= 1
        if self.left == 0:
            x = x.clone()
            x[0, 0] = torch.nan
        ordinary_step(model, criterion, optimizer, x, y)


# --- data ---------------------------------------------------------------------------------------------


def regression() -> Data:
    (x, y), _ = digits()
    return x, y.float()


def mislabelled(share: float) -> Data:
    (x, y), _ = digits()
    generator = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(y), generator=generator) < share
    return x, torch.where(wrong, torch.randint(0, 10, (len(y),), generator=generator), y)


# --- faults -------------------------------------------------------------------------------------------

plain = partial(mlp, *SMALL)
FAULTS: dict[str, tuple[Callable[[], Run], set[str]]] = {
    "a rate that kills the units": (
        lambda: watch(partial(mlp, 64, 64, 64, 64, 10), optimizer=sgd(1.0)),
        {"lr-too-high"},
    ),
    "a rate too high for Adam": (
        lambda: watch(partial(mlp, 64, 64, 64, 64, 10), optimizer=adam(0.3)),
        {"lr-too-high"},
    ),
    "weights that explode": (
        lambda: watch(partial(scaled, (*[64] * 8, 10), 4.0), optimizer=sgd(0.01)),
        {"poor-init-scale"},
    ),
    "weights that fade": (
        lambda: watch(partial(scaled, (*[64] * 12, 10), 0.3), optimizer=sgd(0.05)),
        {"poor-init-scale"},
    ),
    "PyTorch's own weights, 20 layers": (
        lambda: watch(partial(mlp, *[64] * 20, 10), optimizer=sgd(0.05)),
        {"poor-init-scale"},
    ),
    "sigmoids, 8 layers": (
        lambda: watch(partial(mlp, *[64] * 8, 10, activation=nn.Sigmoid), optimizer=sgd(0.05)),
        {"vanishing-gradients", "poor-init-scale"},
    ),
    "all weights zero": (lambda: watch(partial(constant, 0.0), optimizer=sgd(0.05)), {"symmetric-init"}),
    "all weights equal": (lambda: watch(partial(constant, 0.05), optimizer=sgd(0.05)), {"symmetric-init"}),
    "no zero_grad": (lambda: watch(plain, optimizer=sgd(0.05), step=without_zero_grad), {"missing-zero-grad"}),
    "no zero_grad, Adam": (lambda: watch(plain, optimizer=adam(1e-3), step=without_zero_grad), {"missing-zero-grad"}),
    "no step": (lambda: watch(plain, optimizer=sgd(0.05), step=without_step), {"no-parameter-updates"}),
    "an optimizer of another model": (
        lambda: watch(plain, optimizer=of_another_model),
        {"no-parameter-updates", "optimizer-missing-params"},
    ),
    "softmax twice": (lambda: watch(with_softmax, optimizer=sgd(0.05)), {"double-softmax"}),
    "eval mode": (lambda: watch(with_batch_norm, optimizer=sgd(0.05), step=in_eval_mode), {"eval-mode-in-training"}),
    "batch norm over two": (
        lambda: watch(with_batch_norm, optimizer=sgd(0.01), size=2, epochs=1),
        {"batchnorm-tiny-batch"},
    ),
    "weight decay": (lambda: watch(plain, optimizer=adamw(1e-2, 10.0)), {"weight-decay-too-high"}),
    "a huge epsilon": (lambda: watch(plain, optimizer=adam(1e-3, eps=1.0)), {"adam-epsilon-dominated"}),
    "a nan in one batch": (lambda: watch(plain, optimizer=sgd(0.05), step=OneBadBatch(80)), {"nonfinite-loss"}),
    "shapes that are broadcast": (
        lambda: watch(
            partial(mlp, 64, 64, 1),
            optimizer=sgd(1e-3),
            criterion=nn.MSELoss(),
            data=regression(),
            step=ignoring_warnings,
        ),
        {"loss-target-mismatch"},
    ),
    "graphs that are kept": (lambda: watch(plain, optimizer=sgd(0.05), step=KeepingGraphs()), {"retained-graph"}),
    "wrong labels": (
        lambda: watch(
            partial(mlp, 64, 256, 256, 10), optimizer=adam(3e-3), data=mislabelled(0.5), val=digits()[1], epochs=20
        ),
        {"overfitting", "memorisation-label-noise"},
    ),
}


def harmful(report: Report) -> list[Diagnosis]:
    """The diagnoses that hold a warning or an error."""
    return [d for d in report.diagnoses if any(f.severity is not Severity.NOTE for f in (d.root, *d.explains))]


def told(report: Report) -> str:
    """What a failed test shows of a report."""
    lines = [
        f"{d.root.severity} {d.root.rule} from {d.root.onset}: {d.root.message}; explains "
        + ", ".join(f"{f.rule} ({f.severity}, {f.onset})" for f in d.explains)
        for d in report.diagnoses
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_diagnosis(fault: str) -> None:
    make, roots = FAULTS[fault]
    report = diagnose(make())
    assert not [o for o in report.outcomes if o.status == "crashed"]
    assert [d.root.rule for d in harmful(report) if d.root.rule not in roots] == [], told(report)
    assert len(harmful(report)) == 1, told(report)


def test_a_sound_training_has_none() -> None:
    report = diagnose(watch(plain, optimizer=sgd(0.05)))
    assert harmful(report) == [], told(report)


def test_two_faults_are_two_diagnoses() -> None:
    report = diagnose(watch(with_softmax, optimizer=adam(1e-3), step=KeepingGraphs()))
    assert {d.root.rule for d in harmful(report)} == {"double-softmax", "retained-graph"}, told(report)
