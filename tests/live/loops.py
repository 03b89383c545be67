"""Small trainings that the tests of the live side share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Residual(nn.Module):
    """In-place ReLU and in-place residual: full backward hooks fail on it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        out += x
        return self.act(out)  # type: ignore[no-any-return]


class Checkpointed(nn.Module):
    """A middle that is computed again inside backward."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 16)
        self.middle = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.2))
        self.tail = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = checkpoint(self.middle, self.head(x), use_reentrant=False)
        out: Tensor = self.tail(h)
        return out


class TiedText(nn.Module):
    """Embedding tied to the output layer, attention, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.frozen = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 4, bias=False)
        self.out.weight = self.embed.weight
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed((x.abs() * 3).long() % 4)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        out: Tensor = self.out(self.norm(self.frozen(h)).mean(1))
        return out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 4),
    )  # fmt: skip


def residual() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), Residual(16), Residual(16), nn.Linear(16, 4))


class Recurrent(nn.Module):
    """An LSTM: the layer's output is a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 12, batch_first=True)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.lstm(x.unsqueeze(2))[0][:, -1])
        return out


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp with dropout": mlp,
    "cnn with batch norm": cnn,
    "in-place residual": residual,
    "lstm": Recurrent,
    "tied, frozen, attention": TiedText,
    "checkpointed": Checkpointed,
}


def batches(n: int, *, size: int = 16, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Random inputs with learnable labels."""
    random = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(n):
        x = torch.randn(size, 8, generator=random)
        out.append((x, x[:, :4].argmax(1)))
    return out


def train(model: nn.Module, optimizer: Any, criterion: nn.Module, data: list[tuple[Tensor, Tensor]]) -> list[float]:
    """The plainest loop."""
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
