"""A loop with Accelerate: the monitor sits on what `prepare` returned, and hears what `accelerator.log` is told.

python examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator
from fitdoctor.live.integrations.accelerate import attach
from torch import nn

torch.manual_seed(0)
x = torch.randn(4000, 20)
y = x[:, :5].argmax(1)
train = torch.utils.data.TensorDataset(x[:3200], y[:3200])
val = torch.utils.data.TensorDataset(x[3200:], y[3200:])

accelerator = Accelerator(gradient_accumulation_steps=2)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
criterion = nn.CrossEntropyLoss()
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
loader, val_loader = (torch.utils.data.DataLoader(d, batch_size=32, shuffle=True) for d in (train, val))
model, optimizer, loader, val_loader, scheduler = accelerator.prepare(model, optimizer, loader, val_loader, scheduler)

doctor = attach(accelerator, model, optimizer, criterion, scheduler=scheduler, logdir="runs/accelerate", record_every=5)

for _ in range(10):
    model.train()
    for inputs, target in loader:
        with accelerator.accumulate(model):
            loss = criterion(model(inputs), target)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        losses = [criterion(model(inputs), target).item() for inputs, target in val_loader]
    accelerator.log({"val_loss": sum(losses) / len(losses)})

accelerator.end_training()  # prints the diagnosis
print("steps:", doctor.monitor.step, "| loss weight:", doctor.monitor.last("loss_weight"))
