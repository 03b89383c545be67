"""A learning rate far too high: the monitor stops the training and names where it broke.

python examples/stop_when_sick.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
criterion = nn.MSELoss()
monitor = fitdoctor.attach(
    model, optimizer, criterion, logdir="runs/stop_when_sick", stop_on=["nonfinite-loss"], record_every=1
)
try:
    for _ in range(500):
        x = torch.randn(32, 20)
        optimizer.zero_grad()
        criterion(model(x), x.sum(1, keepdim=True)).backward()
        optimizer.step()
except fitdoctor.TrainingSick as sick:
    print("stopped:", sick)
    print(monitor.first_nonfinite)
finally:
    report = monitor.close()
for diagnosis in report.diagnoses:
    print("-", diagnosis.root.rule, "|", diagnosis.root.message)
    for remedy in diagnosis.root.remedies[:2]:
        print("    ->", remedy.title)
