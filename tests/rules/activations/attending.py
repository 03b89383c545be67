"""Trainings of a second with attention, for the rule on its entropy, each made once and watched by the monitor.

Two tasks, each solved by the same small model. To tell the majority of noisy tokens takes attention to all of them;
to recall the token that a key stands for takes attention to one alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from fitdoctor.run import Run
from tests.hooked import Data, torch, watch
from torch import Tensor, nn
from torch.nn import functional

LENGTH, WIDTH = 16, 32


class Reader(nn.Module):
    """A query that reads the tokens through an attention; there is no other way to the answer.

    Args:
        inputs: numbers per token.
        outputs: classes.
        gain: factor on the initial weights of queries and keys.
        heads: of each attention.
        norm: whether queries and keys are normalised.
        hot: forward passes in which the products are a thousand times larger.
    """

    def __init__(
        self, inputs: int, outputs: int, *, gain: float = 1.0, heads: int = 2, norm: bool = False, hot: int = 0
    ) -> None:
        super().__init__()
        self.inputs, self.heads, self.norm, self.hot = inputs, heads, norm, hot
        self.embed = nn.Linear(inputs, WIDTH)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "out": nn.Linear(WIDTH, WIDTH)})
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs))
        with torch.no_grad():
            self.attention["qkv"].weight[: 2 * WIDTH] *= math.sqrt(gain)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        h = self.embed(x.view(n, -1, self.inputs))
        parts = self.attention["qkv"](h).chunk(3, -1)
        q, k, v = (t.view(n, -1, self.heads, WIDTH // self.heads).transpose(1, 2) for t in parts)
        if self.norm:
            q, k = functional.layer_norm(q, q.shape[-1:]), functional.layer_norm(k, k.shape[-1:])
        q = q * (1000 if self.hot > 0 else 1)
        self.hot -= self.training
        y = functional.scaled_dot_product_attention(q[:, :, -1:], k, v)
        out: Tensor = self.head(self.attention["out"](y.transpose(1, 2).flatten(2))[:, 0])
        return out


def majority(n: int = 1500) -> tuple[Data, Data]:
    """Fifteen noisy copies of a sign, which is the label, and a token that asks for it."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (n,), generator=g)
    x = torch.zeros(n, LENGTH, 2)
    x[:, :, 0] = 0.3 * (2.0 * y[:, None] - 1) + torch.randn(n, LENGTH, generator=g)
    x[:, -1] = torch.tensor([0.0, 1.0])
    return (x[:1000].flatten(1), y[:1000]), (x[1000:].flatten(1), y[1000:])


def recall(n: int = 3000, symbols: int = 8) -> tuple[Data, Data]:
    """Eight tokens, each with a key and a value; the last asks for the value of one key."""
    g = torch.Generator().manual_seed(0)
    x, labels = torch.zeros(n, symbols + 1, 2 * symbols), torch.zeros(n, dtype=torch.long)
    for i in range(n):
        keys = torch.randperm(symbols, generator=g)
        values = torch.randint(0, symbols, (symbols,), generator=g)
        x[i, torch.arange(symbols), keys] = 1
        x[i, torch.arange(symbols), symbols + values] = 1
        asked = int(torch.randint(0, symbols, (1,), generator=g))
        x[i, -1, keys[asked]] = 1
        labels[i] = values[asked]
    return (x[:2500].flatten(1), labels[:2500]), (x[2500:].flatten(1), labels[2500:])


def adam(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.Adam(model.parameters(), lr)


def trained(task: Callable[[], tuple[Data, Data]], lr: float, *, epochs: int = 12, **model: Any) -> Run:
    data, val = task()
    inputs, outputs = (2, 2) if task is majority else (16, 8)
    return watch(
        lambda: Reader(inputs, outputs, **model), optimizer=adam(lr), data=data, val=val, epochs=epochs, every=4
    )


TRAININGS: dict[str, Callable[[], Run]] = {
    "even": lambda: trained(majority, 3e-3),
    "sharp from the start": lambda: trained(majority, 3e-3, gain=300),
    "one key from the start": lambda: trained(majority, 3e-3, gain=3000),
    "one key from the start, normalised": lambda: trained(majority, 3e-3, gain=3000, norm=True),
    "rate collapses it": lambda: trained(majority, 0.3),
    "sharp for a while": lambda: trained(majority, 3e-3, hot=60),
    "looks up": lambda: trained(recall, 1e-2, epochs=10),
    "looks up, sharp": lambda: trained(recall, 1e-2, epochs=10, gain=300),
    "rate collapses the look-up": lambda: trained(recall, 0.3, epochs=10),
}


@cache
def run_of(name: str) -> Run:
    """The run of a training, made once."""
    return TRAININGS[name]()
