"""Ignite's engines: one line attaches to the trainer and to the evaluator.

python examples/ignite_engine.py
"""

import torch
from fitdoctor.live.integrations.ignite import attach
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(2000, 20)
y = (x[:, :5] + 0.3 * torch.randn(2000, 5)).argmax(1)
train = DataLoader(TensorDataset(x[:1600], y[:1600]), 32, shuffle=True)
val = DataLoader(TensorDataset(x[1600:], y[1600:]), 100)

model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()

trainer = create_supervised_trainer(model, optimizer, criterion, gradient_accumulation_steps=2)
evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy(), "loss": Loss(criterion)})
trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(val))

watch = attach(
    trainer, model, optimizer, criterion, evaluator=evaluator, logdir="runs/ignite_engine", stop_on=["nonfinite-loss"]
)
trainer.run(train, max_epochs=12)

assert watch.monitor is not None
print("steps:", watch.monitor.step, "| iterations:", trainer.state.iteration)
print(f"validation loss: {watch.monitor.last('loss', split='val'):.3f}")
