"""Clipping is heard wherever torch's own function is called: the norm before it and after it, in all and per layer.

python examples/clipping.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
model = nn.LSTM(4, 32, batch_first=True)
head = nn.Linear(32, 1)
net = nn.ModuleList([model, head])
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
criterion = nn.MSELoss()

with fitdoctor.attach(net, optimizer, criterion, logdir="runs/clipping", record_every=10) as monitor:
    for _ in range(200):
        x = torch.randn(32, 10, 4)
        optimizer.zero_grad()
        criterion(head(model(x)[0][:, -1]), x[:, :, :1].sum(1)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

print("gradient norm before clipping:", monitor.last("grad_norm"), "| after:", monitor.last("grad_norm_clipped"))
print("before clipping, of the head's weight:", monitor.last("grad_norm", "1.weight"))
