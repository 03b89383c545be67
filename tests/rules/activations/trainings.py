"""Trainings of a second or less for the rules on layers, each made once per session and watched by the monitor.

The faults are real: an initialisation that is wrong, biases that kill units, inputs that were not scaled. The
sound ones include what looks like a fault: sparse nets, gates, residual nets, frozen layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from fitdoctor.run import Run
from tests.hooked import Data, digits, mlp, torch, watch
from torch import Tensor, nn

Init = Callable[[nn.Module], None]


def sgd(lr: float, momentum: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), lr, momentum=momentum)


def adam(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)


# --- initialisations ------------------------------------------------------------------------------------


def he(gain: float = 1.0) -> Init:
    """He initialisation times a gain."""

    def set_weights(m: nn.Module) -> None:
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        nn.init.zeros_(m.bias)
        m.weight.data *= gain

    return set_weights


def xavier(gain: float = 1.0) -> Init:
    """Xavier initialisation times a gain."""

    def set_weights(m: nn.Module) -> None:
        nn.init.xavier_normal_(m.weight, gain)
        nn.init.zeros_(m.bias)

    return set_weights


def constant(value: float) -> Init:
    """All weights equal."""

    def set_weights(m: nn.Module) -> None:
        nn.init.constant_(m.weight, value)
        nn.init.zeros_(m.bias)

    return set_weights


def with_init(model: nn.Module, init: Init) -> nn.Module:
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            init(m)
    return model


def deep(hidden: int, width: int = 32, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    return mlp(64, *[width] * hidden, 10, activation=activation)


# --- models ---------------------------------------------------------------------------------------------


def biased(value: float, share: float = 1.0) -> nn.Module:
    """Two hidden layers of which a share of the biases begins at a value."""
    model = mlp(64, 64, 64, 10)
    for layer in model[:-1]:
        if isinstance(layer, nn.Linear):
            layer.bias.data[: round(64 * share)] = value
    return model


class Functional(nn.Module):
    """Three hidden layers whose activation is no module."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 32)])
        self.head = nn.Linear(32, 10)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.head(x)


class Gated(nn.Module):
    """A squeeze-and-excitation gate: a sigmoid that is meant to saturate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 48)
        self.gate = nn.Sequential(nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, 48), nn.Sigmoid())
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.head(x * self.gate(x))


class Block(nn.Module):
    """A residual block, normalised before its layers or not at all."""

    def __init__(self, width: int, *, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(self.norm(x))))


def residual(blocks: int, *, norm: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), *[Block(32, norm=norm) for _ in range(blocks)], nn.Linear(32, 10))


def convolutional(depth: int = 4) -> nn.Module:
    """Convolutions with batch normalisation and pooling."""
    parts: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for i in range(depth):
        parts += [nn.Conv2d(16 if i else 1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        parts += [nn.MaxPool2d(2)] if i == 0 else []
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


class Attention(nn.Module):
    """Two transformer layers over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.view(-1, 8, 8))).mean(1))


class Recurrent(nn.Module):
    """A GRU over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(-1, 8, 8))[0][:, -1])


def frozen() -> nn.Module:
    model = mlp(64, 64, 64, 10)
    for p in model[0].parameters():
        p.requires_grad = False
    return model


def bottleneck() -> nn.Module:
    """A low-rank factor before the activation."""
    return nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 10))


# --- data -----------------------------------------------------------------------------------------------


def unscaled() -> tuple[Data, Data]:
    """The digits, far from zero and from unit scale."""
    train, val = digits()
    return (train[0] * 50 + 100, train[1]), (val[0] * 50 + 100, val[1])


def repeated() -> tuple[Data, Data]:
    """A loader that always gives the first image, with the labels of all."""
    train, val = digits()
    return (train[0][:1].expand_as(train[0]).clone(), train[1]), val


def noisy() -> tuple[Data, Data]:
    """Four labels in ten are drawn at random."""
    train, val = digits()
    generator = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(train[1]), generator=generator) < 0.4
    labels = train[1].clone()
    labels[wrong] = torch.randint(0, 10, (int(wrong.sum()),), generator=generator)
    return (train[0], labels), val


def rings() -> tuple[Data, Data]:
    """A ring around a disc, which no linear model can tell apart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1797, 64, generator=generator)
    x[:, :2] *= 3
    y = (x[:, :2].square().sum(1) > 9 * 1.386).long()
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def growing_weights(
    model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> None:
    """A step whose weight decay has the wrong sign."""
    optimizer.zero_grad()
    (criterion(model(x), y) - 0.02 * sum(p.square().sum() for p in model.parameters())).backward()
    optimizer.step()


def rising(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """A schedule whose factor is above 1 by mistake."""
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.25)


# --- trainings ------------------------------------------------------------------------------------------

SOUND: dict[str, Callable[[], Run]] = {
    "plain": lambda: watch(lambda: deep(2), optimizer=sgd(0.1), epochs=14),
    "six layers": lambda: watch(lambda: deep(6), optimizer=adam(1e-3), epochs=14),
    "gelu": lambda: watch(lambda: deep(4, activation=nn.GELU), optimizer=adam(1e-3), epochs=14),
    "sixteen layers, he": lambda: watch(lambda: with_init(deep(16), he()), optimizer=adam(1e-3), epochs=14),
    "tanh, xavier": lambda: watch(
        lambda: with_init(deep(8, activation=nn.Tanh), xavier()), optimizer=sgd(0.1), epochs=14
    ),
    "sigmoid": lambda: watch(lambda: deep(1, activation=nn.Sigmoid), optimizer=adam(1e-2), epochs=14),
    "selu": lambda: watch(lambda: deep(6, activation=nn.SELU), optimizer=adam(1e-3), epochs=14),
    "convolutional": lambda: watch(convolutional, optimizer=sgd(0.1, 0.9), epochs=8),
    "pre-activation": lambda: watch(lambda: residual(8), optimizer=adam(1e-3), epochs=14),
    "residual without norm": lambda: watch(lambda: residual(12, norm=False), optimizer=sgd(0.05), epochs=14),
    "attention": lambda: watch(Attention, optimizer=adam(2e-3), epochs=8),
    "recurrent": lambda: watch(Recurrent, optimizer=adam(1e-2), epochs=8),
    "functional": lambda: watch(Functional, optimizer=sgd(0.1), epochs=14),
    "gated": lambda: watch(Gated, optimizer=adam(3e-3), epochs=14),
    "frozen": lambda: watch(frozen, optimizer=adam(3e-3), epochs=14),
    "sparse": lambda: watch(lambda: biased(-0.4), optimizer=adam(3e-3), epochs=14),
    "mostly dead": lambda: watch(lambda: biased(-20, share=0.7), optimizer=adam(3e-3), epochs=14),
    "bottleneck": lambda: watch(bottleneck, optimizer=adam(3e-3), epochs=14),
    "large outputs": lambda: watch(lambda: with_init(mlp(64, 64, 64, 10), he(4)), optimizer=sgd(0.01), epochs=14),
    "separable": lambda: watch(lambda: deep(2, 64), optimizer=adam(1e-2), epochs=30),
}
"""Trainings that learn, odd ones among them."""

SICK: dict[str, Callable[[], Run]] = {
    "growing": lambda: watch(lambda: with_init(deep(8), he(2.5)), optimizer=sgd(0.05), epochs=14),
    "growing, adam": lambda: watch(lambda: with_init(deep(8), he(4)), optimizer=adam(1e-3), epochs=14),
    "fading": lambda: watch(lambda: with_init(deep(8), he(0.3)), optimizer=sgd(0.1), epochs=14),
    "default, deep": lambda: watch(lambda: deep(12), optimizer=sgd(0.1), epochs=14),
    "sigmoids": lambda: watch(lambda: deep(8, activation=nn.Sigmoid), optimizer=sgd(0.1), epochs=14),
    "rate kills": lambda: watch(lambda: deep(3), optimizer=sgd(5.0), epochs=14),
    "born dead": lambda: watch(lambda: biased(-20.0), optimizer=sgd(0.1), epochs=14),
    "functional, dead": lambda: watch(_functional_dead, optimizer=sgd(0.1), epochs=14),
    "saturated weights": lambda: watch(
        lambda: with_init(deep(4, activation=nn.Tanh), he(20)), optimizer=sgd(0.1), epochs=14
    ),
    "unscaled inputs": lambda: watch(
        lambda: deep(2, activation=nn.Sigmoid), optimizer=sgd(0.1), data=unscaled()[0], val=unscaled()[1], epochs=14
    ),
    "unscaled, functional": lambda: watch(
        lambda: Functional(torch.tanh), optimizer=sgd(0.01), data=unscaled()[0], val=unscaled()[1], epochs=14
    ),
    "one image": lambda: watch(lambda: deep(2), optimizer=sgd(0.1), data=repeated()[0], val=repeated()[1], epochs=14),
    "constant": lambda: watch(lambda: with_init(mlp(64, 64, 64, 10), constant(0.05)), optimizer=sgd(0.1), epochs=14),
    "zero": lambda: watch(lambda: with_init(mlp(64, 64, 64, 10), constant(0.0)), optimizer=sgd(0.1), epochs=14),
    "linear": lambda: watch(
        lambda: nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2)),
        optimizer=sgd(0.05),
        data=rings()[0],
        val=rings()[1],
        epochs=8,
    ),
    "sum": lambda: watch(
        lambda: deep(2), optimizer=sgd(0.002), criterion=nn.CrossEntropyLoss(reduction="sum"), epochs=14
    ),
    "shouting": lambda: watch(lambda: with_init(mlp(64, 64, 64, 10), he(20)), optimizer=sgd(1e-5), epochs=14),
    "growing weights": lambda: watch(
        lambda: deep(2, 64), optimizer=sgd(0.1), data=noisy()[0], val=noisy()[1], step=growing_weights, epochs=30
    ),
    "rising rate": lambda: watch(
        lambda: mlp(64, 10), optimizer=sgd(0.05), data=noisy()[0], val=noisy()[1], scheduler=rising, epochs=30
    ),
}
"""Trainings with one fault each."""


def _functional_dead() -> nn.Module:
    model = Functional()
    model.layers[1].bias.data.fill_(-20)
    return model


@cache
def run_of(name: str) -> Run:
    """The run of a training, made once."""
    return {**SOUND, **SICK}[name]()
