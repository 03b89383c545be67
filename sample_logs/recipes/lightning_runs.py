"""Train with PyTorch Lightning and keep what its CSVLogger writes."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from recipes.shared import Data, Truth, measure

Optimize = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass
class LightningRun:
    """One training by `lightning.Trainer`.

    Attributes:
        model, data: what is trained on what.
        optimize: makes the optimizer from the parameters.
        epochs, batch: the budget.
        folder: where metrics.csv goes, None to log nothing.
        schedule: makes a scheduler from the optimizer.
        interval: "epoch" or "step", as in Lightning's configuration.
        clip: gradient_clip_val.
    """

    model: nn.Module
    data: Data
    optimize: Optimize
    epochs: int
    batch: int
    folder: Path | None
    schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None
    interval: str = "epoch"
    clip: float | None = None

    def run(self) -> Truth:
        """Train; returns the truth about the run."""
        import lightning

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        truth = Truth(measure(self.model, self.data.train, F.cross_entropy)[0])
        module = _module(self, truth)
        scratch = Path(tempfile.mkdtemp())
        logger = lightning.pytorch.loggers.CSVLogger(scratch, "run") if self.folder else False
        callbacks = [lightning.pytorch.callbacks.LearningRateMonitor("epoch")] if self.folder and self.schedule else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_epochs=self.epochs,
                accelerator="cpu",
                logger=logger,
                callbacks=callbacks,
                log_every_n_steps=5,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                num_sanity_val_steps=0,
                gradient_clip_val=self.clip,
            )
            g = torch.Generator().manual_seed(0)
            loaders = (
                DataLoader(TensorDataset(*self.data.train), self.batch, shuffle=True, generator=g, drop_last=True),
                DataLoader(TensorDataset(*self.data.val), 500),
            )
            trainer.fit(module, *loaders)
        if self.folder:
            for path in scratch.rglob("metrics.csv"):
                shutil.copy(path, self.folder / "metrics.csv")
        shutil.rmtree(scratch)
        truth.train = measure(self.model, self.data.train, F.cross_entropy)[0]
        return truth


def _module(run: LightningRun, truth: Truth) -> object:
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = run.model

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            output = self.model(batch[0])
            self.log("val_loss", F.cross_entropy(output, batch[1]))
            self.log("val_acc", (output.argmax(-1) == batch[1]).float().mean())

        def on_validation_epoch_end(self) -> None:
            truth.val.append(measure(self.model, run.data.val, F.cross_entropy)[0])
            loss, score = measure(self.model, run.data.oracle, F.cross_entropy)
            truth.oracle.append(loss)
            truth.score.append(score)
            self.model.eval()

        def configure_optimizers(self) -> object:
            optimizer = run.optimize(self.model.parameters())
            if run.schedule is None:
                return optimizer
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": run.schedule(optimizer), "interval": run.interval},
            }

    return Classifier()
