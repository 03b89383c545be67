"""A training that is stopped and goes on in the same log folder: the steps go on counting, and one run is read.

python examples/resume.py
"""

import fitdoctor
import torch
from torch import nn


def train(steps: int, checkpoint: dict | None) -> dict:
    torch.manual_seed(0 if checkpoint is None else 1)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
    criterion = nn.CrossEntropyLoss()
    with fitdoctor.attach(model, optimizer, criterion, logdir="runs/resume", record_every=10) as monitor:
        print("begins after step", monitor.step)
        for _ in range(steps):
            x = torch.randn(32, 20)
            optimizer.zero_grad()
            criterion(model(x), x[:, :5].argmax(1)).backward()
            optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


saved = train(150, None)
train(150, saved)
(run,) = fitdoctor.open_runs("runs/resume")
print("one run of", run.steps.last, "steps")
