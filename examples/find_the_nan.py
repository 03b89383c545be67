"""A batch that breaks the backward pass, run once more with anomaly detection.

python examples/find_the_nan.py
"""

import fitdoctor
import torch
from fitdoctor.live import replay
from torch import nn


class Distance(nn.Module):
    """Euclidean length: its slope at 0 is not defined."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(1, keepdim=True).sqrt()


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8, bias=False), Distance())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
good, bad = torch.randn(16, 4), torch.zeros(16, 4)

weights = {k: v.clone() for k, v in model.state_dict().items()}
with fitdoctor.attach(model, optimizer, criterion, record_every=1) as monitor:
    for batch in (good, good, bad, good):
        optimizer.zero_grad()
        criterion(model(batch), torch.ones(16, 1)).backward()
        optimizer.step()
print(monitor.first_nonfinite)

model.load_state_dict(weights)  # the last good checkpoint
found = replay(model, criterion, bad, torch.ones(16, 1))
print("operation:", found.backward, "| inputs finite:", found.inputs_finite, "| weights finite:", found.weights_finite)
