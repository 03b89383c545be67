"""Validation inside the epoch is no training step, and fixed batches show what noise, dropout and augmentation hide.

python examples/validation_and_probes.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(1400, 20)
y = x[:, :5].argmax(1)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()

with fitdoctor.attach(
    model, optimizer, criterion, logdir="runs/validation_and_probes", record_every=10, probe_every=10,
    probe_train=(x[:200], y[:200]), probe_val=(x[1200:], y[1200:]),
) as monitor:  # fmt: skip
    for _ in range(10):
        for i, batch in enumerate(torch.randperm(1200).split(40)):
            optimizer.zero_grad()
            criterion(model(x[batch]), y[batch]).backward()
            optimizer.step()
            if i == 15:  # in the middle of the epoch
                model.eval()
                with torch.no_grad():
                    monitor.log(val_loss=criterion(model(x[1200:]), y[1200:]))
                model.train()

print("steps:", monitor.step, "| in train mode:", monitor.last("train_mode"))
print(f"loss of the batches, with dropout: {monitor.last('loss'):.3f}")
train, val = (monitor.run.get(fitdoctor.Quantity("probe_loss", "", ""), split) for split in ("train", "val"))
print(f"fixed batches, without: train {train.values[-1]:.3f}, val {val.values[-1]:.3f}")
