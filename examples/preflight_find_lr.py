"""Find the learning rate of a program, and train with the schedule that is made of it.

python examples/preflight_find_lr.py
"""

from __future__ import annotations

import itertools

import fitdoctor
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(800, 10)
    y = (x @ torch.randn(10, 3) + 0.5 * torch.sin(3 * x[:, :3])).argmax(1)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)  # a guess that is far too low

    rates = fitdoctor.find_lr(model, criterion, optimizer, loader)  # the model is as before
    print(rates)
    plan = rates.schedule(total_steps=200)
    print(f"{plan.warm_up} steps of warm-up to {plan.peak:.2g}, then a {plan.kind} decay")

    for step, (inputs, target) in enumerate(itertools.islice(itertools.cycle(loader), plan.total)):
        optimizer.param_groups[0]["lr"] = plan.rate(step)  # or paste plan.code, which makes a scheduler
        loss = criterion(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0 or step == plan.total - 1:
            print(f"step {step:3d}  rate {plan.rate(step):.2e}  loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
