"""LBFGS calls its closure several times per step: all of them belong to the one step that is measured.

python examples/lbfgs_closure.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
x = torch.linspace(-2, 2, 200).unsqueeze(1)
y = torch.sin(2 * x)
model = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
criterion = nn.MSELoss()


def closure() -> torch.Tensor:
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    return loss


with fitdoctor.attach(model, optimizer, criterion, logdir="runs/lbfgs_closure", record_every=1) as monitor:
    for _ in range(20):
        optimizer.step(closure)

print("steps:", monitor.step, "| backward calls of the last one:", monitor.last("backward_calls"))
print(f"loss {monitor.last('loss'):.2g}, update norm {monitor.last('update_norm'):.2g}")
