"""A tied weight is measured once, under its first name; a frozen one has no gradient, no update, and is no alarm.

python examples/tied_and_frozen.py
"""

import fitdoctor
import torch
from torch import nn


class Tiny(nn.Module):
    """Predicts the next of 30 tokens from the last two; the output layer shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.mix, self.frozen, self.out = nn.Linear(32, 16), nn.Linear(16, 16), nn.Linear(16, 30, bias=False)
        self.out.weight = self.embed.weight
        self.frozen.requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.frozen(torch.tanh(self.mix(self.embed(tokens).flatten(1)))))


torch.manual_seed(0)
model = Tiny()
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
criterion = nn.CrossEntropyLoss()
with fitdoctor.attach(model, optimizer, criterion, logdir="runs/tied_and_frozen", record_every=10) as monitor:
    for _ in range(300):
        tokens = torch.randint(0, 30, (64, 2))
        optimizer.zero_grad()
        criterion(model(tokens), (tokens[:, 0] + 1) % 30).backward()
        optimizer.step()

print("measured:", sorted(monitor.run.layers(fitdoctor.Quantity("update_ratio", "", ""))))
print("parameters without gradient:", monitor.last("parameters_without_grad"))
