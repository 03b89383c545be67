"""Lightning: one callback watches the training, takes its validation, and stops it when it is sick.

python examples/lightning_callback.py
"""

import fitdoctor
import torch
from fitdoctor.live.integrations.lightning import FitdoctorCallback
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(LightningModule):
    """Finds the largest of the first five numbers."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
        self.criterion = nn.CrossEntropyLoss()
        self.lr = lr

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.criterion(self.model(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def batches(rows: int, seed: int) -> DataLoader:
    x = torch.randn(rows, 20, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, x[:, :5].argmax(1)), 32, shuffle=seed == 0)


def fit(lr: float) -> tuple[Trainer, FitdoctorCallback]:
    torch.manual_seed(0)
    watch = FitdoctorCallback(stop_on=["lr-too-high", "nonfinite-loss"], record_every=2, judge_every=20)
    trainer = Trainer(
        max_epochs=8,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=5.0,
        logger=CSVLogger("lightning_runs"),
        log_every_n_steps=5,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(lr), batches(2048, 0), batches(512, 1))
    return trainer, watch


trainer, watch = fit(lr=0.1)
print("optimizer steps:", watch.monitor.step, "| loss weight:", watch.monitor.last("loss_weight"))
print("validation loss:", round(watch.monitor.last("loss", split="val"), 3))
trainer, watch = fit(lr=30.0)
print("stopped after", trainer.global_step, "steps:", trainer.should_stop)
for run in fitdoctor.open_runs("lightning_runs"):  # the logger's file and the monitor's are one run
    print(run.name, "|", fitdoctor.diagnose(run).verdict)
