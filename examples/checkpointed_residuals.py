"""In-place residuals, on which backward hooks of modules fail, inside activation checkpointing, which runs them twice.

python examples/checkpointed_residuals.py
"""

import fitdoctor
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """A residual block that writes over its own output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc, self.act = nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.act(self.fc(self.norm(x)))
        out += x
        return out


class Net(nn.Module):
    """A stack of blocks, computed again inside backward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 5)
        self.blocks = nn.ModuleList(Block(32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False)
        return self.last(h)


torch.manual_seed(0)
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()
with fitdoctor.attach(model, optimizer, criterion, logdir="runs/checkpointed", record_every=10) as monitor:
    for _ in range(150):
        x = torch.randn(32, 20)
        optimizer.zero_grad()
        criterion(model(x), x[:, :5].argmax(1)).backward()
        optimizer.step()

depth = [round(monitor.last("activation_rms", f"blocks.{i}.fc"), 3) for i in range(4)]
print("output of each block's layer, measured once per step and before it is written over:", depth)
print(
    "gradient with respect to it:", [f"{monitor.last('activation_grad_rms', f'blocks.{i}.fc'):.1e}" for i in range(4)]
)
