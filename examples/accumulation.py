"""Accumulation: the measured loss is the criterion's, whatever it is divided by; two batch sizes give the noise.

python examples/accumulation.py
"""

import fitdoctor
import torch
from torch import nn

PARTS = 4
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
criterion = nn.CrossEntropyLoss()

with fitdoctor.attach(
    model, optimizer, criterion, logdir="runs/accumulation", scheduler=scheduler, record_every=3
) as monitor:
    for i in range(150 * PARTS):
        x = torch.randn(32, 20)
        loss = criterion(model(x), x[:, :5].argmax(1))
        (loss / PARTS).backward()
        if i % PARTS == PARTS - 1:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()

print("optimizer steps:", monitor.step)
print("backward calls per step:", monitor.last("backward_calls"), "| loss weight:", monitor.last("loss_weight"))
print("loss", round(monitor.last("loss"), 3), "is the criterion's own:", round(loss.item(), 3), "in the last part")
print("gradient noise scale:", round(monitor.last("noise_scale")), "samples; a larger batch than that gains little")
