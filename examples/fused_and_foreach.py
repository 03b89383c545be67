"""Plain, foreach and fused optimizers do the same arithmetic in another order: the same figures come out.

python examples/fused_and_foreach.py
"""

import fitdoctor
import torch
from torch import nn

for kind in ({"foreach": False}, {"foreach": True}, {"fused": True}):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, **kind)
    criterion = nn.CrossEntropyLoss()
    with fitdoctor.attach(model, optimizer, criterion, record_every=5) as monitor:
        for _ in range(250):
            x = torch.randn(32, 20)
            optimizer.zero_grad()
            criterion(model(x), x[:, :5].argmax(1)).backward()
            optimizer.step()
    figures = {name: round(monitor.last(name), 5) for name in ("loss", "grad_norm", "update_norm")}
    print(next(iter(kind.items())), figures)
