"""torch.compile: the hooks break no graph and cause no recompilation; the outputs of inner layers are not measured.

python examples/compiled.py
"""

import fitdoctor
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

torch.manual_seed(0)
counter = CompileCounter()  # a backend that only counts; leave it out, and inductor compiles
plain = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
model = torch.compile(plain, backend=counter, fullgraph=True)  # a graph break would be an error
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()

with fitdoctor.attach(model, optimizer, criterion, logdir="runs/compiled", record_every=5) as monitor:
    for _ in range(200):
        x = torch.randn(32, 20)
        optimizer.zero_grad()
        criterion(model(x), x[:, :5].argmax(1)).backward()
        optimizer.step()

print("graphs:", counter.frame_count, "| loss:", round(monitor.last("loss"), 3))
print("update to weight ratio of 0.weight:", monitor.last("update_ratio", "0.weight"))
