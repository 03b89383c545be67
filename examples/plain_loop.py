"""A plain loop with a monitor: two lines more.

    python examples/plain_loop.py

Then: ``fitdoctor analyze runs/plain_loop`` or ``tensorboard --logdir runs``.
"""

import logging

import fitdoctor
import torch
from torch import nn

logging.basicConfig(format="%(message)s")
torch.manual_seed(0)
x = torch.randn(2000, 20)
y = (x[:, :5] + 0.3 * torch.randn(2000, 5)).argmax(1)

model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()
probe = (x[1600:], y[1600:])

with fitdoctor.attach(model, optimizer, criterion, logdir="runs/plain_loop", probe_val=probe) as monitor:
    for epoch in range(6):
        for batch in torch.randperm(1600).split(32):
            optimizer.zero_grad()
            loss = criterion(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            out = model(x[1600:])
            accuracy = (out.argmax(1) == y[1600:]).float().mean()
            monitor.log(val_loss=criterion(out, y[1600:]), val_accuracy=accuracy, epoch=epoch)
        model.train()

report = monitor.close()
print(report.verdict, dict(report.counts))
print("the monitor used", monitor.cost)
