"""autocast, GradScaler, accumulation and clipping: norms are unscaled, overflows are told from failures.

python examples/mixed_precision.py
"""

import fitdoctor
import torch
from torch import nn

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 5)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
criterion = nn.CrossEntropyLoss()
scaler = torch.amp.GradScaler(device, init_scale=2.0**8)

with fitdoctor.attach(
    model, optimizer, criterion, logdir="runs/mixed_precision", scaler=scaler, scheduler=scheduler, record_every=5
) as monitor:
    for step in range(400):
        x = torch.randn(32, 20, device=device)
        with torch.autocast(device, torch.float16 if device == "cuda" else torch.bfloat16):
            loss = criterion(model(x), x[:, :5].argmax(1)) / 4
        scaler.scale(loss).backward()
        if step % 4 == 3:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            scheduler.step()

run = monitor.run
for name in ("loss", "grad_norm", "grad_norm_clipped", "loss_scale", "skipped_steps", "loss_weight", "noise_scale"):
    series = run.get(fitdoctor.Quantity(name, "", ""))
    print(f"{name:18}", "-" if series is None else f"{series.values[-1]:.4g}")
print(monitor.close().verdict)
