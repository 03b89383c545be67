"""autocast in float16 with a GradScaler: norms are unscaled, and an overflow is a skipped step, not a failure.

python examples/mixed_precision.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 5)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
criterion = nn.CrossEntropyLoss()
scaler = torch.amp.GradScaler(device, init_scale=2.0**20, growth_interval=50)  # too high at first, as by default

with fitdoctor.attach(
    model, optimizer, criterion, logdir="runs/mixed_precision", scaler=scaler, scheduler=scheduler, record_every=5
) as monitor:
    for _ in range(200):
        x = torch.randn(64, 20, device=device)
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = criterion(model(x), x[:, :5].argmax(1))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:  # the step was not skipped
            scheduler.step()

for name in ("loss", "grad_norm", "loss_scale", "skipped_steps", "loss_weight"):
    print(f"{name:18} {monitor.last(name):.4g}")
print("first non-finite value:", monitor.first_nonfinite)
