"""By what it is learned: small networks, with the mistakes in building them that a recipe may ask for."""

from __future__ import annotations

import math

import torch
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.tasks import Task
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "leaky": nn.LeakyReLU,
    "none": nn.Identity,
}


class Block(nn.Module):
    """x + f(norm(x))."""

    def __init__(self, width: int, act: type[nn.Module], dropout: float) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)
        self.act, self.drop = act(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.act(self.linear(self.norm(x))))


class Skip(nn.Module):
    """x + f(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Sequence(nn.Module):
    """A recurrent net with one output per token."""

    def __init__(self, kind: type[nn.RNNBase], vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.cell = kind(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(x))[0])


class Transformer(nn.Module):
    """A small transformer with one output per token; causal where it predicts the next."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, dropout: float, *, pre: bool) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=pre)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.place
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


def build(recipe: Recipe, task: Task) -> nn.Module:
    """The recipe's network: ``mlp4-tanh``, ``res6-gelu``, ``cnn-bn``, ``conv1d-bn``, ``auto``, ``former2-pre``."""
    kind, *variants = recipe.arch.split("-")
    name = kind.rstrip("0123456789") if kind != "conv1d" else kind
    depth = (int(kind[len(name) :] or 3) if name != "conv1d" else 3) if not recipe.depth else recipe.depth
    act = ACTIVATIONS[recipe.activation or next((v for v in variants if v in ACTIVATIONS), "relu")]
    norm = "bn" in variants
    outputs = task.classes or (task.train[1].shape[1] if task.train[1].ndim > 1 else 1)
    width, drop = recipe.width, recipe.dropout
    if name == "mlp":
        net: nn.Module = _perceptron(recipe, task.train[0][0].numel(), outputs, depth, act, norm=norm)
    elif name == "res":
        body = [Block(width, act, drop) for _ in range(depth)]
        net = nn.Sequential(nn.Linear(task.train[0].shape[1], width), *body, nn.Linear(width, outputs))
    elif name in ("cnn", "conv1d"):
        net = _convolutional(recipe, task, outputs, act, norm=norm, flat=name == "conv1d")
    elif name == "auto":
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), act(), nn.Flatten(), nn.Linear(128, width), act(),
            nn.Linear(width, 12), nn.Linear(12, width), act(), nn.Linear(width, outputs),
        )  # fmt: skip
    elif name in ("gru", "rnn", "lstm"):
        net = Sequence({"gru": nn.GRU, "rnn": nn.RNN, "lstm": nn.LSTM}[name], task.tokens, width)
    elif name == "former":
        net = Transformer(task.tokens, task.train[0].shape[1], width, depth, drop, pre="pre" in variants)
    else:
        raise ValueError(f"{recipe.arch}: expected mlp, res, cnn, conv1d, auto, gru, rnn, lstm or former")
    _spoil(net, recipe)
    return net


def _perceptron(
    recipe: Recipe, inputs: int, outputs: int, depth: int, act: type[nn.Module], *, norm: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = recipe.width
    for i in range(depth - 1):
        block: list[nn.Module] = [nn.Linear(inputs if i == 0 else width, width)]
        block += [nn.BatchNorm1d(width)] if norm else []
        block += [nn.LayerNorm(width)] if recipe.normalisation else []
        block.append(act())
        layers += [Skip(*block)] if recipe.residual and i else block
        layers += [nn.Dropout(recipe.dropout)] if recipe.dropout else []
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _convolutional(
    recipe: Recipe, task: Task, outputs: int, act: type[nn.Module], *, norm: bool, flat: bool
) -> nn.Sequential:
    conv = nn.Conv1d if flat else nn.Conv2d
    batch_norm = nn.BatchNorm1d if flat else nn.BatchNorm2d
    pool = nn.MaxPool1d(2) if flat else nn.MaxPool2d(2)
    square = not flat and task.train[0].ndim == 2
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))] if square else []
    channels, size = 1, 8 if square else int(task.train[0].shape[-1])
    for out in (max(recipe.width // 3, 1), max(recipe.width // 2, 1)):
        layers.append(conv(channels, out, 3, padding=1))
        layers += [batch_norm(out)] if norm and not recipe.normalisation else []
        layers += [nn.GroupNorm(1, out)] if recipe.normalisation else []
        layers += [act(), pool]
        channels, size = out, size // 2
    layers += [nn.Flatten(), nn.Dropout(recipe.dropout)]
    return nn.Sequential(*layers, nn.Linear(channels * (size if flat else size**2), outputs))


@torch.no_grad()
def _spoil(net: nn.Module, recipe: Recipe) -> None:
    """Initialise as wrongly as the recipe asks for."""
    linears = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    last = linears[-1]
    if recipe.initialisation:
        draw = nn.init.kaiming_normal_ if recipe.initialisation == "kaiming" else nn.init.xavier_normal_
        for module in linears:
            draw(module.weight)
            if module.bias is not None:
                module.bias.zero_()
        return
    if recipe.gain != 1:
        for name, p in net.named_parameters():
            if p.ndim > 1 and "embed" not in name and "place" not in name:
                p.mul_(recipe.gain)
    last.weight.mul_(recipe.output_gain)
    for i, module in enumerate(linears[:-1]):
        if recipe.constant_init and i < math.ceil(recipe.constant_init * (len(linears) - 1)):
            module.weight.fill_(1 / module.weight[0].numel())
            if module.bias is not None:
                module.bias.zero_()
        if recipe.bias_shift and module.bias is not None:
            module.bias.sub_(recipe.bias_shift)
