"""Trainings watched by the monitor, for the tests of rules on optimizer and fit: each a second or less, made once.

`watched(name)` is the run of a case. A sick case has a cure, the same training with one thing changed, and
tests/rules/test_watched.py checks that it helps on the fixed batches, which are all of the data: sick by
intervention, not by the look of a curve. The sound cases are odd, and end where a sound training ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from fitdoctor.run import Run
from fitdoctor.signals import PROBE_ACCURACY, PROBE_LOSS

torch = pytest.importorskip("torch")

from tests.hooked import Data, digits, mlp, watch  # noqa: E402  (after importorskip)
from torch import Tensor, nn  # noqa: E402

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]
Make = Callable[[], Run]


@dataclass(frozen=True)
class Case:
    """A training, and for a sick one the training that is cured of it.

    Attributes:
        make: trains and returns the run.
        cure: the same with one thing changed.
        better: split on whose fixed batch the cure shows.
        by_accuracy: whether it shows in the accuracy, not in the loss.
    """

    make: Make
    cure: Make | None = None
    better: str = "train"
    by_accuracy: bool = False


def sgd(lr: float, momentum: float = 0.9, **more: Any) -> Optimizer:
    return lambda model: torch.optim.SGD(model.parameters(), lr, momentum=momentum, **more)


def adam(lr: float, **more: Any) -> Optimizer:
    return lambda model: torch.optim.Adam(model.parameters(), lr, **more)


def adamw(lr: float, **more: Any) -> Optimizer:
    return lambda model: torch.optim.AdamW(model.parameters(), lr, **more)


def cosine(epochs: int) -> Callable[[torch.optim.Optimizer], Any]:
    return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)


def spent_after(epochs: int) -> Callable[[torch.optim.Optimizer], Any]:
    """The rate falls in a straight line, and is 0 from that epoch on."""
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / epochs))


def restarts(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 8)


def looked_at(build: Callable[[], nn.Module], optimizer: Optimizer, **more: Any) -> Run:
    """A training whose fixed batches are all of the training and all of the validation data; digits unless given."""
    train = more.pop("data", None) or digits()[0]
    val = more.pop("val", None) or digits()[1]
    probe = more.pop("probe", train)
    more = {"epochs": 20, **more}
    return watch(build, optimizer=optimizer, data=train, val=val, probe_train=probe, probe_val=val, **more)


# --- data -----------------------------------------------------------------------------------------


def first(n: int) -> Data:
    """The first training digits."""
    x, y = digits()[0]
    return x[:n], y[:n]


def mislabelled(share: float, n: int = 1200) -> Data:
    """Training digits of which a share have another label."""
    x, y = first(n)
    generator = torch.Generator().manual_seed(3)
    wrong = torch.rand(n, generator=generator) < share
    shift = torch.randint(1, 10, (n,), generator=generator)
    return x, torch.where(wrong, (y + shift) % 10, y)


def tiny_val(n: int = 24) -> Data:
    x, y = digits()[1]
    return x[:n], y[:n]


def shifted_val() -> Data:
    """The validation images as another pipeline would prepare them: transposed."""
    x, y = digits()[1]
    return x.reshape(-1, 8, 8).transpose(1, 2).reshape(-1, 64).contiguous(), y


def inverted_val() -> Data:
    """The validation images with black for white."""
    x, y = digits()[1]
    return -x, y


# --- models and steps -----------------------------------------------------------------------------


def plain() -> nn.Module:
    return mlp(64, 64, 10)


def deep() -> nn.Module:
    return mlp(64, 64, 64, 64, 10)


def linear() -> nn.Module:
    return mlp(64, 10)


def wide() -> nn.Module:
    return mlp(64, 256, 10)


def dropped(p: float = 0.4, width: int = 128) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(p), nn.Linear(width, 10))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


def accumulated(parts: int) -> Callable[..., None]:
    """Each batch in several parts, the loss divided by their number."""

    def step(model: nn.Module, criterion: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        opt.zero_grad()
        for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (criterion(model(a), b) / parts).backward()
        opt.step()

    return step


@cache
def pretrained() -> dict[str, Tensor]:
    """Weights trained on the first 600 digits."""
    x, y = digits()[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = mlp(64, 64, 64, 10)
        opt = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            for i in torch.randperm(600).split(60):
                opt.zero_grad()
                nn.functional.cross_entropy(model(x[i]), y[i]).backward()
                opt.step()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def from_pretrained(*, frozen: bool = False) -> nn.Module:
    model = mlp(64, 64, 64, 10)
    model.load_state_dict(pretrained())
    if frozen:
        for p in model[:4].parameters():
            p.requires_grad_(False)
        model[4].reset_parameters()
    return model


def full_batch(lr: float) -> Run:
    """Full batches and plain gradient descent."""
    return looked_at(lambda: mlp(64, 32, 10, activation=nn.Tanh), sgd(lr, 0.0), data=first(300), size=300, epochs=200)


SOUND: dict[str, Case] = {
    "ordinary": Case(lambda: looked_at(plain, sgd(0.05), scheduler=cosine(20))),
    "dropout": Case(lambda: looked_at(dropped(), sgd(0.05), scheduler=cosine(20))),
    "Adam, constant rate": Case(lambda: looked_at(plain, adam(5e-3), size=30)),
    "full batch": Case(lambda: full_batch(1.5)),
    "edge of stability": Case(lambda: looked_at(plain, sgd(0.8, 0.0), epochs=6, every=2)),
    "edge of stability, tanh": Case(
        lambda: looked_at(lambda: mlp(64, 64, 10, activation=nn.Tanh), sgd(1.2, 0.0), epochs=6, every=2)),
    "catapult": Case(lambda: looked_at(plain, sgd(0.8, 0.0), scheduler=cosine(20))),
    "warm restarts": Case(lambda: looked_at(plain, sgd(0.1), scheduler=restarts, epochs=24)),
    "label smoothing": Case(lambda: looked_at(
        plain, sgd(0.05), scheduler=cosine(20), criterion=nn.CrossEntropyLoss(label_smoothing=0.1))),
    "frozen backbone": Case(lambda: looked_at(lambda: from_pretrained(frozen=True), adam(0.01), scheduler=cosine(20))),
    "fine-tuning": Case(lambda: looked_at(from_pretrained, adam(1e-4), epochs=12)),
    "accumulation": Case(lambda: looked_at(plain, adam(3e-3), step=accumulated(5), size=100, scheduler=cosine(20))),
    "tiny validation set": Case(lambda: looked_at(plain, adam(3e-3), val=tiny_val())),
    "batch norm, strong decay": Case(
        lambda: looked_at(normed, adamw(5e-3, weight_decay=0.3), scheduler=cosine(20))),
}  # fmt: skip
"""Odd, and sound."""


@cache
def watched(name: str) -> Run:
    """The run of that case, made once."""
    return _with_one_thread((SOUND | SICK)[name].make)


@cache
def cured(name: str) -> Run:
    """The run of that case with its cure."""
    cure = SICK[name].cure
    assert cure is not None
    return _with_one_thread(cure)


def ending(run: Run, split: str, *, accuracy: bool = False) -> float:
    """The last loss or accuracy of the fixed batch of a split; infinity where it is not finite."""
    series = run.get(PROBE_ACCURACY if accuracy else PROBE_LOSS, split)
    assert series is not None
    value = float(series.values[-1])
    return value if value == value else float("inf")


def _with_one_thread(make: Make) -> Run:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            return make()
    finally:
        torch.set_num_threads(threads)


def short(build: Callable[[], nn.Module], optimizer: Optimizer, **more: Any) -> Make:
    """Ten epochs, unless another number is given."""
    return lambda: looked_at(build, optimizer, **{"epochs": 10, **more})


def stacked(activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Eight layers without normalisation or residual connections; gradients vanish through sigmoids."""
    return lambda: mlp(*[64] * 8, 10, activation=activation)


def lopsided() -> nn.Module:
    """A first layer with weights a hundred times too large."""
    model = deep()
    with torch.no_grad():
        model[0].weight *= 100
    return model


def grown_after(steps: int, factor: float = 1e-4) -> Callable[..., None]:
    """Gradients that are tiny for so many steps: what a loss weight that is switched on does."""
    done = 0

    def step(model: nn.Module, criterion: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        nonlocal done
        done += 1
        opt.zero_grad()
        criterion(model(x), y).backward()
        for p in model.parameters():
            assert p.grad is not None
            p.grad *= factor if done <= steps else 1.0
        opt.step()

    return step


def in_other_units(times: float, every: int = 11) -> Callable[..., None]:
    """Now and then a batch whose inputs are so many times too large."""
    done = 0

    def step(model: nn.Module, criterion: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        nonlocal done
        done += 1
        opt.zero_grad()
        criterion(model(x if done % every else x * times), y).backward()
        opt.step()

    return step


class TinyLoss(nn.CrossEntropyLoss):
    """Cross-entropy in a unit that makes it a billionth."""

    def forward(self, *args: Tensor) -> Tensor:
        return super().forward(*args) * 1e-9


def never_annealed(size: int, lr: float, **more: Any) -> Make:
    return short(
        linear, sgd(lr, 0.0), data=mislabelled(0.4, 600), size=size, every=600 // size // 12, epochs=12, **more
    )


def lagging(build: Callable[[], nn.Module], lr: float, **more: Any) -> Make:
    """Gradients that grow ten-thousandfold after 150 steps."""
    return lambda: looked_at(build, adam(lr, **more), step=grown_after(150), every=2, epochs=10)


SICK: dict[str, Case] = {
    # rate
    "rate x30, deep Adam": Case(short(deep, adam(0.1), scheduler=cosine(10)), short(deep, adam(3e-3))),
    "rate x10, momentum": Case(short(plain, sgd(1.0)), short(plain, sgd(0.1))),
    "rate x30": Case(short(plain, sgd(5.0, 0.0)), short(plain, sgd(0.3, 0.0))),
    "rate / 300": Case(short(plain, sgd(0.001, 0.0)), short(plain, sgd(0.3, 0.0))),
    "rate / 30, momentum": Case(short(plain, sgd(0.003)), short(plain, sgd(0.1))),
    "rate / 30, Adam": Case(short(plain, adam(1e-4)), short(plain, adam(3e-3))),
    "stopped early": Case(short(plain, sgd(0.2, 0.0), epochs=2, every=1), short(plain, sgd(0.2, 0.0), epochs=8)),
    "stopped early, tanh": Case(
        short(lambda: mlp(64, 64, 10, activation=nn.Tanh), sgd(0.3, 0.0), epochs=2, every=1),
        short(lambda: mlp(64, 64, 10, activation=nn.Tanh), sgd(0.3, 0.0), epochs=8)),
    "never annealed": Case(never_annealed(4, 0.1), never_annealed(4, 0.1, scheduler=cosine(12))),
    "never annealed, batch 6": Case(never_annealed(6, 0.2), never_annealed(6, 0.2, scheduler=cosine(12))),
    # data
    "other units": Case(short(plain, sgd(0.05), every=1, step=in_other_units(100.0)), short(plain, sgd(0.05))),
    "other units, Adam": Case(
        short(deep, adam(3e-3), every=1, step=in_other_units(1000.0)), short(deep, adam(3e-3))),
    # optimizer
    "gradients grow": Case(lagging(deep, 0.01), lagging(deep, 0.01, betas=(0.9, 0.9))),
    "gradients grow, wide": Case(lagging(wide, 0.03), lagging(wide, 0.03, betas=(0.9, 0.9))),
    "gradients grow, rate 0.06": Case(lagging(deep, 0.06), lagging(deep, 0.06, betas=(0.9, 0.9))),
    "gradients grow, rate 0.1": Case(lagging(deep, 0.1), lagging(deep, 0.1, betas=(0.9, 0.9))),
    "epsilon 1": Case(short(plain, adam(3e-3, eps=1.0)), short(plain, adam(3e-3))),
    "tiny loss": Case(short(plain, adam(3e-3), criterion=TinyLoss()),
                      short(plain, adam(3e-3, eps=1e-16), criterion=TinyLoss())),
    "lopsided": Case(short(lopsided, sgd(1e-4), epochs=6), short(lopsided, adam(3e-3), epochs=6)),
    "stacked sigmoids": Case(short(stacked(nn.Sigmoid), sgd(0.1)), short(stacked(nn.Tanh), sgd(0.1))),
    "small batch": Case(
        short(linear, sgd(0.005, 0.0), size=4, data=mislabelled(0.5), step=accumulated(2), epochs=2), None),
    "small batch, two layers": Case(
        short(plain, sgd(0.01, 0.0), size=8, data=mislabelled(0.3), step=accumulated(2), epochs=4), None),
    "large batch": Case(short(linear, sgd(0.2, 0.0), size=1200, step=accumulated(8), epochs=50, every=1), None),
    "large batch, two layers": Case(
        short(plain, sgd(0.2, 0.0), size=1200, step=accumulated(4), epochs=50, every=1), None),
    "fine-tuned at 0.5": Case(short(from_pretrained, sgd(0.5)), short(from_pretrained, sgd(0.01))),
    "fine-tuned at 0.3, Adam": Case(short(from_pretrained, adam(0.3)), short(from_pretrained, adam(3e-4))),
    "decay 30": Case(short(plain, adamw(3e-3, weight_decay=30.0)), short(plain, adamw(3e-3, weight_decay=0.03))),
    "decay 0.1, SGD": Case(short(plain, sgd(0.1, weight_decay=0.1)), short(plain, sgd(0.1, weight_decay=1e-3))),
    # fit
    "wrong labels": Case(short(wide, adam(3e-3), data=mislabelled(0.4, 400), size=20, epochs=30),
                         short(wide, adam(3e-3), data=mislabelled(0.4, 400), size=20, epochs=3),
                         better="val", by_accuracy=True),
    "wrong labels, dropout": Case(short(dropped(0.5, 256), adam(3e-3), data=mislabelled(0.3, 200), size=20, epochs=60),
                                  short(dropped(0.5, 256), adam(3e-3), data=mislabelled(0.3, 200), size=20, epochs=5),
                                  better="val", by_accuracy=True),
    "too narrow": Case(short(lambda: mlp(64, 1, 10, activation=nn.Tanh), sgd(0.05), epochs=20, scheduler=cosine(20)),
                       short(lambda: mlp(64, 4, 10, activation=nn.Tanh), sgd(0.05), epochs=20, scheduler=cosine(20))),
    "heavy dropout": Case(short(dropped(0.95, 32), sgd(0.05), epochs=20, scheduler=cosine(20)),
                          short(dropped(0.0, 32), sgd(0.05), epochs=20, scheduler=cosine(20))),
    "dropout on eight units": Case(
        short(dropped(0.9, 8), sgd(0.05), epochs=14, scheduler=spent_after(10)),
        short(dropped(0.0, 8), sgd(0.05), epochs=14, scheduler=spent_after(10))),
    "dropout on six units": Case(
        short(dropped(0.85, 6), sgd(0.05), epochs=14, scheduler=spent_after(10)),
        short(dropped(0.0, 6), sgd(0.05), epochs=14, scheduler=spent_after(10))),
    "annealed before it had begun": Case(
        short(plain, sgd(0.003, 0.0), epochs=12, every=2, scheduler=spent_after(6)),
        short(plain, sgd(0.1, 0.0), epochs=12, every=2, scheduler=spent_after(6))),
    "mostly wrong labels": Case(
        short(linear, sgd(0.02), data=mislabelled(0.6), epochs=14, scheduler=spent_after(8)),
        short(linear, sgd(0.02), epochs=14, scheduler=spent_after(8)), better="val", by_accuracy=True),
    "mostly wrong labels, narrow": Case(
        short(lambda: mlp(64, 12, 10), sgd(0.05), data=mislabelled(0.6), epochs=14, scheduler=spent_after(8)),
        short(lambda: mlp(64, 12, 10), sgd(0.05), epochs=14, scheduler=spent_after(8)),
        better="val", by_accuracy=True),
    "transposed validation": Case(short(plain, sgd(0.05), val=shifted_val()), short(plain, sgd(0.05)), better="val"),
    "inverted validation": Case(short(plain, sgd(0.05), val=inverted_val()), short(plain, sgd(0.05)), better="val"),
}  # fmt: skip
